"""The training loop: one page of plain torch, counted in steps. `flow.fit` calls it once per phase.

Everything random in step s of phase k comes from a generator seeded with (seed, k, s), and the learning rate is a
function of s: a run that was interrupted continues bit for bit from its last checkpoint.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from lfm_policy.errors import LFMError
from lfm_policy.flow import FlowChain, Phase
from lfm_policy.flow.fit import Losses
from lfm_policy.training.distributed import Ranks
from lfm_policy.training.ema import Ema
from lfm_policy.training.gradients import Compiled, Gradients, OneByOne
from lfm_policy.training.memory import keep_freed_memory
from lfm_policy.training.settings import OptimiserSettings


@dataclass(frozen=True)
class StepReport:
    """What one update did."""

    step: int
    """Updates done so far, over all phases."""
    total: int
    phase: int
    losses: Mapping[int, float]
    """Matching loss of each block that was updated."""
    learning_rate: float
    seconds: float
    """Wall time of the update."""


@dataclass(frozen=True)
class TrainerState:
    """Where a run stands, beside the weights that it trains."""

    phase: int
    step: int
    """Updates of the phase that are done."""
    seconds: float
    """Wall time of all updates, those before an interruption included [s]."""
    ema_step: int
    ema: Mapping[str, Tensor]
    """The averaged weights, named as in the model that is trained."""
    optimiser: Mapping[str, Tensor]
    """Moments and step counts, named by parameter and kind; empty between phases."""
    moments_since: int = 0
    """Updates of the phase that were done when its moments began: where a finished run was made longer."""


@runtime_checkable
class Encoder(Protocol):
    """Gives blocks their conditions, and is trained with them."""

    @property
    def module(self) -> nn.Module:
        """What is trained."""
        ...

    def backward(self) -> None:
        """Pass on the gradients that all blocks have left at the conditions."""
        ...


@runtime_checkable
class Saver(Protocol):
    """Stores the trainer's state when it is due."""

    def __call__(self, trainer: "Trainer", *, force: bool) -> None: ...


class TrainingDiverged(LFMError):
    """The loss became NaN or infinite."""


