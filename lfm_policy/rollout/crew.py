"""Workers that stay: they start once, early if told to, and play for one runner after the other."""

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from lfm_policy.rollout.workers import Factory, Worker


class Crew:
    """Worker processes with environments of one kind, for runners of one policy. A context manager that ends them.

    Args:
        factory: makes an environment, in each worker; picklable.
        timeout_s: longest silence of a worker that steps [s].
        start_timeout_s: longest start of a worker [s].
    """

    def __init__(self, factory: Factory, timeout_s: float | None = 60.0, start_timeout_s: float | None = 300.0) -> None:
        self._factory, self._times = factory, (timeout_s, start_timeout_s)
        self._members: list[Worker] = []
        self._stack = ExitStack()
        self._logs: Path | None = None

    def __enter__(self) -> "Crew":
        self._logs = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="lfm-workers-")))
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: Any) -> None:
        with self._stack:
            try:
                for worker in self._members if kind is None else ():
                    worker.close()
            finally:
                self.dismiss()

    def members(self, count: int) -> list[Worker]:
        """Return the first `count` workers; those that are not there yet begin to start, and this does not wait."""
        assert self._logs is not None, "a crew is a context manager"
        while len(self._members) < count:
            log = self._logs / f"worker-{len(self._members)}.log"
            self._members.append(Worker(self._factory, log, *self._times))
        return self._members[:count]

    def dismiss(self) -> None:
        """End all workers at once, whatever they do; others start when they are needed."""
        for worker in self._members:
            worker.stop()
        self._members.clear()
