"""A schedule chosen from the data: a short pilot on equal angles, then as much error times angle in every block."""

import os
from collections.abc import Callable
from typing import Any

import torch

from lfm_policy.errors import CheckpointError, ConfigError
from lfm_policy.files import read_json, require_same, write_json
from lfm_policy.flow import FlowChain, Schedule
from lfm_policy.training.experiments.choose import new_experiment
from lfm_policy.training.experiments.experiment import Experiment, evaluation_loss
from lfm_policy.training.experiments.settings import TrainSettings

Train = Callable[[TrainSettings, Experiment[Any]], object]

PILOT = 0.1
"""Length of the pilot, over that of the run."""
RANGE = 20.0
"""Largest error of a block over the smallest that is believed: a pilot is short."""


def spaced(settings: TrainSettings, train: Train, device: torch.device) -> TrainSettings:
    """Return settings whose OU steps a pilot in out/pilot has chosen; the same ones unless flow.spacing=auto asks.

    A run that is continued keeps the steps in out/spacing.json.

    Args:
        settings: of the run.
        train: carries out a run's phases on its experiment.
        device: of the pilot.

    Raises:
        ConfigError: several processes of torchrun, which would each make a pilot.
        CheckpointError: the folder holds the steps of another run.
    """
    flow, path = settings.flow, settings.out / "spacing.json"
    if flow.spacing != "auto" or flow.gammas is not None:
        return settings
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(
            "flow.spacing=auto makes its pilot in one process: give torchrun the flow.gammas that it finds"
        )
    said = settings.fingerprint()
    asked = {"fingerprint": {key: said[key] for key in said if key not in ("updates", "epochs")}}  # it may grow longer
    if path.exists():
        found = read_json(path)
        there = {"fingerprint": found["fingerprint"]}
        require_same(there, asked, f"{path} is of another run", "choose another out=", CheckpointError)
    else:
        found = asked | _measured(_pilot(settings), train, device)
        write_json(path, found)
    return settings.model_copy(update={"flow": flow.model_copy(update={"gammas": tuple(found["gammas"])})})


def _pilot(settings: TrainSettings) -> TrainSettings:
    gammas = Schedule.cosine(settings.flow.blocks).gammas
    flow = settings.flow.model_copy(update={"gammas": gammas, "mode": "simulation_free"})
    length = {"updates": settings.updates and max(1, round(PILOT * settings.updates))}
    length |= {"epochs": settings.epochs and PILOT * settings.epochs}
    return settings.model_copy(update={"flow": flow, "out": settings.out / "pilot", "snapshots": 0, **length})


def _measured(pilot: TrainSettings, train: Train, device: torch.device) -> dict[str, Any]:
    experiment = new_experiment(pilot, device)
    train(pilot, experiment)
    chain = experiment.load(pilot.out / "checkpoint").chain
    losses = list(evaluation_loss(chain, experiment.pool).values())
    errors = relative(chain, losses)
    chosen = chain.schedule.equalised([max(error, max(errors) / RANGE) for error in errors])
    return {"pilot": list(chain.schedule.gammas), "losses": losses, "errors": errors, "gammas": list(chosen.gammas)}


def relative(chain: FlowChain, losses: list[float]) -> list[float]:
    """Return each block's mean squared velocity error over the mean square of what a preconditioned network gives."""
    t = (torch.arange(100) + 0.5) / 100
    scales = [chain.preconditioning(n, t)[2].square().mean().item() for n in range(len(losses))]
    return [loss / scale for loss, scale in zip(losses, scales, strict=True)]
