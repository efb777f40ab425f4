"""Guided chunks: where nothing is wanted they are the policy's own, where something is, they go there."""

import numpy as np
import pytest
import torch

from lfm_policy.chunks.guided import guided_chunk
from lfm_policy.flow import FlowChain, Schedule, Solver
from tests.flow.gaussian import Gaussian, exact_chain
from tests.models.test_policy import _histories, _noise, _policy


class _Unconditional(torch.nn.Module):
    def __init__(self, block: torch.nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x, t, cond):
        return self.block(x.flatten(1), t, None).view_as(x)


@pytest.fixture(params=[(), (0.15, 0.2)], ids=["one block", "three blocks"])
def gaussian(request: pytest.FixtureRequest):
    """A policy whose chunks are N(0, 1) in each number, through exact blocks."""
    policy, schedule = _policy(), Schedule(request.param)
    exact = exact_chain(Gaussian(0.0, 1.0), schedule, Solver("euler", 100))
    policy.chain = FlowChain([_Unconditional(b) for b in exact.blocks], schedule, solver=Solver("euler", 100))
    policy.encoding.action_normalizer.scale.fill_(1.0)
    policy.encoding.action_normalizer.offset.zero_()
    return policy


def inputs(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(_histories(count)), torch.from_numpy(_noise(count))


def test_without_weights_chunks_are_the_policys_own(gaussian) -> None:
    history, noise = inputs(5)
    found = guided_chunk(gaussian, history, noise, torch.full_like(noise, 3.0), torch.zeros(16))
    own = gaussian.predict(history.numpy(), noise.numpy()).actions
    np.testing.assert_allclose(found.numpy(), own, atol=1e-5)


def test_what_is_wanted_is_reached_and_the_rest_keeps_its_law(gaussian) -> None:
    history, noise = inputs(200)
    weights = torch.zeros(16)
    weights[:4] = 1.0
    found = guided_chunk(gaussian, history, noise, torch.full_like(noise, 0.7), weights, largest=1e3)
    torch.testing.assert_close(found[:, :4], torch.full_like(found[:, :4], 0.7), atol=0.02, rtol=0)
    assert float(found[:, 4:].mean()) == pytest.approx(0, abs=0.03)
    assert float(found[:, 4:].std()) == pytest.approx(1, abs=0.03)
