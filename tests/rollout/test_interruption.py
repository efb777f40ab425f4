"""An evaluation that is interrupted, politely or not, leaves no process behind and continues where it was."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lfm_envs.point_mass import PointMass
from lfm_policy.rollout.episode_log import read_episodes
from lfm_policy.rollout.runner import RunnerOptions
from tests.rollout.scripted import Straight, evaluate

SEEDS = range(100, 200)
"""More than a slow environment gets done while a busy machine brings the signal."""
IDENTITY = {"environment": "point_mass"}


def start(out: Path, environment: str) -> subprocess.Popen:
    """The evaluation in a process group of its own, as a shell starts it."""
    code = (
        "import functools, pathlib, signal\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # ignored where the tests run in the background
        "from tests.rollout.scripted import Breaking, Slow, Straight, evaluate\n"
        f"evaluate(Straight(), {environment}, {SEEDS!r}, pathlib.Path({str(out)!r}), {IDENTITY!r})\n"
    )
    surroundings = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen(
        [sys.executable, "-c", code],
        start_new_session=True,
        env=surroundings,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(condition, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


def members(group: int) -> list[str]:
    """Running processes of a process group (zombies aside), from /proc."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, pgrp = stat.read_text().rpartition(")")[2].split()[:3]
            if int(pgrp) == group and state != "Z":
                found.append((stat.parent / "cmdline").read_text().replace("\0", " "))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
class TestInterruption:
    def test_ctrl_c_leaves_nothing_and_the_rest_is_run_later(self, tmp_path):
        process = start(tmp_path, "Slow")
        episodes = tmp_path / "episodes.jsonl"
        assert wait_for(lambda: episodes.exists() and len(read_episodes(episodes)) >= 2, 30)
        os.killpg(process.pid, signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
        assert process.returncode != 0
        assert stderr.count("KeyboardInterrupt") == 1, f"only the parent should speak:\n{stderr}"
        assert wait_for(lambda: not members(process.pid), 3), members(process.pid)
        before = read_episodes(episodes)
        assert 2 <= len(before) < len(SEEDS)
        evaluate(Straight(), PointMass, SEEDS, tmp_path, IDENTITY, options=RunnerOptions(workers=3))
        assert read_episodes(episodes)[: len(before)] == before
        assert {result.seed for result in read_episodes(episodes)} == set(SEEDS)

    def test_workers_leave_with_a_parent_that_is_killed_even_from_a_hanging_step(self, tmp_path):
        marker = tmp_path / "hanging"
        process = start(tmp_path / "out", f"functools.partial(Breaking, 'hang', 100, {str(marker)!r})")
        assert wait_for(marker.exists, 30)
        assert len(members(process.pid)) >= 3
        process.kill()
        process.communicate()
        assert wait_for(lambda: not members(process.pid), 5), members(process.pid)
