"""How many cores a process may use: the machine's, those it is bound to, or what its container is given."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lfm_policy.processes import usable_cores


def _shown(tmp_path: Path, membership: str, files: dict[str, str]) -> int:
    """What would be counted in a container that shows these files."""
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "self").write_text(membership)
    return usable_cores(tmp_path, tmp_path / "self")


MANY = {"cpu.max": "6400000 100000\n"}


@pytest.fixture
def bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if this machine had twelve cores."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(12)), raising=False)


@pytest.mark.usefixtures("bound")
@pytest.mark.parametrize(
    ("membership", "files", "cores"),
    [
        ("0::/\n", {}, 12),
        ("0::/\n", {"cpu.max": "max 100000\n"}, 12),
        ("0::/\n", {"cpu.max": "250000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "50000 100000\n"}, 1),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "300000 100000\n", **MANY}, 3),
        ("0::/../elsewhere\n", MANY, 12),
        ("4:cpu,cpuacct:/x\n", {"cpu/x/cpu.cfs_quota_us": "400000\n", "cpu/x/cpu.cfs_period_us": "100000\n"}, 4),
        ("4:cpu,cpuacct:/x\n", {"cpu/x/cpu.cfs_quota_us": "-1\n", "cpu/x/cpu.cfs_period_us": "100000\n"}, 12),
        ("4:memory:/x\n", {"cpu/x/cpu.cfs_quota_us": "100000\n", "cpu/x/cpu.cfs_period_us": "100000\n"}, 12),
    ],
)
def test_the_smallest_limit_counts(tmp_path: Path, membership: str, files: dict[str, str], cores: int) -> None:
    assert _shown(tmp_path, membership, files) == cores


def test_without_control_groups_it_is_what_the_process_is_bound_to(tmp_path: Path) -> None:
    assert usable_cores(tmp_path, tmp_path / "missing") == len(os.sched_getaffinity(0))


def test_what_is_closed_is_no_file_that_is_opened_later(tmp_path: Path) -> None:
    code = (
        "import os, sys; from lfm_policy.processes import fill_standard_streams; fill_standard_streams();"
        f"out = open({str(tmp_path / 'file')!r}, 'w'); os.write(2, b'a library complains'); sys.exit(out.fileno() < 3)"
    )
    assert subprocess.run(["sh", "-c", '"$0" -c "$1" <&- 2>&-', sys.executable, code], check=False).returncode == 0
    assert (tmp_path / "file").read_text() == ""


def test_a_parent_that_is_no_number() -> None:
    command = [sys.executable, "-m", "lfm_cli", "--help"]
    result = subprocess.run(command, env=os.environ | {"LFM_PARENT": "me"}, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "expected the number of a process in the environment variable LFM_PARENT, found 'me'" in result.stderr
