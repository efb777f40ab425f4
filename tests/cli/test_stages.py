"""A command that starts others ends them with itself."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

CHILD = """
import os, sys, time
from lfm_policy.processes import end_with_parent
end_with_parent()
print(os.getpid(), flush=True)
try:
    time.sleep(60)
except KeyboardInterrupt:
    sys.exit(130)
"""
PARENT = """
import sys, time
from pathlib import Path
from lfm_cli import stages

command = stages.wait
stages.wait = lambda *ignored: command([sys.executable, "-c", sys.argv[1]])
try:
    stages.run(stages.Stage("collect", {"out": "nowhere"}), Path(sys.argv[2]))
except KeyboardInterrupt:
    sys.exit(130)
"""


def _running(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGKILL, -9)]
)
def test_what_ends_a_command_alone_ends_its_stage(tmp_path: Path, number: signal.Signals, code: int) -> None:
    program = "import signal\nsignal.signal(signal.SIGHUP, signal.SIG_DFL)\n" + PARENT  # else not under nohup
    command = [sys.executable, "-c", program, CHILD, str(tmp_path / "stages.json")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline().startswith("collect: lfm collect")
        child = int(parent.stdout.readline())
        os.kill(parent.pid, number)
        assert parent.wait(20) == code
    deadline = time.monotonic() + 20
    while _running(child) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _running(child)


def test_a_stage_ends_when_its_parent_was_gone_before_it_could_ask() -> None:
    environment = os.environ | {"LFM_PARENT": "1"}
    assert subprocess.run([sys.executable, "-c", CHILD], env=environment, check=False).returncode == 1


def test_a_command_that_ignores_hangups_goes_on_ignoring_them(tmp_path: Path) -> None:
    child = "import signal; print(signal.getsignal(signal.SIGHUP) == signal.SIG_IGN)"
    program = "import signal, sys\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\n" + PARENT
    command = [sys.executable, "-c", program, child, str(tmp_path / "stages.json")]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.endswith("True\n")
