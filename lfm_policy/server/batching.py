"""Inference off the event loop: one thread runs the policy; what waits while it is busy goes together in its next call.

An idle server answers at once, with a batch of one; batches grow only as clients compete.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from lfm_policy.errors import ServingError
from lfm_policy.protocols import ChunkBatch, ChunkPolicy


@dataclass(frozen=True)
class Prediction:
    """A job's part of a policy call."""

    chunks: np.ndarray
    """(n, T, action_dim)."""
    nfe: int
    queue_s: float
    """Time between submission and the start of the call [s]."""
    infer_s: float
    """Time the call took [s]."""
    batch: int
    """Rows in the call, other clients' included."""


@dataclass(eq=False)
class _Job:
    histories: np.ndarray
    noise: np.ndarray
    frames: np.ndarray | None
    alone: bool
    result: "asyncio.Future[Prediction]"
    submitted: float = field(default_factory=time.monotonic)


class Batcher:
    """Runs a policy for many clients. Use it as an async context manager, in one event loop.

    Args:
        policy: called from one thread, never from two at once.
        max_batch: rows in one call, unless one job alone has more.
        failed: told of every job that the policy fails at.
    """

    def __init__(self, policy: ChunkPolicy, max_batch: int, failed: Callable[[str, Exception], None]) -> None:
        self._policy, self._max_batch, self._failed = policy, max_batch, failed
        self._waiting: deque[_Job] = deque()
        self._running: list[_Job] = []
        self._arrived = asyncio.Event()

    async def __aenter__(self) -> "Batcher":
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="lfm-inference")
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *error: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        for job in [*self._running, *self._waiting]:
            if not job.result.done():
                job.result.set_exception(ServingError("the server stops"))
        await asyncio.to_thread(self._thread.shutdown)

    async def predict(
        self, histories: np.ndarray, noise: np.ndarray, frames: np.ndarray | None = None, alone: bool = False
    ) -> Prediction:
        """Predict a chunk for each of the histories (n, To, D), all in one call.

        Args:
            histories: float32, raw units.
            noise: float32 (n, *noise_shape).
            frames: uint8 (n, cameras, height, width, 3), for a policy with cameras.
            alone: share the call with nobody, so that its bits depend on nobody.

        Raises:
            ServingError: the policy raised; other jobs of the same call are not affected.
        """
        job = _Job(histories, noise, frames, alone, asyncio.get_running_loop().create_future())
        self._waiting.append(job)
        self._arrived.set()
        return await job.result

    async def _run(self) -> None:
        while True:
            await self._arrived.wait()
            self._running = self._take()
            if self._running:
                await self._call(self._running)

    def _take(self) -> list[_Job]:
        """Take the next call's jobs, in order of arrival; those whose client is gone are dropped."""
        jobs: list[_Job] = []
        rows = 0
        while self._waiting:
            job = self._waiting[0]
            fits = not jobs or (not job.alone and rows + len(job.histories) <= self._max_batch)
            if not job.result.done():
                if not fits:
                    break
                jobs.append(job)
                rows += len(job.histories)
            self._waiting.popleft()
            if jobs and jobs[0].alone:
                break
        if not self._waiting:
            self._arrived.clear()
        return jobs

    async def _call(self, jobs: list[_Job]) -> None:
        histories, noise = (np.concatenate([getattr(job, name) for job in jobs]) for name in ("histories", "noise"))
        call = partial(self._policy.predict, histories, noise)
        if frames := [job.frames for job in jobs if job.frames is not None]:
            call = partial(call, np.concatenate(frames))
        started = time.monotonic()
        try:
            batch = await asyncio.get_running_loop().run_in_executor(self._thread, call)
        except Exception as error:
            if len(jobs) > 1:  # whoever is at fault fails alone
                for job in jobs:
                    await self._call([job])
            elif not jobs[0].result.done():
                self._failed("the policy failed", error)
                jobs[0].result.set_exception(ServingError(f"the policy failed: {type(error).__name__}: {error}"))
            return
        self._deliver(jobs, batch, started)

    def _deliver(self, jobs: list[_Job], batch: ChunkBatch, started: float) -> None:
        infer_s, first = time.monotonic() - started, 0
        for job in jobs:
            rows = slice(first, first := first + len(job.histories))
            if not job.result.done():
                queue_s = started - job.submitted
                job.result.set_result(Prediction(batch.actions[rows], batch.nfe, queue_s, infer_s, len(batch.actions)))
