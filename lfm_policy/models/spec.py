"""What describes a model, weights aside: records without torch, with bounds on every number, since files come from
strangers, and one reader of all formats that there have been.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, TypeAdapter, field_validator, model_validator

from lfm_policy.choices import MOST_STEPS, Interpolant, Objective, Solver
from lfm_policy.settings import Frozen

if TYPE_CHECKING:
    from torch import nn

    from lfm_policy.flow import FlowChain

NormalizerKind = Literal["affine", "whitening", "radial"]

LARGEST, LONGEST, DEEPEST = 2**20, 64, 4
"""Bounds on a network's arguments: the largest number, the longest list or map, and how deep they may be nested."""
LONGEST_TEXT = 200

Gamma = Annotated[float, Field(gt=0, le=50, allow_inf_nan=False)]
Module = dict[str, Any]
"""`_target_` and arguments of a torch module."""


class ChainSpec(Frozen):
    """Everything that shapes a chain of blocks, its networks' weights aside."""

    gammas: tuple[Gamma, ...] = Field(max_length=1000)
    """OU steps of all blocks but the last."""
    interpolant: Interpolant = "linear"
    solver: Solver = Solver()
    network: Module
    """`_target_` and arguments of one block's network."""
    share: bool = False
    """One network for all blocks."""
    precondition: bool = False
    """Networks give velocities up to the factors of `FlowChain.preconditioning`."""
    initial_diffusion: float = Field(default=0.0, ge=0, le=50, allow_inf_nan=False)
    """OU time δ for which normalised data x were diffused; what is modelled are x + sqrt(e^{2δ} - 1) z."""
    objective: Objective = "flow"
    """What the networks learn; all but a flow are baselines with one block, whose solver steps are their own."""
    prediction: Literal["v", "epsilon"] = "v"
    """What the network of a diffusion model predicts; until 0.2 it was epsilon, the noise."""

    @property
    def blocks(self) -> int:
        """N."""
        return len(self.gammas) + 1

    @model_validator(mode="before")
    @classmethod
    def _earlier(cls, values: Any) -> Any:
        """Take the records of 0.1 and 0.2, which knew flows and diffusion models that predict noise."""
        if not isinstance(values, Mapping) or "diffusion" not in values:
            return values
        before = {} if values["diffusion"] is None else {"objective": values["diffusion"], "prediction": "epsilon"}
        return {key: value for key, value in values.items() if key != "diffusion"} | before

    @field_validator("network")
    @classmethod
    def _network(cls, network: Module) -> Module:
        return require_bounded(network)

    @model_validator(mode="after")
    def _check(self) -> "ChainSpec":
        self.solver.require_blocks(self.blocks)
        if max(self.solver.counts) > MOST_STEPS or not 1e-12 <= self.solver.tolerance <= 1:
            raise ValueError(
                f"expected at most {MOST_STEPS} solver steps and a tolerance of 1e-12 to 1, found {self.solver}"
            )
        if self.prediction == "epsilon" and self.objective not in ("ddpm", "ddim"):
            raise ValueError(f"prediction=epsilon is a diffusion model's, found objective {self.objective}")
        if self.objective != "flow" and self.gammas:
            raise ValueError(f"objective {self.objective} is a baseline with one block, found {self.blocks}")
        return self

    def networks(self, *, trust_code: bool, **sizes: int) -> "nn.ModuleList":
        """Build the blocks' networks with fresh weights.

        Args:
            trust_code: allow a network class from outside this package.
            sizes: arguments that the data decide, such as action_dim and cond_dim.

        Raises:
            ConfigError: there is no such network, it refuses the arguments, or it may not be loaded.
        """
        from lfm_policy.networks import build_blocks  # torch, which a robot that runs a graph does without

        if self.objective == "shortcut":
            from lfm_policy.models.shortcut import CODES

            sizes["cond_dim"] = sizes.get("cond_dim", 0) + CODES
        return build_blocks(self.network, self.blocks, share=self.share, own_only=not trust_code, **sizes)

    def build(self, blocks: "nn.ModuleList", *, clip: bool = True) -> "FlowChain":
        """Build the chain of these networks; `clip` is a diffusion baseline's: normalised data lie in [-1, 1].

        Raises:
            ConfigError: the solver is not one that the objective can be sampled with.
        """
        from lfm_policy.flow import FlowChain, Schedule
        from lfm_policy.models.regression import RegressionChain
        from lfm_policy.models.shortcut import ShortcutChain

        if self.objective == "flow":
            return FlowChain(blocks, Schedule(self.gammas), self.interpolant, self.solver, self.precondition)
        (network,) = blocks
        if self.objective == "regression" or self.objective == "mip":
            return RegressionChain(network, self.objective, self.solver)
        if self.objective == "shortcut":
            return ShortcutChain(network, self.solver, self.precondition)
        from lfm_policy.models.diffusion import DiffusionChain  # diffusers is optional

        return DiffusionChain(network, self.objective, self.solver, clip=clip, prediction=self.prediction)


