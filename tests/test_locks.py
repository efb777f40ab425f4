"""One owner for each output folder, until its process ends, however it ends."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lfm_policy.errors import BusyError
from lfm_policy.locks import owned

OWNER = """
import sys, time
from lfm_policy.locks import owned
with owned(sys.argv[1]):
    print("mine", flush=True)
    sys.stdin.read()
"""


def _owner(folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", OWNER, str(folder)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "mine\n"
    return process


@pytest.mark.parametrize("name", ["run", "x" * 250, "{y}[1]*"])
def test_a_second_process_is_refused_until_the_first_is_gone(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "deep" / name
    with _owner(folder) as process:
        os.symlink(folder, tmp_path / "link")
        for way in (folder, tmp_path / "link"):
            with (
                pytest.raises(BusyError, match=rf"is in use: `-c .*` \(process {process.pid} on .*, since 20\d\d-"),
                owned(way),
            ):
                pass
        process.kill()
        assert process.wait() == -signal.SIGKILL
    with owned(folder), owned(folder):  # one process, twice
        pass
    assert list(folder.parent.iterdir()) == []


def test_neighbours_do_not_disturb_each_other(tmp_path: Path) -> None:
    with _owner(tmp_path / "a") as process:
        with owned(tmp_path / "b"), owned(tmp_path / "a" / "inside"):
            pass
        process.communicate("")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_beside_which_nothing_can_be_written_locks_itself(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    tmp_path.chmod(0o500)
    try:
        with _owner(tmp_path / "run") as process:
            with pytest.raises(BusyError, match="another command"), owned(tmp_path / "run"):
                pass
            process.communicate("")
        with owned(tmp_path / "run"):
            pass
        with pytest.raises(PermissionError), owned(tmp_path / "new"):
            pass
    finally:
        tmp_path.chmod(0o700)
