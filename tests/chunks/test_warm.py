"""Warm starts: fewer evaluations, and a chunk that goes on where the running one was."""

import numpy as np
import pytest
import torch

from lfm_policy.actions.motion import seam_jerk
from lfm_policy.chunks.delayed import Link, LinkedHorizon
from lfm_policy.chunks.warm import WarmStart
from lfm_policy.errors import ConfigError
from lfm_policy.flow import FlowChain, Schedule, Solver
from lfm_policy.protocols import WarmChunkPolicy
from tests.flow.gaussian import Gaussian, exact_chain
from tests.models.test_policy import _histories, _noise, _policy


class _Unconditional(torch.nn.Module):
    def __init__(self, block: torch.nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x, t, cond):
        return self.block(x.flatten(1), t, None).view_as(x)


@pytest.fixture
def gaussian():
    """A policy whose chunks are N(1.5, 0.4²) in each number, through three exact blocks."""
    policy, law = _policy(), Gaussian(1.5, 0.4)
    schedule = Schedule((0.15, 0.2))
    exact = exact_chain(law, schedule, Solver("rk4", 10))
    policy.chain = FlowChain([_Unconditional(block) for block in exact.blocks], schedule, solver=Solver("rk4", 10))
    policy.encoding.action_normalizer.scale.fill_(1.0)
    policy.encoding.action_normalizer.offset.zero_()
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


class _Level(torch.nn.Module):
    """Exact block for chunks that are nearly constant, at a level N(0, 0.3²) which each chunk draws anew."""

    def __init__(self, level: torch.nn.Module, rest: torch.nn.Module) -> None:
        super().__init__()
        self.level, self.rest = level, rest

    def forward(self, x, t, cond):
        flat = x.flatten(1)
        mean, root = flat.mean(1, keepdim=True), flat.shape[1] ** 0.5
        return (self.level(mean * root, t, None) / root + self.rest(flat - mean, t, None)).view_as(x)


@pytest.mark.parametrize("link", [Link(seam="warm"), Link(seam="warm", inference="async", latency_steps=2)])
def test_the_seam_is_smoother_than_a_plain_switch(link):
    policy, schedule, solver = _policy(), Schedule((0.15, 0.2)), Solver("rk4", 10)
    laws = (Gaussian(0.0, 0.3 * 160**0.5), Gaussian(0.0, 0.001))
    blocks = zip(*(exact_chain(law, schedule, solver).blocks for law in laws), strict=True)
    policy.chain = FlowChain([_Level(*pair) for pair in blocks], schedule, solver=solver)
    policy.encoding.action_normalizer.scale.fill_(1.0)
    policy.encoding.action_normalizer.offset.zero_()
    switch = _seam_jerk(policy, link.model_copy(update={"seam": "switch"}))
    assert _seam_jerk(WarmStart(policy, 1), link) < 0.5 * switch


def _seam_jerk(policy, link):
    horizon = LinkedHorizon(policy, 0, link)
    horizon.observe(np.zeros((1, policy.contract.observation_dim), np.float32))
    actions, seams = [], []
    for _ in range(12):
        running = horizon.running
        given = (horizon.history[None], horizon.noise[None])
        batch = policy.predict(*given) if running is None else policy.resume(*given, running[None])
        begun = sum(map(len, actions))
        executed = horizon.advance(batch.actions[0])
        actions.append(executed.actions)
        seams.append(begun + executed.seam)
    return seam_jerk(policy.contract, np.concatenate(actions), seams)[0]


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
