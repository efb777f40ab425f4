"""Files and directories are replaced whole, also when the process is killed at the worst moment."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lfm_policy import files
from lfm_policy.errors import DataError
from lfm_policy.files import (
    atomic_directory,
    atomic_file,
    keeping,
    read_json,
    require_same,
    resolved,
    scratch,
    sha256,
    sweep,
    write_json,
    write_text,
)

KILLED = """
import os, signal, sys
from pathlib import Path
from lfm_policy import files

path, renames, exchanges = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "exchange"

def or_die(rename):
    def counted(*ends):
        global renames
        if renames == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        renames -= 1
        return rename(*ends)
    return counted

os.rename, os.replace = or_die(os.rename), or_die(os.replace)
files.exchange = or_die(files.exchange) if exchanges else lambda *ends: False
with files.atomic_directory(path) as temporary:
    (temporary / "content").write_text("new")
"""
NAMES = [
    "plain",
    "lift (1)",
    "x[1]*?",
    "übung",
    "李明",
    "{y}",
    "a,b",
    "-rf",
    "it's\n",
    os.fsdecode(b"\xff\xfe"),
    "n" * 250,
]


def _write(path: Path, text: str) -> None:
    with atomic_directory(path) as temporary:
        (temporary / "content").write_text(text)


def _killed(path: Path, renames: int, how: str = "exchange") -> None:
    command = [sys.executable, "-c", KILLED, str(path), str(renames), how]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL


@pytest.mark.parametrize(
    ("renames", "how"), [(0, "exchange"), (1, "exchange"), (0, "renames"), (1, "renames"), (2, "renames")]
)
@pytest.mark.parametrize("name", ["checkpoint", "x[1]*"])
def test_a_kill_between_any_two_renames_loses_nothing(tmp_path: Path, name: str, renames: int, how: str) -> None:
    path = tmp_path / name
    _write(path, "old")
    _killed(path, renames, how)
    sweep(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [name]
    assert (path / "content").read_text() == "old"


def test_the_next_write_clears_up_and_leaves_other_names_alone(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    _killed(path, 0)
    (tmp_path / ".checkpoint.notes").write_text("mine")
    (tmp_path / ".lfm-notes").write_text("mine")
    write_text(tmp_path / "other", "text")
    assert sorted(file.name for file in tmp_path.iterdir()) == [".checkpoint.notes", ".lfm-notes", "other"]


def test_the_living_are_not_swept_whatever_their_number(tmp_path: Path) -> None:
    with scratch(tmp_path) as mine:
        program = "import sys; from lfm_policy.files import sweep; sweep(sys.argv[1])"
        subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True)
        assert mine.is_dir()
        sweep(tmp_path)
        assert mine.is_dir()
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("name", NAMES)
def test_names_are_whatever_the_file_system_takes(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    for text in ("old", "new"):
        _write(path, text)
        assert (path / "content").read_text() == text
        write_json(path / name, {"name": text})
        assert read_json(path / name) == {"name": text}
    assert [file.name for file in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("exists", [True, False], ids=["link", "dangling"])
def test_links_are_followed(tmp_path: Path, exists: bool) -> None:
    store, target = tmp_path / "disk" / "store", tmp_path / "disk" / "file"
    if exists:
        _write(store, "old")
        target.write_text("old")
    for name, end in (("store", store), ("file", target)):
        (tmp_path / name).symlink_to(end)
    _write(tmp_path / "store", "new")
    write_text(tmp_path / "file", "new")
    assert (tmp_path / "store").is_symlink()
    assert (tmp_path / "file").is_symlink()
    assert (store / "content").read_text() == target.read_text() == "new"
    assert sorted(file.name for file in store.parent.iterdir()) == ["file", "store"]
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(OSError, match="symbolic links"):
        resolved(tmp_path / "a")


@pytest.mark.parametrize("exchanges", [True, False])
def test_many_writers_of_one_directory_never_fail(
    tmp_path: Path, exchanges: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not exchanges:
        monkeypatch.setattr(files, "exchange", lambda *ends: False)
    monkeypatch.setattr(files, "_fsync", lambda path: None)
    failures: list[BaseException] = []
    done = threading.Event()

    def write(text: str) -> None:
        try:
            for _ in range(60):
                _write(tmp_path / "checkpoint", text)
        except BaseException as error:
            failures.append(error)

    def look() -> None:
        while not done.is_set():
            try:
                assert (tmp_path / "checkpoint" / "content").read_text() in "ab"
            except BaseException as error:
                failures.append(error)

    _write(tmp_path / "checkpoint", "a")
    writers = [threading.Thread(target=write, args=(text,)) for text in "ab"]
    reader = threading.Thread(target=look)
    for thread in writers + [reader] * exchanges:  # two renames leave a moment without it
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    if exchanges:
        reader.join()
        failures = [error for error in failures if not isinstance(error, FileNotFoundError)]  # opened, then exchanged
    assert failures == []
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint"]


def test_a_failed_write_leaves_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    _write(path, "old")
    with pytest.raises(TypeError):
        _write(path, None)  # type: ignore[arg-type]
    with pytest.raises(UnicodeEncodeError), atomic_file(path / "content") as temporary:
        temporary.write_text("new \udcff")
    assert (path / "content").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == len(list(path.iterdir())) == 1


def test_a_file_in_the_way_of_a_directory_stays(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("mine")
    with pytest.raises(NotADirectoryError):
        _write(tmp_path / "store", "new")
    assert (tmp_path / "store").read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 1


def test_content_that_cannot_be_brought_to_disk_is_not_put_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "checkpoint"
    _write(path, "old")

    def full(handle: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="no space"):
        _write(path, "new")
    assert (path / "content").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_whoever_may_enter_the_directory_may_read_its_files(tmp_path: Path) -> None:
    with atomic_directory(tmp_path / "bundle") as directory:
        for name, mode in (("private", 0o600), ("public", 0o644)):
            (directory / name).write_text("weights")
            (directory / name).chmod(mode)
    shared = (tmp_path / "bundle").stat().st_mode & 0o666
    assert {file.stat().st_mode & 0o777 for file in (tmp_path / "bundle").iterdir()} == {shared}


def test_text_that_is_there_is_not_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_text(tmp_path / "page", "ü")
    assert (tmp_path / "page").read_bytes() == "ü".encode()
    monkeypatch.setattr(files, "atomic_file", lambda path: pytest.fail("written"))
    write_text(tmp_path / "page", "ü")


@pytest.mark.parametrize("content", [b"\xff{}", b"{", b"[" * 100_000, b""])
def test_what_is_no_json_is_one_kind_of_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(json.JSONDecodeError):
        read_json(tmp_path / "x.json")


@pytest.mark.parametrize("read", [read_json, sha256])
def test_pipes_and_devices_are_not_read(tmp_path: Path, read) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(OSError, match="found a pipe or a device"):
            read(path)


class TestRequireSame:
    def test_every_difference_is_named(self):
        there = {"seed": 1, "solver": {"method": "euler", "steps": 2}, "old": None, "sizes": [1, 2]}
        here = {"seed": 1, "solver": {"method": "heun", "steps": 2}, "sizes": (1, 2), "new": True}
        with pytest.raises(DataError) as caught:
            require_same(there, here, "x holds others", "choose another", DataError)
        assert str(caught.value).splitlines() == [
            "x holds others:",
            "  new: there nothing, now True",
            "  old: there None, now nothing",
            "  solver.method: there 'euler', now 'heun'",
            "choose another",
        ]

    def test_equal_settings_pass_and_others_do_not(self):
        require_same({"a": {"b": [1]}}, {"a": {"b": (1,)}}, "x", "y", DataError)
        with pytest.raises(DataError, match="x"):
            require_same({"a": {"b": [1]}}, {"a": {"b": (2,)}}, "x", "y", DataError)


def test_what_is_finished_stays_where_nothing_can_be_written(tmp_path, capsys):
    (tmp_path / "summary.json").write_text("{}")
    with keeping(tmp_path / "summary.json"):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), "summary.json")
    assert "summary.json is left as it was: Read-only file system" in capsys.readouterr().err
    with pytest.raises(OSError, match="Read-only"), keeping(tmp_path / "none.json"):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), "none.json")
    with pytest.raises(OSError, match="No space"), keeping(tmp_path / "summary.json"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "summary.json")
