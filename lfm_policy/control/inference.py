"""Chunks beside the control loop: a policy, here or behind a server, is asked in a thread of its own."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import Field

from lfm_policy.chunks.timeline import complete
from lfm_policy.errors import ServingError
from lfm_policy.protocols import ChunkBatch, ChunkPolicy, WarmChunkPolicy
from lfm_policy.settings import Frozen


class Delay(Frozen):
    """Added to every exchange, to try a slow network without one."""

    latency_ms: float = Field(default=0.0, ge=0)
    packet_loss: float = Field(default=0.0, ge=0, lt=1)
    """Probability that an answer never comes."""
    seed: int = 0


@dataclass(frozen=True)
class Request:
    """A chunk that is wanted."""

    step: int
    """Step of the latest observation in the history."""
    history: np.ndarray
    """float32 (To, observation_dim)."""
    noise: np.ndarray
    """float32 of the policy's noise_shape."""
    running: np.ndarray | None = None
    """The chunk to continue, (T, action_dim)."""
    remainder: np.ndarray | None = None
    """What the running chunk still promises, (m, action_dim), for a monitor."""
    frames: np.ndarray | None = None
    """uint8 (cameras, height, width, 3) at the latest observation, for a policy with cameras."""


@dataclass(frozen=True)
class Answer:
    """What became of a request."""

    request: Request
    chunk: np.ndarray | None
    """(T, action_dim); None: it was lost, and `reason` says how."""
    nfe: int
    seconds: float
    """From the request to the answer, the added delay included [s]."""
    reason: str = ""
    score: float | None = None
    """How unusual the promised actions are under the new observation."""


Judge = Callable[..., float]
"""(history, chunk), and frames of a policy with cameras -> how unusual the chunk is; see chunks/monitor.py."""
Submit = Callable[[Callable[[], Answer]], "Future[Answer]"]


class Inference:
    """One exchange at a time. Use it as a context manager.

    Args:
        policy: called from one thread only, never from two at once.
        delay: added latency and loss.
        submit: runs a call and returns its future; a thread of its own if None.
        judge: scores every chunk that follows another; its time is part of the answer's.
    """

    def __init__(
        self,
        policy: ChunkPolicy,
        delay: Delay | None = None,
        submit: Submit | None = None,
        judge: Judge | None = None,
    ) -> None:
        self._policy, self._delay, self._judge = policy, delay or Delay(), judge
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="lfm-inference")
        self._submit: Submit = submit or self._thread.submit
        self._random = np.random.default_rng(self._delay.seed)
        self._pending: Future[Answer] | None = None

    def __enter__(self) -> "Inference":
        return self

    def __exit__(self, *error: Any) -> None:
        self._thread.shutdown(cancel_futures=True)

    @property
    def busy(self) -> bool:
        """Whether an answer is still to be taken."""
        return self._pending is not None

    def ask(self, request: Request) -> None:
        """Start an exchange; the last one's answer must have been taken."""
        assert self._pending is None
        lost = self._random.random() < self._delay.packet_loss
        self._pending = self._submit(lambda: self._exchange(request, lost))

    def poll(self) -> Answer | None:
        """Take the answer, if it has come."""
        return self.take() if self._pending is not None and self._pending.done() else None

    def take(self) -> Answer:
        """Wait for the answer.

        Raises:
            Exception: whatever the policy raised, except that a server which cannot be reached is a lost answer.
        """
        assert self._pending is not None
        pending, self._pending = self._pending, None
        return pending.result()

    def drop(self) -> None:
        """Forget the exchange under way: its episode is over."""
        if self._pending is not None:
            self.take()

    def _exchange(self, request: Request, lost: bool) -> Answer:
        started = time.monotonic()
        try:
            batch = self._predict(request)
        except ServingError as error:
            return Answer(request, None, 0, time.monotonic() - started, str(error))
        time.sleep(self._delay.latency_ms / 1000)
        if lost:
            return Answer(request, None, 0, time.monotonic() - started, "lost on the way (simulated)")
        chunk, score = batch.actions[0], None
        if self._judge is not None and request.remainder is not None and np.isfinite(chunk).all():
            score = self._judge(request.history, complete(request.remainder, chunk), *_frames(request))
        return Answer(request, chunk, batch.nfe, time.monotonic() - started, score=score)

    def _predict(self, request: Request) -> ChunkBatch:
        frames = [rows[None] for rows in _frames(request)]
        if request.running is None:
            return self._policy.predict(request.history[None], request.noise[None], *frames)
        assert isinstance(self._policy, WarmChunkPolicy)
        return self._policy.resume(request.history[None], request.noise[None], request.running[None], *frames)


def _frames(request: Request) -> tuple[np.ndarray, ...]:
    return () if request.frames is None else (request.frames,)
