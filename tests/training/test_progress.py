import io
import re

import pytest
from rich.console import Console

from lfm_policy.training.progress import TrainingProgress


def follow(console: Console, total: int, start: int = 0) -> str:
    with TrainingProgress(total, start, console) as progress:
        for step in range(start + 1, total + 1):
            progress.update(step, loss=0.25, samples_per_s=1234.5)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_without_a_terminal_ten_lines_are_printed() -> None:
    lines = follow(Console(file=io.StringIO(), width=100), total=600).splitlines()
    assert len(lines) == 10
    assert lines[0].startswith("step 60/600  loss 0.2500  1,234 samples/s")
    assert re.search(r"\d+:\d\d left$", lines[0])
    assert lines[-1].endswith("0:00 left")


def test_a_resumed_run_prints_the_rest() -> None:
    lines = follow(Console(file=io.StringIO(), width=100), total=600, start=300).splitlines()
    assert [line.split()[1] for line in lines] == [f"{step}/600" for step in range(360, 601, 60)]


def test_a_short_run_prints_every_step() -> None:
    assert len(follow(Console(file=io.StringIO(), width=100), total=3).splitlines()) == 3


def test_on_a_terminal_there_is_one_bar() -> None:
    text = follow(Console(file=io.StringIO(), width=100, force_terminal=True), total=20)
    assert "20/20" in text
    assert "loss 0.2500" in text
    assert "step 20/20" not in text


def test_a_phase_between_updates_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(file=io.StringIO(), width=100)
    monkeypatch.setattr("lfm_policy.training.progress.QUIET_S", 0.0)
    with TrainingProgress(10, 0, console) as progress:
        assert list(progress.track([3, 1, 2], "pushing")) == [3, 1, 2]
    lines = console.file.getvalue().splitlines()
    assert [line.split("  ")[0] for line in lines] == ["pushing 1/3", "pushing 2/3", "pushing 3/3"]
    assert lines[-1].endswith("0:00 left")
    terminal = Console(file=io.StringIO(), width=100, force_terminal=True)
    with TrainingProgress(10, 0, terminal) as progress:
        assert list(progress.track([3, 1, 2], "pushing")) == [3, 1, 2]
        progress.update(1, 0.5, 1.0)
    assert "pushing" in terminal.file.getvalue()
