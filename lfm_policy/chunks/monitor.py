"""How unusual a chunk is, given the observation: a running score that rises when robot and world leave the data.

What is judged is the promise that the robot keeps: the rest of the running chunk, completed by the new one, under the
newest observation. A policy's fresh samples are likely by construction; an old plan is likely only while the world
goes on as it was expected to.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

import numpy as np
import torch
from torch import Tensor

from lfm_policy.choices import Score
from lfm_policy.errors import ConfigError
from lfm_policy.flow import Hutchinson, log_prob
from lfm_policy.flow.interpolant import interpolate
from lfm_policy.models.device import cpu_threads
from lfm_policy.models.policy import LFMPolicy

if TYPE_CHECKING:
    from lfm_policy.models.density import FlowModel

SCORES: tuple[Score, ...] = get_args(Score)
OF_FLOWS: tuple[Score, ...] = ("density", "residual")
"""Scores that ask the chain's velocity at all times, which a distilled student does not have."""


class Monitor:
    """Scores chunks; the higher the score, the more unusual.

    Args:
        policy: whose conditional density is asked.
        score: "density" is -log p(chunk | observation) [nats], by Hutchinson's estimator with `draws` probes.
            "residual" is how far each block's velocity is from the one that its training would ask for at the chunk,
            averaged over blocks and `draws` fixed times and noises: one evaluation per block and draw. "variance" looks
            at the observation alone: that of `draws` samples of the policy. "logpzo" (FAIL-Detect, arXiv 2503.08558)
            does too: the mean square of the noise that a flow fitted to the demonstrations' observations makes of it.
        draws: fixed draws, the same for every chunk, so that scores differ by what is judged only.
        seed: of the draws.
        observations: of score "logpzo", a flow on what the policy is conditioned on; see `fit_observations`.

    Raises:
        ConfigError: too few draws, or there is no flow to ask.
    """

    def __init__(
        self,
        policy: LFMPolicy,
        score: Score = "residual",
        draws: int = 8,
        seed: int = 0,
        observations: "FlowModel | None" = None,
    ) -> None:
        if score == "logpzo" and observations is None:
            raise ConfigError("score 'logpzo' needs a flow on observations: give the folder that lfm monitor wrote")
        if draws < (2 if score == "variance" else 1):
            raise ConfigError(f"score '{score}' compares chunks drawn anew: expected draws >= 2, found {draws}")
        objective = policy.spec.chain.objective
        if objective in ("regression", "mip") and score != "logpzo":
            raise ConfigError(
                f"a policy trained by {objective} has no law, under which a chunk could be unlikely: use score 'logpzo'"
            )
        if objective != "flow" and score in OF_FLOWS:
            raise ConfigError(f"score '{score}' needs a flow, found {objective}: use score 'variance' or 'logpzo'")
        self._observations = observations
        self.policy, self.draws = policy, draws
        self.score: Score = score
        generator = torch.Generator().manual_seed(seed)
        self._noise = torch.randn(draws, 2, *policy.noise_shape, generator=generator)
        self._probes = _OneEach(signs=self._noise[:, 0].sign())
        # stratified, so that few draws cover a block's time
        self._times = (torch.arange(draws) + torch.rand(draws, generator=generator)) / draws

    def scores(self, histories: np.ndarray, chunks: np.ndarray, frames: np.ndarray | None = None) -> np.ndarray:
        """Return the scores (B,) of chunks (B, T, action_dim) under histories (B, To, observation_dim), raw units.

        Of a policy with cameras, under what they saw too: uint8 (B, cameras, height, width, 3).
        """
        with torch.no_grad(), cpu_threads(self.policy.threads):
            device = self.policy.device
            state, action = torch.from_numpy(histories).to(device), torch.from_numpy(chunks).to(device)
            features = self.policy.see(None if frames is None else torch.from_numpy(frames))
            x, cond = self.policy.encoding.encode(action, state), self.policy.condition(state, features)
            match self.score:
                case "density":
                    values = self._density(x, cond)
                case "residual":
                    values = self._residual(x, cond)
                case "variance":
                    values = self._variance(cond)
                case "logpzo":
                    values = self._surprise(cond)
        return values.double().cpu().numpy()

    def _density(self, x: Tensor, cond: Tensor) -> Tensor:
        """Return -log p, each probe with a copy of the chunk."""
        copies = (rows.repeat_interleave(self.draws, 0) for rows in (x, cond))
        found = log_prob(self.policy.chain, *copies, estimator=self._probes).log_prob
        return -found.view(len(x), self.draws).mean(1)

    def _residual(self, x: Tensor, cond: Tensor) -> Tensor:
        """Return block n's matching loss between the chunk's marginal at t_n and its OU step, chunk by chunk."""
        chain, draws = self.policy.chain, self.draws
        repeated, times = cond.repeat_interleave(draws, 0), self._times.to(x).repeat(len(x))
        first, second = (noise.to(x).repeat(len(x), 1, 1) for noise in self._noise.unbind(1))
        data = x.repeat_interleave(draws, 0)
        total = x.new_zeros(len(x))
        for n in range(len(chain.blocks)):
            left = chain.schedule.marginal(n, data, first)
            right = chain.schedule.target(n, left, second)
            point, rate = interpolate(chain.interpolant, left, right, times)
            error = (chain.velocity(n, point, times, repeated) - rate).square().flatten(1).mean(1)
            total += error.view(len(x), draws).mean(1) / len(chain.blocks)
        return total

    def _variance(self, cond: Tensor) -> Tensor:
        draws = self.draws
        noise = self._noise[:, 0].to(cond).repeat(len(cond), 1, 1)
        x = self.policy.chain.to_data(noise, cond.repeat_interleave(draws, 0)).x
        return x.view(len(cond), draws, -1).var(1).mean(1)

    def _surprise(self, cond: Tensor) -> Tensor:
        assert self._observations is not None
        model = self._observations
        return model.chain.to_noise(model.normalizer.normalize(cond)).x.square().mean(1)


@dataclass(frozen=True, kw_only=True)
class _OneEach(Hutchinson):
    """One probe per row: those given, again and again."""

    signs: Tensor
    probes: int = 1

    def draw(self, x: Tensor) -> Tensor:
        return self.signs.to(x).repeat(len(x) // len(self.signs), *[1] * (x.ndim - 1))[None]
