"""Processes that each keep a simulator: for collecting and drawing, side by side and restartable."""

import multiprocessing
import os
import signal
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any

from lfm_policy import compiling
from lfm_policy.errors import RolloutError
from lfm_policy.processes import end_with, one_thread


@contextmanager
def processes(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Start worker processes of one thread each, afresh: simulators and GL contexts do not survive a fork."""
    with one_thread():  # until the end, as the pool starts its processes when there is work for them
        pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _start_worker, (os.getpid(),))
        try:
            yield pool
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def outcome(future: Future) -> Any:
    """Get what a worker returned.

    Raises:
        RolloutError: a worker died; what was finished before is safe.
    """
    try:
        return future.result()
    except BrokenProcessPool as error:
        raise RolloutError(
            "a worker process died (out of memory?); what it finished is safe: run the same command to continue"
        ) from error


def _start_worker(parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent winds up
    end_with(parent)
    if multiprocessing.current_process().name.endswith("-1"):  # the others do the same at the same time
        compiling.tell(compiling.lines)
