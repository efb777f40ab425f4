"""A schedule that a pilot chooses: kept for the run that goes on, and what the model is trained and stored with."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lfm_policy.errors import CheckpointError, ConfigError
from lfm_policy.flow import FlowChain, Schedule
from lfm_policy.models.density import FlowModel
from lfm_policy.training.experiments.spacing import relative
from tests.training.runs import run_until, settings

SMALL = ["data.samples=300", "data.test=20", "data.valid=20", "network.width=8", "batch=16", "logging.mode=disabled"]
RUN = ["experiment=2d/two_moons", *SMALL, "flow.blocks=3", "flow.solver={method: euler, steps: 1}"]


def test_a_run_is_trained_on_the_steps_of_its_pilot(tmp_path: Path) -> None:
    auto = [*RUN, "flow.spacing=auto", f"out={tmp_path}"]
    run_until(None, *auto, "updates=20")
    found = json.loads((tmp_path / "spacing.json").read_text())
    assert found["pilot"] == pytest.approx(Schedule.cosine(3).gammas)
    assert json.loads((tmp_path / "pilot" / "checkpoint" / "trainer.json").read_text())["updates"] == 2
    assert found["gammas"] == pytest.approx(Schedule.cosine(3).equalised(found["errors"]).gammas)
    assert FlowModel.from_pretrained(tmp_path).spec.chain.gammas == pytest.approx(tuple(found["gammas"]))
    run_until(None, *auto, "updates=20")
    assert json.loads((tmp_path / "spacing.json").read_text()) == found
    with pytest.raises(CheckpointError, match="of another run"):
        run_until(None, *auto, "updates=20", "seed=1")


def test_there_are_no_steps_before_the_pilot() -> None:
    with pytest.raises(ConfigError, match="chooses its OU steps in a training run"):
        _ = settings(*RUN, "flow.spacing=auto", "updates=20", "out=x").chain


class Nothing(nn.Module):
    """Answers 0."""

    def forward(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        return 0 * x


def test_errors_are_counted_in_what_a_preconditioned_network_gives() -> None:
    """For normal data the linear guess is all there is: networks that give its rest, 0, are wrong by nothing; networks
    that are to give the whole velocity are wrong by as much as a block is fast."""
    schedule = Schedule.cosine(3)
    chain = FlowChain([Nothing() for _ in range(3)], schedule, precondition=True)
    torch.manual_seed(0)
    data, noise, t = torch.randn(4000, 2), torch.randn(4000, 2), torch.rand(4000)
    losses = [chain.marginal_loss(n, data, noise, t)().item() for n in range(3)]
    assert relative(chain, losses) == pytest.approx([1.0] * 3, rel=0.1)
