"""The words that settings choose from, and what several commands ask for alike. Without torch: `--help` reads it."""

import os.path
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from lfm_policy.settings import Frozen

Method = Literal["euler", "midpoint", "heun", "rk4", "dopri5", "gaussian"]
Interpolant = Literal["linear", "trigonometric"]
Mode = Literal["sequential", "simulation_free", "combined"]
Objective = Literal["flow", "ddpm", "ddim", "regression", "mip", "shortcut"]
"""What networks learn: velocities of a flow, or what a baseline with one network learns in their place."""
Coupling = Literal["dependent", "shuffled", "independent"]
"""Whose OU step a block's right end is: that of its left end (Algorithm 1), of another in the batch, of a fresh one."""
Target = Literal["trajectory", "on_policy", "consistency"]
"""Where a block starts on its way to the teacher's x_{n-1}: at the teacher's x_n (the paper); at the student's own x_n,
made from the same noise, so that it corrects the blocks before it; at any state of the teacher between the two."""
Weights = Literal["ema", "raw"]
Score = Literal["density", "residual", "variance", "logpzo"]
Perturbation = Literal["none", "moved", "order", "frozen", "noisy", "loose", "occluded", "swapped"]
"""What goes wrong with an environment on purpose; see lfm_envs.perturbed."""
AnalyticDensity = Literal["checkerboard", "eight_gaussians", "gaussian", "pinwheel", "two_moons"]
TableName = Literal["power", "gas", "miniboone", "bsds300"]
Size = Literal["paper", "small", "tiny"]
Simulation = Literal["compiled", "robosuite"]
"""Who steps robosuite's tasks: our compiled code, bit-equal and several times faster, or robosuite itself."""


def _home(value: Any) -> Any:
    """Put the home folder in the place of ~ at the beginning of a text; ./~ is a folder of that name."""
    return os.path.expanduser(value) if isinstance(value, str) and value.startswith("~") else value


