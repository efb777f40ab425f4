"""Diffusion Policy's DDPM and DDIM (Chi et al., 2023) as baselines: one block of a chain whose network denoises.

It is trained by the same loop, on the same windows, as a flow with one block, and sampled by diffusers' schedulers.

The network predicts v = sqrt(ᾱ_k) ε - sqrt(1 - ᾱ_k) a of noisy actions x_k = sqrt(ᾱ_k) a + sqrt(1 - ᾱ_k) ε (Salimans
and Ho 2022), which is what preconditioned flows leave to theirs: for data of unit variance inputs and targets have unit
variance at every level. Samples begin at the last level, where x_k is noise ("trailing" steps, Lin et al. 2023). Until
version 0.2 the network predicted ε and samples began where 6 % of the signal is left; such checkpoints are sampled as
they were.
"""

from functools import lru_cache
from typing import Literal

import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from torch import Tensor, nn

from lfm_policy.errors import ConfigError
from lfm_policy.flow import Solver
from lfm_policy.flow.chain import Loss, Transport
from lfm_policy.flow.interpolant import Batch, Cond, Times
from lfm_policy.models.one_way import OneWayChain

Sampler = Literal["ddpm", "ddim"]
Prediction = Literal["v", "epsilon"]

NOISE_LEVELS = 100
"""K, and the squared-cosine schedule, as in Diffusion Policy."""


class DiffusionChain(OneWayChain):
    """A network v(x_k, k / K, cond) or ε(x_k, k / K, cond) in the place of a flow's only block.

    Args:
        network: any velocity network.
        sampler: "ddpm" draws fresh noise in each step, "ddim" none.
        solver: its `steps` is the number of denoising steps.
        clip: keep the guess of the data in [-1, 1] in each step, as Diffusion Policy does, whose data lie there. Where
            they do not (anchored chunks of unit variance), nothing is clipped: a guess from ε divides by sqrt(ᾱ_k),
            which is what clipping bounds, and one from v does not.
        prediction: what the network predicts.

    Raises:
        ConfigError: the solver takes more steps than there are noise levels, or other ones than Euler's.
    """

    def __init__(
        self, network: nn.Module, sampler: Sampler, solver: Solver, *, clip: bool = True, prediction: Prediction = "v"
    ) -> None:
        super().__init__(network, solver)
        self.sampler: Sampler = sampler
        self.clip = clip
        self.prediction: Prediction = prediction
        self.levels(solver)

    def levels(self, solver: Solver) -> DDPMScheduler | DDIMScheduler:
        """Return diffusers' scheduler, with as many steps as the solver has."""
        return _levels(self.sampler, solver, self.clip, self.prediction)

    def loss(self, n: int, left: Batch, right: Batch, t: Times, cond: Cond = None) -> Loss:
        """Return the mean squared error of what is predicted at level floor(K t) of data `left` and noise `right`."""
        k = (t * NOISE_LEVELS).long().clamp(max=NOISE_LEVELS - 1)
        levels = self.levels(Solver())
        noisy = levels.add_noise(left, right, k)  # pyright: ignore[reportArgumentType]
        target = right if self.prediction == "epsilon" else levels.get_velocity(left, right, k)  # pyright: ignore[reportArgumentType]
        return self.regression(n, noisy, k.to(noisy.dtype) / NOISE_LEVELS, cond, target)

    def to_data(
        self, x: Batch, cond: Cond = None, *, start: int | None = None, stop: int = 0, solver: Solver | None = None
    ) -> Transport:
        """Denoise; what "ddpm" draws on the way follows from x, row by row."""
        solver = solver or self.solver
        levels = self.levels(solver)
        generators = [_seeded(row) for row in x] if self.sampler == "ddpm" else None
        for k in levels.timesteps:
            guess = self._guess(x, k.to(x.device).expand(len(x)), cond)
            x = levels.step(guess, int(k), x, generator=generators, return_dict=False)[0]  # pyright: ignore[reportArgumentType]
        return Transport(x, solver.counts[0])

    def _guess(self, x: Tensor, k: Tensor, cond: Tensor | None) -> Tensor:
        return self.blocks[0](x, k.to(x.dtype) / NOISE_LEVELS, cond)


@lru_cache
def _levels(sampler: Sampler, solver: Solver, clip: bool, prediction: Prediction) -> DDPMScheduler | DDIMScheduler:
    """Set diffusers' scheduler to as many steps as the solver has."""
    if solver.method != "euler" or solver.counts[0] > NOISE_LEVELS:
        raise ConfigError(
            f"a diffusion baseline takes 1 to {NOISE_LEVELS} steps of method euler, "
            f"found {solver.steps} of {solver.method}"
        )
    kind = DDPMScheduler if sampler == "ddpm" else DDIMScheduler
    levels = kind(
        NOISE_LEVELS,
        beta_schedule="squaredcos_cap_v2",
        clip_sample=clip,
        prediction_type="v_prediction" if prediction == "v" else "epsilon",
        timestep_spacing="trailing" if prediction == "v" else "leading",
    )
    levels.set_timesteps(solver.counts[0])
    return levels


def _seeded(row: Tensor) -> torch.Generator:
    """Make a generator that the row's own bits decide."""
    bits = row.detach().float().cpu().contiguous().view(torch.int32).long()
    mixed = (bits.flatten() * torch.arange(1, bits.numel() + 1)).sum()
    return torch.Generator().manual_seed(int(mixed) & (2**63 - 1))
