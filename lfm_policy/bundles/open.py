"""Policies that scripts run: checkpoints and bundles, in torch or onnxruntime."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from lfm_policy.errors import ConfigError
from lfm_policy.settings import Frozen

if TYPE_CHECKING:
    from lfm_policy.bundles.onnx_policy import OnnxPolicy
    from lfm_policy.models.policy import LFMPolicy
    from lfm_policy.protocols import ChunkPolicy

Runtime = Literal["torch", "onnx"]


class Sampling(Frozen):
    """How a policy draws its chunks, where it is not to be as in the checkpoint; part of a script's settings."""

    solver: Literal["euler", "midpoint", "heun", "rk4", "dopri5"] | None
    steps: int | None = Field(ge=1)
    temperature: float | None = Field(ge=0, allow_inf_nan=False)

    @property
    def sampling(self) -> dict[str, Any]:
        """Arguments of `load_policy`."""
        return {name: getattr(self, name) for name in Sampling.model_fields}


def load_policy(
    checkpoint: Path,
    *,
    weights: Literal["ema", "raw"] = "ema",
    device: str = "cpu",
    solver: str | None = None,
    steps: int | None = None,
    temperature: float | None = None,
) -> "LFMPolicy":
    """The torch policy of a checkpoint or bundle, with the solver and the temperature asked for.

    Raises:
        ConfigError: there is no such solver or device.
        CheckpointError: there is nothing to load, or it is damaged.
    """
    import torch

    from lfm_policy.bundles import bundle
    from lfm_policy.models.policy import LFMPolicy

    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"device={device}: this machine has no GPU that torch can use; use device=cpu")
    if bundle.is_bundle(checkpoint):
        policy = bundle.load(checkpoint, device=device)
    else:
        policy = LFMPolicy.from_pretrained(checkpoint, weights=weights, device=device)
    changes: dict[str, Any] = {"method": solver, "steps": steps}
    try:
        policy.chain.solver = replace(policy.chain.solver, **{k: v for k, v in changes.items() if v is not None})
    except ValueError as error:
        raise ConfigError(f"solver={solver}: {error}") from None
    if temperature is not None:
        policy.set_temperature(temperature)
    return policy


def load_onnx(checkpoint: Path, precision: str | None, threads: int, **fixed: str | int | float | None) -> "OnnxPolicy":
    """One of the graphs of a bundle.

    Args:
        checkpoint: the bundle.
        precision: of the graph.
        threads: of onnxruntime.
        fixed: settings that a graph cannot change, such as the solver; None leaves one alone.

    Raises:
        ConfigError: one of these is asked for.
        CheckpointError: there is no such bundle or graph, or it is damaged.
    """
    from lfm_policy.bundles.onnx_policy import OnnxPolicy

    asked = {name: value for name, value in fixed.items() if value is not None}
    if asked:
        settings = " ".join(f"{name}={value}" for name, value in asked.items())
        raise ConfigError(f"a graph's sampler is fixed: export again with {settings}, or use runtime=torch")
    return OnnxPolicy(checkpoint, precision, threads=threads)


def dress(
    policy: "LFMPolicy", seam: str, warm_blocks: int | None, best_of: int
) -> "tuple[ChunkPolicy, dict[str, Any]]":
    """The policy as the seam and the best of several chunks ask for it, and what of that decides its chunks.

    Raises:
        ConfigError: both are asked for, or the policy's chain is too short to be entered in the middle.
    """
    if best_of > 1:
        from lfm_policy.chunks.best_of import BestOf

        require_plain(seam, 1, "the best of several chunks")
        return BestOf(policy, best_of), {"best_of": best_of}
    if seam == "warm":
        from lfm_policy.chunks.warm import WarmStart

        warm = WarmStart(policy, warm_blocks)
        return warm, {"warm_blocks": warm.blocks}
    return policy, {}


def require_plain(seam: str, best_of: int, what: str) -> None:
    """Raise ConfigError where something that only torch policies do is asked of `what`."""
    if seam == "warm":
        raise ConfigError(f"seam=warm: {what} cannot begin at the running chunk; use seam=ensemble or seam=switch")
    if best_of > 1:
        raise ConfigError(f"best_of={best_of}: {what} knows no densities; use the torch policy")
