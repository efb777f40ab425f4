"""Diffusion Policy's DDPM and DDIM (Chi et al., 2023) as baselines: one block of a chain whose network predicts noise.

It is trained by the same loop, on the same windows, as a flow with one block, and sampled by diffusers' schedulers.
"""

from functools import lru_cache
from typing import Literal

import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from jaxtyping import Float
from torch import Tensor, nn

from lfm_policy.flow import FlowChain, Schedule, Solver
from lfm_policy.flow.chain import Loss, Transport

Sampler = Literal["ddpm", "ddim"]

NOISE_LEVELS = 100
"""K, and the squared-cosine schedule, as in Diffusion Policy."""


class DiffusionChain(FlowChain):
    """A noise-predicting network ε(x_k, k / K, cond) in the place of a flow's only block.

    Args:
        network: ε; any velocity network.
        sampler: "ddpm" draws fresh noise in each step, "ddim" none.
        solver: its `steps` is the number of denoising steps.
        clip: keep the guess of the data in [-1, 1] in each step, as Diffusion Policy does, whose data lie there.

    Raises:
        ValueError: the solver takes more steps than there are noise levels.
    """

    def __init__(self, network: nn.Module, sampler: Sampler, solver: Solver, *, clip: bool = True) -> None:
        super().__init__([network], Schedule(()), solver=solver)
        self.sampler: Sampler = sampler
        self.clip = clip
        _levels(sampler, solver, clip)

    def loss(
        self,
        n: int,
        left: Float[Tensor, "b *event"],
        right: Float[Tensor, "b *event"],
        t: Float[Tensor, " b"],
        cond: Float[Tensor, "b c"] | None = None,
    ) -> Loss:
        """Return the mean squared error of noise `right` predicted from `left` at level floor(K t) (DDPM, eq. 14)."""
        k = (t * NOISE_LEVELS).long().clamp(max=NOISE_LEVELS - 1)
        noisy = _levels(self.sampler, Solver(), self.clip).add_noise(left, right, k)  # pyright: ignore[reportArgumentType]
        return self.regression(n, noisy, k.to(noisy.dtype) / NOISE_LEVELS, cond, right)

    def marginal_loss(self, n: int, data: Tensor, noise: Tensor, t: Tensor, cond: Tensor | None = None) -> Loss:
        """Return the same loss: the left end is the data."""
        return self.loss(n, data, noise, t, cond)

    def to_data(
        self,
        x: Float[Tensor, "b *event"],
        cond: Float[Tensor, "b c"] | None = None,
        *,
        start: int | None = None,
        stop: int = 0,
        solver: Solver | None = None,
    ) -> Transport:
        """Denoise; what "ddpm" draws on the way follows from x, row by row."""
        solver = solver or self.solver
        levels = _levels(self.sampler, solver, self.clip)
        generators = [_seeded(row) for row in x] if self.sampler == "ddpm" else None
        for k in levels.timesteps:
            noise = self._noise(x, k.to(x.device).expand(len(x)), cond)
            x = levels.step(noise, int(k), x, generator=generators, return_dict=False)[0]  # pyright: ignore[reportArgumentType]
        return Transport(x, solver.counts[0])

    def to_noise(
        self,
        x: Float[Tensor, "b *event"],
        cond: Float[Tensor, "b c"] | None = None,
        *,
        start: int = 0,
        stop: int | None = None,
        solver: Solver | None = None,
    ) -> Transport:
        """Refuse: the way to noise is not defined, see Raises.

        Raises:
            TypeError: always; a diffusion model has no map from data to noise.
        """
        raise TypeError("a diffusion baseline maps noise to data only; train method=lfm or fm for the inverse")

    def _noise(self, x: Tensor, k: Tensor, cond: Tensor | None) -> Tensor:
        return self.blocks[0](x, k.to(x.dtype) / NOISE_LEVELS, cond)


@lru_cache
def _levels(sampler: Sampler, solver: Solver, clip: bool) -> DDPMScheduler | DDIMScheduler:
    """Set diffusers' scheduler to as many steps as the solver has."""
    if solver.method != "euler" or solver.counts[0] > NOISE_LEVELS:
        raise ValueError(
            f"a diffusion baseline takes 1 to {NOISE_LEVELS} steps of method euler, "
            f"found {solver.steps} of {solver.method}"
        )
    kind = DDPMScheduler if sampler == "ddpm" else DDIMScheduler
    levels = kind(NOISE_LEVELS, beta_schedule="squaredcos_cap_v2", clip_sample=clip, prediction_type="epsilon")
    levels.set_timesteps(solver.counts[0])
    return levels


def _seeded(row: Tensor) -> torch.Generator:
    """Make a generator that the row's own bits decide."""
    bits = row.detach().float().cpu().contiguous().view(torch.int32).long()
    mixed = (bits.flatten() * torch.arange(1, bits.numel() + 1)).sum()
    return torch.Generator().manual_seed(int(mixed) & (2**63 - 1))