class PolicySpec(Frozen):
    """Everything that shapes a policy except its weights and its contract; the content of config.json."""

    format: Literal["lfm-policy/2"] = "lfm-policy/2"
    horizon: int = Field(default=16, ge=1, le=4096)
    """T: actions in a chunk."""
    observation_steps: int = Field(default=2, ge=1, le=1024)
    """To: observations that a chunk is conditioned on."""
    action_steps: int = Field(default=8, ge=1)
    """Ta: actions executed of a chunk."""
    chain: ChainSpec
    anchored: bool = False
    """Positions in a chunk count from where the hand was in the newest observation, and each of its steps has
    statistics of its own: the next command lies within millimetres of the hand, the last one decimetres away."""
    quaternions: tuple[int, ...] = Field(default=(), max_length=LONGEST)
    """First columns of the quaternions in an observation that the networks see as rows of rotation matrices; they are
    not normalised."""
    temperature: float = Field(default=1.0, ge=0, le=100, allow_inf_nan=False)
    """Standard deviation of the noise that chunks are made from, where the chain was trained with 1: with less a chunk
    is nearer to the most typical one for its observations, and with 0 a function of them."""
    vision: Module | None = None
    """`_target_` and arguments of the encoder of a camera's pictures, where the contract has cameras; see `Sight`."""
    crop: int | None = Field(default=None, ge=1, le=LARGEST)
    """Height and width of the part of a picture that is seen [pixels]; all of it when None."""

    @field_validator("vision")
    @classmethod
    def _vision(cls, vision: Module | None) -> Module | None:
        return None if vision is None else require_bounded(vision)

    @model_validator(mode="before")
    @classmethod
    def _earlier(cls, values: Any) -> Any:
        return with_chain(values, "lfm-policy")

    @model_validator(mode="after")
    def _fits(self) -> "PolicySpec":
        if self.observation_steps - 1 + self.action_steps > self.horizon:
            raise ValueError(
                f"{self.action_steps} actions from index {self.observation_steps - 1} on do not fit a chunk of "
                f"{self.horizon}"
            )
        return self

    def described(self) -> str:
        """Return the specification as the first format wrote it: digests are taken of that, and stay."""
        return _first_format(self)


class FlowSpec(Frozen):
    """Everything that shapes a flow model except its weights; the content of config.json."""

    format: Literal["lfm-flow/2"] = "lfm-flow/2"
    dim: int = Field(ge=1, le=2**24)
    """Width of the vectors."""
    chain: ChainSpec
    normalizer: NormalizerKind = "affine"
    """Which map the data are normalised by."""

    @model_validator(mode="before")
    @classmethod
    def _earlier(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and "whitened" in values:  # before there were three kinds
            kept = {key: value for key, value in values.items() if key != "whitened"}
            values = {"normalizer": "whitening" if values["whitened"] else "affine"} | kept
        return with_chain(values, "lfm-flow")

    def described(self) -> str:
        """Return the specification as the first format wrote it: digests are taken of that, and stay."""
        return _first_format(self)


def with_chain(values: Any, name: str) -> Any:
    """Bring a specification of the first format, whose chain lay flat among the rest, to today's."""
    if not isinstance(values, Mapping) or values.get("format") != f"{name}/1":
        return values
    chain = {key: value for key, value in values.items() if key in (*ChainSpec.model_fields, "diffusion")}
    rest = {key: value for key, value in values.items() if key not in chain}
    return rest | {"format": f"{name}/2", "chain": chain}


_ORDER = (
    *("horizon", "observation_steps", "action_steps", "dim", "gammas", "interpolant", "solver", "network", "share"),
    *("precondition", "initial_diffusion", "normalizer", "anchored", "quaternions", "temperature", "diffusion"),
    *("vision", "crop", "objective", "prediction"),
)
"""Order of the keys in the first format."""


def _first_format(spec: PolicySpec | FlowSpec) -> str:
    said = spec.model_dump(mode="json", exclude_defaults=True)
    flat = said | said.pop("chain")
    if flat.get("prediction") == "epsilon":
        del flat["prediction"]
        flat["diffusion"] = flat.pop("objective")
    return TypeAdapter(dict[str, Any]).dump_json({key: flat[key] for key in _ORDER if key in flat}).decode()


def require_bounded(module: Module) -> Module:
    """Return what describes a torch module; raise ValueError where no honest one is as large, long or deep."""
    for value, depth in _values(module, 0):
        long = isinstance(value, list | tuple | Mapping) and len(value) > LONGEST
        long = long or (isinstance(value, str) and len(value) > LONGEST_TEXT)
        large = isinstance(value, int | float) and not abs(value) <= LARGEST
        if depth > DEEPEST or long or large:
            raise ValueError(
                f"arguments of {str(module.get('_target_'))[:80]} go beyond numbers of {LARGEST}, lists of {LONGEST} "
                f"and {DEEPEST} levels"
            )
    return module


def _values(value: Any, depth: int) -> Iterator[tuple[Any, int]]:
    yield value, depth
    inside = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    if depth <= DEEPEST and len(inside) <= LONGEST:
        for item in inside:
            yield from _values(item, depth + 1)