def _as_text(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else _home(value)


Place = Annotated[Path, BeforeValidator(_home)]
"""A file or folder as the user wrote it; ~ is the home folder. No other character means anything."""
Source = Annotated[str, BeforeValidator(_as_text)]
"""A policy: folder of a checkpoint, of a training run or of a bundle, pretrained name, hub id, or ws:// address."""
Products = Literal["float32", "bfloat16"]
"""What the products inside networks are computed in."""


def _one_for_all(steps: Any) -> Any:
    """Take [5], which a command line makes of 5, as 5: runs are told apart by their settings."""
    return steps[0] if isinstance(steps, tuple) and len(steps) == 1 else steps


@dataclass(frozen=True)
class Solver:
    """How blocks are integrated: `steps` equal steps of a Runge-Kutta method, or adaptive dopri5 to `tolerance`.

    "gaussian" steps, from noise to data only, cost what Euler's do and follow the block's own Gaussian path, see
    `FlowChain.gaussian_step`.

    The block next to the data decides the details of a sample, and is worth more steps than the others.

    Raises:
        ValueError: the method is unknown, or steps or tolerance are not positive.
    """

    method: Annotated[
        Method,
        Field(
            description="Runge-Kutta method; dopri5 chooses its steps itself; gaussian: at Euler's cost, along the "
            "path of a Gaussian, for samples and not for likelihoods"
        ),
    ] = "euler"
    steps: Annotated[
        int | tuple[int, ...],
        AfterValidator(_one_for_all),
        Field(description="equal steps in each block; [5,1]: five in the block next to the data, one in all others"),
    ] = 1
    tolerance: Annotated[float, Field(description="relative and absolute error of method dopri5")] = 1e-5

    def __post_init__(self) -> None:
        known = Method.__args__
        if self.method not in known:
            raise ValueError(f"unknown solver '{self.method}', known: {list(known)}")
        if min(self.counts, default=0) < 1 or not self.tolerance > 0:
            raise ValueError(f"steps and tolerance must be positive, found {self.steps} and {self.tolerance}")

    @property
    def counts(self) -> tuple[int, ...]:
        """Steps of the blocks, the data side first; the last number is that of all others."""
        return (self.steps,) if isinstance(self.steps, int) else self.steps

    def of_block(self, n: int) -> "Solver":
        """Return how block n is integrated."""
        return replace(self, steps=self.counts[min(n, len(self.counts) - 1)])

    def require_blocks(self, blocks: int) -> None:
        """Check that a chain has as many blocks as have steps of their own. Raises ValueError where it has fewer."""
        if len(self.counts) > blocks:
            raise ValueError(
                f"solver.steps={list(self.counts)} names {len(self.counts)} blocks, the chain has {blocks}"
            )


@dataclass(frozen=True)
class BetaLaw:
    """Beta(alpha, beta) on [0, 1], uniform by default."""

    alpha: Annotated[float, Field(description="first parameter of the law of t, Beta(alpha, beta)")] = 1.0
    beta: Annotated[float, Field(description="below 1: more often near t = 1, the noise")] = 1.0


MOST_STEPS = 10_000
"""Solver steps in a block."""
Steps = Annotated[int, Field(gt=0, le=MOST_STEPS)]


class SolverChange(Frozen):
    """What is to be different from a checkpoint's own solver."""

    method: Method | None = Field(default=None, description="how blocks are integrated; null: the checkpoint's way")
    steps: Annotated[Steps | tuple[Steps, ...] | None, AfterValidator(_one_for_all)] = Field(
        default=None,
        description="solver steps in each block; [5,1]: five in the block next to the data, one in all others; null: "
        "the checkpoint's",
    )
    tolerance: float | None = Field(
        default=None, gt=0, description="relative and absolute error of method dopri5; null: the checkpoint's"
    )

    def __call__(self, solver: Solver) -> Solver:
        """Return `solver` with these changes."""
        return replace(solver, **self.given)

    @property
    def given(self) -> dict[str, Any]:
        """The changes that are asked for."""
        return {name: value for name, value in self.model_dump().items() if value is not None}


class PolicyChoice(Frozen):
    """Which policy a command works on; the first of its settings may be given without `policy=`."""

    policy: Source = Field(
        description="checkpoint, training run or bundle (a folder), pretrained name (lift), hub id, or ws:// address"
    )
    weights: Weights = Field(
        default="ema", description="which of a checkpoint's weights: ema (moving average) or raw (as trained)"
    )
    trust_code: bool = Field(default=False, description="import networks of your own that a checkpoint names")


class Sampling(Frozen):
    """How a policy draws its chunks, where it is not to be as in the checkpoint."""

    solver: SolverChange = SolverChange()
    temperature: float | None = Field(
        default=None,
        ge=0,
        le=100,
        allow_inf_nan=False,
        description="deviation of the noise that chunks are made from: 1 draws from the learned law, 0 is always its "
        "typical chunk; null: the checkpoint's",
    )

    @property
    def sampling(self) -> "Sampling":
        """This part of a command's settings alone."""
        return Sampling(solver=self.solver, temperature=self.temperature)

    @property
    def asked(self) -> dict[str, Any]:
        """What is to be other than in the checkpoint, as arguments of a command: {"solver.steps": 5}."""
        own = {} if self.temperature is None else {"temperature": self.temperature}
        return {f"solver.{name}": value for name, value in self.solver.given.items()} | own


class Arithmetic(Frozen):
    """What a policy computes in."""

    precision: Products = Field(
        default="float32",
        description="number format of the networks' products: bfloat16 (torch alone) reads half of the weights' bytes; "
        "for large networks, on processors that multiply it (AVX512-BF16, AMX)",
    )


class StoreChoice(Frozen):
    """Data that a command reads, where they are not those that it knows of."""

    path: Place | None = Field(default=None, description="where the data are; null: where they were")
