"""Directories are replaced whole, also when the process is killed at the worst moment."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lfm_policy.files import atomic_directory, recover

KILLED = """
import os, signal, sys
from pathlib import Path
from lfm_policy.files import atomic_directory

path, renames = Path(sys.argv[1]), int(sys.argv[2])
replace = os.replace

def replace_or_die(*ends):
    global renames
    if renames == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    renames -= 1
    replace(*ends)

os.replace = replace_or_die
with atomic_directory(path) as temporary:
    (temporary / "content").write_text("new")
"""


def _write(path: Path, text: str) -> None:
    with atomic_directory(path) as temporary:
        (temporary / "content").write_text(text)


@pytest.mark.parametrize("renames", [0, 1])
def test_a_kill_between_any_two_renames_loses_nothing(tmp_path: Path, renames: int) -> None:
    path = tmp_path / "checkpoint"
    _write(path, "old")
    killed = subprocess.run([sys.executable, "-c", KILLED, str(path), str(renames)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 2
    recover(path)
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint"]
    assert (path / "content").read_text() == "old"


def test_the_next_write_clears_up_and_leaves_other_names_alone(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    subprocess.run([sys.executable, "-c", KILLED, str(path), "0"], check=False)
    (tmp_path / ".checkpoint.notes").write_text("mine")
    _write(path, "newer")
    assert sorted(file.name for file in tmp_path.iterdir()) == [".checkpoint.notes", "checkpoint"]
    assert (path / "content").read_text() == "newer"


def test_a_failed_write_leaves_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    _write(path, "old")
    with pytest.raises(TypeError):
        _write(path, None)  # type: ignore[arg-type]
    assert (path / "content").read_text() == "old"
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
