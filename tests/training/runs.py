"""Small training runs on the point mass, through the real command."""

from pathlib import Path
from typing import Any

import numpy as np

from lfm_cli import train
from lfm_cli.command_line import load
from lfm_envs.point_mass import CONTRACT, demonstrations
from lfm_policy.contract import Contract
from lfm_policy.data.windows.store import Episode, write_store
from lfm_policy.training.experiments.run import run
from lfm_policy.training.experiments.settings import TrainSettings
from lfm_policy.training.loop import StepReport

TINY = [
    "experiment=robot/lift",
    "size=tiny",
    "threads=1",
    "network.dims=[8,16]",
    "network.time_dim=8",
    "global_network.dims=[16,32]",
    "global_network.time_dim=8",
    "batch=16",
    "data.anchored=false",
    "epochs=null",
    "updates=4",
    "optimiser.warmup_steps=4",
    "logging.mode=disabled",
]
"""Overrides that make any robot run fit a test."""


def settings(*overrides: str) -> TrainSettings:
    """Training settings as the command line would give them."""
    return load("train", list(overrides))


class Killed(Exception):
    """Stands for whatever ends a process."""


def run_until(stop: int | None, *overrides: str) -> None:
    """Train; give up after `stop` updates."""

    def listen(report: StepReport) -> None:
        if report.step == stop:
            raise Killed

    if stop is None:
        train.main(settings(*overrides))
    else:
        run(settings(*overrides), listen)


def point_mass_store(path: Path, episodes: int = 12) -> Path:
    """Write demonstrations of the point mass as a prepared data set."""
    rows = [Episode(CONTRACT.flatten(keys), action) for keys, action in demonstrations(episodes, seed=0)]
    write_store(path, rows, CONTRACT, {"train": range(1, episodes), "valid": [0]}, {"kind": "point mass"})
    return path


def random_store(path: Path, contract: Contract, episodes: int = 3, steps: int = 20) -> Path:
    """Write random numbers under `contract`, for runs that only have to run."""
    generator = np.random.default_rng(0)

    def rows(width: int) -> Any:
        return generator.normal(size=(steps, width)).astype(np.float32)

    data = [Episode(rows(contract.observation_dim), rows(contract.action_dim)) for _ in range(episodes)]
    write_store(path, data, contract, {"train": range(1, episodes), "valid": [0]}, {"kind": "random"})
    return path
