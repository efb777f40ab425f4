"""What a run says while it trains: progress on the terminal, metrics in its folder."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console

from lfm_policy.training.log import LogSettings, RunLog
from lfm_policy.training.loop import StepReport, Trainer
from lfm_policy.training.progress import TrainingProgress

Listener = Callable[[StepReport], None]
"""Hears of every update."""


class Reporter:
    """Progress and metrics of one run.

    Args:
        out: the run's folder.
        name: of the run, for logs.
        logging: where metrics go.
        config: all settings as plain values, for logs.
        samples: in one update.
        quiet: write metrics only.
        listener: hears of every update after its metrics are written.
    """

    def __init__(
        self,
        out: Path,
        name: str,
        logging: LogSettings,
        config: Mapping[str, Any],
        *,
        samples: int,
        quiet: bool = False,
        listener: Listener | None = None,
    ) -> None:
        self.out, self.name, self.logging, self.config, self.samples = out, name, logging, config, samples
        self._console, self._listener = Console(quiet=quiet), listener

    def begin(self, trainer: Trainer, resumed: bool) -> None:
        """Open log and progress where the run stands; a finished one has nothing to log."""
        if resumed and trainer.done < trainer.total:
            self._console.print(f"continuing {self.out} at step {trainer.done} of {trainer.total}", highlight=False)
        self._log = None
        if trainer.done < trainer.total:
            self._log = RunLog(self.out, self.config, self.logging, trainer.done, self.name)
        self._progress = TrainingProgress(trainer.total, trainer.done, self._console)

    def __call__(self, report: StepReport) -> None:
        """See `Trainer.on_step`."""
        samples_per_s = self.samples / report.seconds
        loss = sum(report.losses.values()) / len(report.losses)
        self._progress.update(report.step, loss, samples_per_s)
        assert self._log is not None
        if report.step % self.logging.every == 0 or report.step == report.total:
            values = {"loss": loss, "phase": report.phase, "learning_rate": report.learning_rate}
            values |= {f"loss/block{n}": value for n, value in report.losses.items()}
            self._log.log(report.step, values | {"samples_per_s": samples_per_s, "seconds": report.seconds})
        if self._listener is not None:
            self._listener(report)

    def track(self, parts: Sequence[Any]) -> Iterator[Any]:
        """Yield batches that are pushed forward between blocks; see `flow.fit`."""
        return self._progress.track(parts, "pushing samples forward")

    def __enter__(self) -> "Reporter":
        self._progress.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.__exit__(kind, error, trace)
        if self._log is not None:
            self._log.__exit__(kind, error, trace)
