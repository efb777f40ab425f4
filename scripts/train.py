"""Train a chain, for example a policy: `python scripts/train.py experiment=robot/lift size=small data.path=DIR.zarr`.

The same command continues an interrupted run, bit for bit from its last checkpoint.
"""

import os
from pathlib import Path
from typing import Any

import _cli
import torch
from rich.console import Console
from rich.table import Table

from lfm_policy.errors import ConfigError
from lfm_policy.files import write_json
from lfm_policy.flow import fit, plan
from lfm_policy.training.checkpoint import Checkpointer
from lfm_policy.training.density import density_experiment
from lfm_policy.training.experiment import Experiment, evaluation_loss
from lfm_policy.training.log import RunLog
from lfm_policy.training.loop import StepReport, Trainer
from lfm_policy.training.progress import TrainingProgress
from lfm_policy.training.robot import robot_experiment
from lfm_policy.training.settings import DensityData, TrainSettings, WindowData


def main(settings: TrainSettings) -> None:
    """Train, then write summary.json beside the checkpoint."""
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    device = _device(settings.device)
    out = Path(settings.out)
    experiment = new_experiment(settings, device)
    chain, pool = experiment.model.chain, experiment.pool
    phases = plan(settings.flow.mode, len(chain.blocks), settings.updates(len(pool)), settings.flow.refine)

    fingerprint = settings.fingerprint() | {"source": dict(experiment.source)}
    save = Checkpointer(out / "checkpoint", experiment.model, fingerprint, settings.checkpoint_seconds)
    reporter = Reporter(settings)
    trainer = Trainer(
        chain, phases, settings.optimiser, settings.seed, reporter, save, _parallel(settings.parallel, device)
    )
    resumed = save.resume(trainer)
    reporter.begin(trainer, resumed)
    with reporter:
        time_law = settings.flow.time_law
        fit(chain, trainer.ema.chain, pool, phases, trainer.optimise, batch=settings.batch, time_law=time_law)
    values = summary(settings, experiment, trainer)
    write_json(out / "summary.json", values)
    show(reporter.console, values)


def new_experiment(settings: TrainSettings, device: torch.device) -> Experiment[Any]:
    """The objects in which the runs differ, from the kind of their data."""
    match settings.data:
        case WindowData() as data:
            return robot_experiment(settings, data, device)
        case DensityData() as data:
            return density_experiment(settings, data, device)


class Reporter:
    """Progress, metrics and the closing table of one run."""

    def __init__(self, settings: TrainSettings) -> None:
        self.settings, self.out = settings, Path(settings.out)
        self.console = Console()

    def begin(self, trainer: Trainer, resumed: bool) -> None:
        """Open log and progress where the run stands."""
        if resumed and trainer.done < trainer.total:
            self.console.print(f"continuing {self.out} at step {trainer.done} of {trainer.total}", highlight=False)
        config, logging = self.settings.model_dump(mode="json"), self.settings.logging
        self._log = RunLog(self.out, config, logging, trainer.done, self.settings.name)
        self._progress = TrainingProgress(trainer.total, trainer.done)

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


def summary(settings: TrainSettings, experiment: Experiment[Any], trainer: Trainer) -> dict[str, Any]:
    """What was trained, from which data, at what cost; losses on fixed noise, and the experiment's own report."""
    trained, samples = experiment.load(Path(settings.out)), len(experiment.pool)
    batch = settings.batch * settings.optimiser.accumulate
    return {
        "name": settings.name,
        "method": settings.method,
        "mode": settings.flow.mode,
        "seed": settings.seed,
        "blocks": len(trained.chain.blocks),
        "parameters": sum(p.numel() for p in trained.chain.parameters()),
        "samples": samples,
        "updates": settings.updates(samples),
        "batch": batch,
        "epochs": settings.updates(samples) * batch / samples,
        "seconds": trainer.seconds,
        "device": str(next(trained.chain.parameters()).device),
        "threads": torch.get_num_threads(),
        "loss": evaluation_loss(trained.chain, experiment.pool),
        "digest": trained.digest(),
        **experiment.report(trained),
    }


def show(console: Console, values: dict[str, Any]) -> None:
    """Print the summary as a table."""
    table = Table("", "value", title="training")
    for key, value in values.items():
        losses = isinstance(value, dict) and all(isinstance(v, float) for v in value.values())
        text = "  ".join(f"{v:.4f}" for v in value.values()) if losses else str(value)
        table.add_row(key, f"{value:,.4g}" if isinstance(value, float) else text)
    console.print(table)


def _parallel(wanted: int | None, device: torch.device) -> int:
    return wanted or (1 if device.type == "cuda" else os.cpu_count() or 1)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.zeros(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device '{name}' cannot be used here: {error}") from None


if __name__ == "__main__":
    _cli.run("train", TrainSettings, main, __doc__)
