"""What scripts that train have in common: where they run, what they show, how they end."""

from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from lfm_policy.processes import usable_cores
from lfm_policy.training.distillation.students import DistillSettings
from lfm_policy.training.experiments.settings import TrainSettings
from lfm_policy.training.log import RunLog
from lfm_policy.training.loop import StepReport, Trainer
from lfm_policy.training.progress import TrainingProgress


class Reporter:
    """Progress, metrics and the closing table of one run; `quiet` ones only write."""

    def __init__(self, settings: TrainSettings | DistillSettings, quiet: bool = False) -> None:
        self.settings, self.out = settings, Path(settings.out)
        self.console = Console(quiet=quiet)

    def begin(self, trainer: Trainer, resumed: bool) -> None:
        """Open log and progress where the run stands."""
        if resumed and trainer.done < trainer.total:
            self.console.print(f"continuing {self.out} at step {trainer.done} of {trainer.total}", highlight=False)
        config, logging = self.settings.model_dump(mode="json"), self.settings.logging
        self._log = RunLog(self.out, config, logging, trainer.done, self.settings.name)
        self._progress = TrainingProgress(trainer.total, trainer.done, self.console)

    def __call__(self, report: StepReport) -> None:
        """`Trainer.on_step`."""
        samples_per_s = self.settings.batch * self.settings.optimiser.accumulate / report.seconds
        loss = sum(report.losses.values()) / len(report.losses)
        self._progress.update(report.step, loss, samples_per_s)
        if report.step % self.settings.logging.every == 0 or report.step == report.total:
            values = {"loss": loss, "phase": report.phase, "learning_rate": report.learning_rate}
            values |= {f"loss/block{n}": value for n, value in report.losses.items()}
            self._log.log(report.step, values | {"samples_per_s": samples_per_s, "seconds": report.seconds})

    def __enter__(self) -> "Reporter":
        self._progress.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.__exit__(*error)  # type: ignore[arg-type]
        self._log.__exit__(*error)  # type: ignore[arg-type]


def show(console: Console, values: dict[str, Any], title: str = "training") -> None:
    """Print a summary as a table."""
    table = Table("", "value", title=title)
    for key, value in values.items():
        losses = isinstance(value, dict) and all(isinstance(v, float) for v in value.values())
        text = "  ".join(f"{v:.4f}" for v in value.values()) if losses else str(value)
        text = text if len(text) < 2000 else f"{text[:200]} … (all of it in summary.json)"
        table.add_row(key, f"{value:,.4g}" if isinstance(value, float) else text)
    console.print(table)


def parallel_blocks(wanted: int | None, device: torch.device) -> int:
    """Blocks whose gradients are computed side by side."""
    return wanted or (1 if device.type == "cuda" else usable_cores())
