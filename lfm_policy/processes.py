"""Processes that start others: how many are worth while, what they inherit, and that they end with who started them."""

import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

PARENT = "LFM_PARENT"
"""Environment variable in which a process is told the number of the one that it shall not outlive."""
_PR_SET_PDEATHSIG = 1
_ONE_THREAD = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL", "NUMEXPR", "VECLIB")}


def usable_cores(groups: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> int:
    """Count the CPU cores that this process may keep busy, at least 1.

    A scheduler or `taskset` may have bound it to some of the machine's cores, and a container may be given the time of
    fewer than it sees: both are less than `os.cpu_count()`.

    Args:
        groups: where Linux shows its control groups, version 1 or 2.
        membership: which of them this process is in.
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([bound, *(int(quota) for quota in _quotas(groups, membership))]))


def _quotas(groups: Path, membership: Path) -> Iterator[float]:
    """List the cores' worth of time that each control group around this process is given, where there is a limit."""
    try:
        lines = membership.read_text(encoding="utf-8").splitlines()
    except OSError:  # no Linux
        return
    for _, controllers, inside in (line.split(":", 2) for line in lines):
        root = groups if not controllers else groups / "cpu"
        here = root / inside.lstrip("/")
        for folder in (here, *here.parents):
            if folder.is_relative_to(root) and not controllers:
                yield from _quota(folder / "cpu.max")
            elif folder.is_relative_to(root) and "cpu" in controllers.split(","):
                yield from _quota(folder / "cpu.cfs_quota_us", folder / "cpu.cfs_period_us")


def _quota(*files: Path) -> Iterator[float]:
    try:
        used, period = " ".join(file.read_text() for file in files).split()
    except (OSError, ValueError):  # a group without limits, or one that is not shown here
        return
    if used not in ("max", "-1"):
        yield int(used) / int(period)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Have children that are started here compute with one thread each."""
    before = {name: os.environ.get(name) for name in _ONE_THREAD}
    os.environ.update(_ONE_THREAD)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


@contextlib.contextmanager
def child_surroundings() -> Iterator[None]:
    """Have a child that is started here inherit one thread, and leave Ctrl-C to the parent, which ends it."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with one_thread():
            yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def end_with(parent: int) -> None:
    """Have this process end, even in the middle of a step, once the one that started it is gone; the child's first act.

    Unlike what `end_with_parent` asks of Linux, it does not end with the thread that started it.
    """
    threading.Thread(target=leave_with, args=(parent,), daemon=True).start()


def fill_standard_streams() -> None:
    """Open the null device where standard input, output or error are closed (`lfm ... 2>&-`). Called first of all.

    The next file that is opened would take their number, and what libraries print would be written into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free


def end_with_parent() -> None:
    """End this process as soon as the one named in PARENT is gone, if it is named there. Called before any work.

    Raises:
        SystemExit: there stands something else.
    """
    parent = os.environ.pop(PARENT, None)
    if parent is None:
        return
    if not parent.isdecimal():
        sys.exit(
            f"error: expected the number of a process in the environment variable {PARENT}, found {parent!r}: unset it"
        )
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    else:
        threading.Thread(target=leave_with, args=(int(parent),), daemon=True).start()
    if os.getppid() != int(parent):  # it was gone before this process could ask
        os._exit(1)


def leave_with(parent: int) -> None:
    """End this process, even in the middle of a step, once its parent is gone."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
