"""Warm starts: fewer evaluations, and a chunk that goes on where the running one was."""

import numpy as np
import pytest
import torch

from lfm_policy.errors import ConfigError
from lfm_policy.policy.warm import WarmStart
from lfm_policy.protocols import WarmChunkPolicy
from tests.flow.gaussian import Gaussian, exact_chain
from tests.policy.test_policy import _histories, _noise, _policy


class _Unconditional(torch.nn.Module):
    def __init__(self, block: torch.nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x, t, cond):
        return self.block(x.flatten(1), t, None).view_as(x)


@pytest.fixture
def gaussian():
    """A policy whose chunks are N(1.5, 0.4²) in each number, through three exact blocks."""
    from lfm_policy.flow import FlowChain, Schedule, Solver

    policy, law = _policy(), Gaussian(1.5, 0.4)
    schedule = Schedule((0.15, 0.2))
    exact = exact_chain(law, schedule, Solver("rk4", 10))
    policy.chain = FlowChain([_Unconditional(block) for block in exact.blocks], schedule, solver=Solver("rk4", 10))
    policy.action_normalizer.scale.fill_(1.0)
    policy.action_normalizer.offset.zero_()
    return policy, law


class TestLaw:
    def test_what_is_resumed_from_data_has_the_law_of_data(self, gaussian):
        """OU carries data to p_n, and the blocks carry p_n back: exact for any n."""
        policy, _ = gaussian
        for blocks in (1, 2):
            warm = WarmStart(policy, blocks)
            running = (1.5 + 0.4 * np.random.default_rng(3).normal(size=(200, 16, 10))).astype(np.float32)
            found = warm.resume(_histories(200), _noise(200), running).actions
            assert found.mean() == pytest.approx(1.5, abs=0.01)
            assert found.std() == pytest.approx(0.4, abs=0.01)

    def test_fewer_blocks_hold_more_tightly_to_the_running_chunk(self, gaussian):
        policy, _ = gaussian
        running = (1.5 + 0.4 * _noise(50)).astype(np.float32)
        noise = np.random.default_rng(5).normal(size=running.shape).astype(np.float32)
        gaps = [np.abs(WarmStart(policy, n).resume(_histories(50), noise, running).actions - running) for n in (1, 2)]
        cold = np.abs(policy.predict(_histories(50), noise).actions - running)
        assert gaps[0].mean() < gaps[1].mean() < cold.mean()


def test_costs_its_blocks_only():
    policy = _policy()
    warm = WarmStart(policy, 1)
    assert isinstance(warm, WarmChunkPolicy)
    assert not isinstance(policy, WarmChunkPolicy)
    assert warm.resume(_histories(1), _noise(1), _noise(1)).nfe == 1
    assert warm.predict(_histories(1), _noise(1)).nfe == 3
    assert WarmStart(policy).blocks == 1, "half of three"
    assert warm.digest() != policy.digest()


def test_the_default_start_is_where_the_policy_is():
    policy = _policy()
    np.testing.assert_array_equal(
        WarmStart(policy, 2).predict(_histories(1), _noise(1)).actions,
        policy.predict(_histories(1), _noise(1)).actions,
    )


@pytest.mark.parametrize("blocks", [0, 3])
def test_refuses_places_that_the_chain_does_not_have(blocks):
    with pytest.raises(ConfigError, match="1 to 2 of this policy's 3 blocks"):
        WarmStart(_policy(), blocks)
