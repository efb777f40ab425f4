"""How far a training run is: a bar with the time left on a terminal, a line every tenth of the way elsewhere."""

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

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
                TextColumn("train"), BarColumn(), *columns, TimeRemainingColumn(), console=self._console
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

    def _left(self, step: int) -> str:
        per_step = (time.monotonic() - self._began) / max(1, step - self.start)
        seconds = round(per_step * (self.total - step))
        return f"{seconds // 60}:{seconds % 60:02d}"

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
