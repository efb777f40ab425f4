"""How far a training run is: a bar with the time left on a terminal, a line every tenth of the way elsewhere."""

import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

QUIET_S = 5.0
"""Where there is no terminal, a phase between updates says nothing for this long [s]."""
LINES = 10
"""Lines of a whole run where there is no terminal."""


class TrainingProgress:
    """Shows step, loss, speed and time left.

    Args:
        total: updates of the whole run.
        start: updates that were done before.
        console: where to write; stdout by default.
    """

    def __init__(self, total: int, start: int = 0, console: Console | None = None) -> None:
        self.total, self.start = total, start
        self._console = console or Console()
        self._bar = None
        self._tenth = start * LINES // max(1, total)
        self._began = time.monotonic()
        if self._console.is_terminal:
            columns = (MofNCompleteColumn(), TextColumn("{task.fields[state]}"), TextColumn("left"))
            self._bar = Progress(
                TextColumn("{task.description}"), BarColumn(), *columns, TimeRemainingColumn(), console=self._console
            )
            self._task = self._bar.add_task("train", total=total, completed=start, state="")

    def update(self, step: int, loss: float, samples_per_s: float) -> None:
        """Say that `step` updates are done, at this loss and speed."""
        state = f"loss {loss:.4f}  {samples_per_s:,.0f} samples/s"
        if self._bar is not None:
            self._bar.update(self._task, completed=step, state=state)
            return
        tenth = step * LINES // max(1, self.total)
        if tenth > self._tenth:
            self._tenth = tenth
            self._console.print(f"step {step}/{self.total}  {state}  {self._left(step)} left", highlight=False)

    def track(self, parts: Sequence[Any], doing: str) -> Iterator[Any]:
        """Yield the parts of a phase between updates, and say how far it is."""
        began = told = time.monotonic()
        task = None if self._bar is None else self._bar.add_task(doing, total=len(parts), state="")
        for done, part in enumerate(parts, 1):
            yield part
            if self._bar is not None and task is not None:
                self._bar.update(task, completed=done)
            elif time.monotonic() - told > QUIET_S:
                told = time.monotonic()
                left = _clock((told - began) / done * (len(parts) - done))
                self._console.print(f"{doing} {done}/{len(parts)}  {left} left", highlight=False)
        if self._bar is not None and task is not None:
            self._bar.remove_task(task)

    def _left(self, step: int) -> str:
        per_step = (time.monotonic() - self._began) / max(1, step - self.start)
        return _clock(per_step * (self.total - step))

    def __enter__(self) -> "TrainingProgress":
        self._began = time.monotonic()
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()


def _clock(seconds: float) -> str:
    return f"{round(seconds) // 60}:{round(seconds) % 60:02d}"
