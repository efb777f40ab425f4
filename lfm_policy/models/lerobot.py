"""A policy as LeRobot stores it: one config.json with its type "lfm", all weights in one model.safetensors.

Written by LeRobot through the plugin `lerobot_policy_lfm`, which takes its names from here; read here without LeRobot.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from lfm_policy.choices import Interpolant, Method, Solver, Weights
from lfm_policy.contract import Contract
from lfm_policy.errors import CheckpointError, ContractError
from lfm_policy.models.pretrained import WEIGHTS, read_small, read_tensors
from lfm_policy.models.spec import ChainSpec, Module, PolicySpec

CONFIG = "config.json"
TYPE = "lfm"
"""The policy's type there: lerobot-train --policy.type=lfm."""
MODEL, AVERAGE = "model.", "average.module."
"""Prefixes of the weights as trained, and of their moving average."""


class Description(BaseModel):
    """What config.json says of the policy itself; LeRobot's own fields beside it are left alone."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)
    _own: ClassVar[Mapping[str, str]] = {
        "horizon": "horizon",
        "observation_steps": "n_obs_steps",
        "action_steps": "n_action_steps",
        "anchored": "anchored",
        "quaternions": "quaternions",
        "temperature": "temperature",
        "vision": "vision",
        "crop": "crop",
    }
    _chain: ClassVar[tuple[str, ...]] = (
        *("gammas", "interpolant", "network", "share", "precondition", "initial_diffusion"),
    )

    type: Literal["lfm"] = TYPE
    n_obs_steps: int
    horizon: int
    n_action_steps: int
    gammas: tuple[float, ...]
    interpolant: Interpolant
    network: Module
    share: bool
    precondition: bool
    initial_diffusion: float
    solver_method: Method
    solver_steps: int | tuple[int, ...]
    solver_tolerance: float
    anchored: bool
    quaternions: tuple[int, ...]
    temperature: float
    vision: Module | None
    crop: int | None
    contract: Contract | None
    """None before the data set is known."""

    @classmethod
    def of(cls, spec: PolicySpec, contract: Contract) -> "Description":
        """Describe a policy.

        Raises:
            ContractError: it is a baseline, which the plugin has no word for.
        """
        if spec.chain.objective != "flow":
            raise ContractError(f"a {spec.chain.objective} baseline is no flow: expected a policy of method lfm or fm")
        solver = spec.chain.solver
        return cls(
            **{theirs: getattr(spec, ours) for ours, theirs in cls._own.items()},
            **{name: getattr(spec.chain, name) for name in cls._chain},
            solver_method=solver.method,
            solver_steps=solver.steps,
            solver_tolerance=solver.tolerance,
            contract=contract,
        )

    @property
    def spec(self) -> PolicySpec:
        """The same as this package has it; raises ValueError where horizons or networks are out of bounds."""
        solver = Solver(self.solver_method, self.solver_steps, self.solver_tolerance)
        chain = ChainSpec(solver=solver, **{name: getattr(self, name) for name in self._chain})
        return PolicySpec(chain=chain, **{ours: getattr(self, theirs) for ours, theirs in self._own.items()})


def is_lerobot(directory: Path) -> bool:
    """Say whether a folder holds a policy of this type that LeRobot wrote."""
    path = directory / CONFIG
    config = read_small(path) if path.is_file() else None
    return isinstance(config, dict) and config.get("type") == TYPE


def read(directory: Path, weights: Weights) -> tuple[PolicySpec, Contract, dict[str, Tensor]]:
    """Read a folder "pretrained_model" of lerobot-train.

    Args:
        directory: with config.json and model.safetensors.
        weights: the moving average, where there is one, or the weights as trained.

    Raises:
        CheckpointError: a file is missing or damaged, or was never trained.
    """
    try:
        said = Description.model_validate(read_small(directory / CONFIG))
        spec = said.spec
    except (ValidationError, ValueError) as error:
        raise CheckpointError(f"{directory / CONFIG} describes no policy that can be read: {error}") from None
    if said.contract is None:
        raise CheckpointError(f"{directory / CONFIG} has no contract: expected a policy that was trained")
    return spec, said.contract, chosen(read_tensors(directory / WEIGHTS), weights)


def chosen(tensors: Mapping[str, Tensor], weights: Weights) -> dict[str, Tensor]:
    """Return one set of weights of those in a file, by their names in this package."""
    average = weights == "ema" and any(name.startswith(AVERAGE) for name in tensors)
    prefix = AVERAGE if average else MODEL
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
