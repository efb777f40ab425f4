"""What is told while machine code is made: by real compilations into an empty folder, and line by line."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from lfm_policy import compiling
from lfm_policy.compiling import Compiling, Lines
from tests.server.served import Clock

SOURCE = """
from lfm_policy import compiled, compiling

@compiled.compiled
def inner(x):
    return x + 1

@compiled.compiled
def outer(x):
    return inner(x) + inner(inner(x))

@compiled.compiled
def apart(x):
    return 2 * x

@compiled.compiled
def never(x):
    return x
"""


def run(folder: Path, program: str) -> str:
    (folder / "source.py").write_text(SOURCE)
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    surroundings = os.environ | {"NUMBA_CACHE_DIR": str(folder / "cache"), "PYTHONPATH": path}
    command = [sys.executable, "-c", textwrap.dedent(program)]
    done = subprocess.run(command, env=surroundings, capture_output=True, text=True, check=True, timeout=300)
    return done.stdout + done.stderr


def test_functions_are_counted_with_those_that_they_call_and_nothing_is_said_when_they_lie_on_the_disk(
    tmp_path: Path,
) -> None:
    program = """
        from source import apart, compiling, outer
        compiling.SILENT_S = -1
        said = []
        compiling.tell(lambda state: said.append((state.done, state.total)))
        outer(1), apart(1)
        print(sorted(set(said)) == said or said, said[:1], said[-1:])
    """
    first, second = (run(tmp_path, program).splitlines()[-1] for _ in range(2))
    assert first.endswith("[(0, 2)] [(3, 3)]")
    assert second == "True [] []"


def test_nothing_is_said_of_what_takes_no_time(tmp_path: Path) -> None:
    program = """
        from source import apart, compiling
        compiling.SILENT_S = 1000
        compiling.tell(print)
        apart(1)
        print("done")
    """
    assert run(tmp_path, program) == "done\n"


def test_without_a_terminal_it_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    lines = Lines(clock)
    for done in range(4):
        lines(Compiling(done, 30, None if done == 0 else 90.4))
        clock.now += 60
    assert capsys.readouterr() == ("", "compiling, up to a minute  (once on this machine)\n")


def test_on_a_terminal_it_is_a_line_every_few_seconds_and_the_furthest_counts(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    clock = Clock()
    lines = Lines(clock)
    for seconds, done, left in ((0, 1, 80.0), (1, 5, 60.0), (3, 4, 62.0), (4.9, 5, 50.0), (5, 6, 40.0), (11, 9, 9.6)):
        clock.now = seconds
        lines(Compiling(done, 30, left))
    assert capsys.readouterr().err.splitlines() == [
        "compiling 1/30 functions  1:20 left  (once on this machine)",
        "compiling 6/30 functions  0:40 left",
        "compiling 9/30 functions  0:10 left",
    ]


def test_what_is_compiled_after_the_furthest_is_done_is_counted_anew(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    clock = Clock()
    lines = Lines(clock)
    for done, total in ((17, 18), (18, 18), (2, 7), (1, 7), (7, 7)):
        lines(Compiling(done, total, None))
        clock.now += 60
    said = capsys.readouterr().err.split("functions")
    assert [text.split()[-1] for text in said[:-1]] == ["17/18", "18/18", "2/7", "2/7", "7/7"]


def test_nobody_is_told_who_has_not_asked() -> None:
    said: list[Compiling] = []
    compiling.tell(said.append)
    try:
        compiling.report(Compiling(1, 2, None))
        compiling.tell(None)
        compiling.report(Compiling(2, 2, None))
    finally:
        compiling.tell(None)
    assert said == [Compiling(1, 2, None)]