class Trainer:
    """Carries out the phases of a plan on a chain.

    Args:
        chain: the networks; their device decides where everything runs.
        phases: the plan.
        settings: the optimiser's.
        seed: decides batches, noise and times.
        on_step: hears each update.
        save: called after each update, and with force at the end of each phase.
        parallel: blocks whose gradients are computed side by side, in threads; the result does not depend on it.
        ranks: the processes whose gradients are averaged.
        encoder: gives the conditions and is trained too; None where they are numbers.
    """

    def __init__(
        self,
        chain: FlowChain,
        phases: tuple[Phase, ...],
        settings: OptimiserSettings,
        seed: int,
        on_step: Callable[[StepReport], None],
        save: Saver,
        parallel: int = 1,
        ranks: Ranks = Ranks(),
        encoder: Encoder | None = None,
    ) -> None:
        self.chain, self.phases, self.settings, self.seed = chain, phases, settings, seed
        self._encoder = encoder
        self._seeing = None if encoder is None else encoder.module
        self.ema = Ema(chain, settings.ema_power, settings.ema_max_decay, self._seeing)
        self._phase, self._step = 0, 0
        self._seconds = 0.0
        self._optimiser: torch.optim.AdamW | None = None
        self._moments_since = 0
        self._on_step, self._save, self._ranks = on_step, save, ranks
        self._device = next(chain.parameters()).device
        if self._device.type == "cpu":
            keep_freed_memory()
        self._one_by_one = OneByOne(parallel)

    def optimise(self, k: int, phase: Phase, losses: Losses) -> None:
        """See `flow.fit.Optimise`: the updates of phase k that are still to be done."""
        if k < self._phase:
            return
        if self._step == 0:
            self._begin(phase)
        gradients = self._gradients(phase)
        optimiser = self._optimiser or self._new_optimiser(phase)
        for step in range(self._step, phase.steps):
            started = time.perf_counter()
            rate = learning_rate(step, phase.steps, self.settings, self._moments_since)
            for group in optimiser.param_groups:
                group["lr"] = rate
            values = self._backward(k, step, phase, losses, gradients)
            self._clip(phase)
            optimiser.step()
            optimiser.zero_grad()
            self.ema.update(self.chain, phase.blocks, self._seeing)
            self._step, self._optimiser = step + 1, optimiser
            seconds = time.perf_counter() - started
            self._seconds += seconds
            self._on_step(StepReport(self.done, self.total, k, values, rate, seconds))
            self._save(self, force=False)
        self._phase, self._step, self._optimiser, self._moments_since = k + 1, 0, None, 0
        self._save(self, force=True)

    def state(self) -> TrainerState:
        """Say where the run stands; with the chain's weights all that it needs to go on, bit for bit.

        The tensors are the trainer's own: save them before the next update.
        """
        ema, moments = self.ema.state(), _moments(self._optimiser)
        return TrainerState(self._phase, self._step, self._seconds, self.ema.step, ema, moments, self._moments_since)

    def restore(self, state: TrainerState) -> None:
        """Go to where a run stood; the chain's weights are the caller's to restore."""
        self.ema.restore(state.ema, state.ema_step)
        self._phase, self._step, self._seconds = state.phase, state.step, state.seconds
        self._optimiser, self._moments_since = None, state.moments_since
        if state.optimiser:
            self._optimiser = self._new_optimiser(self.phases[state.phase])
            _give_moments(self._optimiser, state.optimiser)

    @property
    def seconds(self) -> float:
        """Wall time of all updates, those before an interruption included [s]."""
        return self._seconds

    @property
    def done(self) -> int:
        """Updates done, over all phases."""
        return sum(phase.steps for phase in self.phases[: self._phase]) + self._step

    @property
    def total(self) -> int:
        """Updates of the whole plan."""
        return sum(phase.steps for phase in self.phases)

    def _new_optimiser(self, phase: Phase) -> torch.optim.AdamW:
        """Make a fresh optimiser over the phase's blocks."""
        s = self.settings
        return torch.optim.AdamW(
            self._parameters(phase),
            lr=s.learning_rate,
            betas=s.betas,
            eps=s.eps,
            weight_decay=s.weight_decay,
            fused=True,
        )

    def _parameters(self, phase: Phase) -> list[torch.nn.Parameter]:
        """Return the parameters of the phase's blocks, once where they are shared, and the encoder's."""
        return list(dict.fromkeys(p for module in self._modules(phase) for p in module.parameters()))

    def _modules(self, phase: Phase) -> list[nn.Module]:
        return [self.chain.blocks[n] for n in phase.blocks] + ([] if self._seeing is None else [self._seeing])

    def _begin(self, phase: Phase) -> None:
        for n in phase.blocks:
            source = self.ema.chain.blocks[n - 1] if phase.warm_start else self.ema.chain.blocks[n]
            self.chain.blocks[n].load_state_dict(source.state_dict())
        self.ema.restart(self.chain, phase.blocks)

    def _gradients(self, phase: Phase) -> Gradients:
        """Choose how the phase's gradients are computed."""
        return Compiled([self.chain.blocks[n] for n in phase.blocks]) if self.settings.compiled else self._one_by_one

    def _backward(self, k: int, step: int, phase: Phase, losses: Losses, gradients: Gradients) -> dict[int, float]:
        """Accumulate the gradients of one update; return each block's mean loss."""
        parts = self.settings.accumulate
        totals = torch.zeros(len(phase.blocks), device=self._device)
        for part in range(parts):
            generator = torch.Generator(self._device).manual_seed(_seed(self.seed, k, step, part))
            totals += gradients(losses(generator), 1 / parts, self._autocast())
            if self._encoder is not None:
                self._encoder.backward()
        self._ranks.average([totals, *(p.grad for p in self._parameters(phase) if p.grad is not None)])
        values = dict(zip(phase.blocks, totals.tolist(), strict=True))
        if not all(math.isfinite(value) for value in values.values()):
            raise TrainingDiverged(
                f"the loss is not finite in step {step} of phase {k}: {values}; lower optimiser.learning_rate "
                "(the last checkpoint is intact)"
            )
        return values

    def _clip(self, phase: Phase) -> None:
        if self.settings.gradient_clip is not None:
            for module in self._modules(phase):
                torch.nn.utils.clip_grad_norm_(module.parameters(), self.settings.gradient_clip)

    def _autocast(self) -> torch.autocast:
        precision = self.settings.precision
        if precision == "auto":
            bf16 = self._device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
            precision = "bf16" if bf16 else "fp32"
        return torch.autocast(self._device.type, torch.bfloat16, enabled=precision == "bf16")


def _moments(optimiser: torch.optim.AdamW | None) -> dict[str, Tensor]:
    state = {} if optimiser is None else optimiser.state_dict()["state"]
    return {f"{index}.{key}": value for index, entries in state.items() for key, value in entries.items()}


def _give_moments(optimiser: torch.optim.AdamW, tensors: Mapping[str, Tensor]) -> None:
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, key = name.split(".", 1)
        if value.ndim:  # fused AdamW goes through memory: moments must lie there as their parameters do
            value = torch.empty_like(parameters[int(index)]).copy_(value)
        state.setdefault(int(index), {})[key] = value.detach()
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


def learning_rate(step: int, steps: int, settings: OptimiserSettings, moments_since: int = 0) -> float:
    """Warm up linearly to the base rate, then follow half a cosine to 0 at the phase's end, or decay in steps.

    A run that is made longer goes on along the schedule of the longer one; where its moments began anew, the rate
    rises to that schedule over another warm-up.

    Args:
        step: updates of the phase that are done.
        steps: of the whole phase.
        settings: base rate, warm-up and decay.
        moments_since: updates that were done when the moments began.
    """
    warmup = min(settings.warmup_steps, steps // 2)
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    again = min(1.0, (step - moments_since + 1) / max(1, warmup)) if moments_since else 1.0
    if settings.step_decay is not None:
        decay = settings.step_decay.factor ** (step // settings.step_decay.every)
    else:
        decay = 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
    return settings.learning_rate * decay * again


def _seed(*words: int) -> int:
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> np.uint64(1))
