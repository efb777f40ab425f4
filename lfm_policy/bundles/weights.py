"""A torch policy's weights to a bundle, and what checkpoints hold, of either kind."""

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from lfm_policy.errors import ConfigError
from lfm_policy.models.bundle import CONFIG, Affine, BundleConfig, Dtype, Normalizer
from lfm_policy.models.density import FlowModel
from lfm_policy.models.policy import LFMPolicy
from lfm_policy.models.pretrained import Weights, checkpoint_in, read_small

NORMALIZERS = ("observation", "action")
PREFIXES = ("chain.", "sight.")
"""Prefixes of the weights in a policy's state: the chain's, and those of the encoders of pictures."""


def config_of(policy: LFMPolicy, dtype: Dtype, nfe: int) -> BundleConfig:
    """Return what config.json says of a policy, with the solver it has now."""
    chain = policy.spec.chain.model_copy(update={"solver": policy.chain.solver})
    return BundleConfig(dtype=dtype, nfe=nfe, policy=policy.spec.model_copy(update={"chain": chain}))


def normalizer_of(policy: LFMPolicy) -> Normalizer:
    """Return both normalisers as numbers; float32 values survive JSON exactly."""
    affine = {}
    for name in NORMALIZERS:
        module = getattr(policy.encoding, f"{name}_normalizer")
        affine[name] = Affine(**{key: tuple(getattr(module, key).flatten().tolist()) for key in ("scale", "offset")})
    return Normalizer(**affine)


def rounded(policy: LFMPolicy, dtype: Dtype) -> dict[str, Tensor]:
    """Return the state of chain and encoders in the number format of a bundle.

    Raises:
        ConfigError: a weight does not fit it.
    """
    number = getattr(torch, dtype)
    state = {name: value.detach().cpu() for name, value in policy.state_dict().items() if name.startswith(PREFIXES)}
    state = {name: value.to(number) if value.is_floating_point() else value for name, value in state.items()}
    bad = [name for name, value in state.items() if not value.isfinite().all()]
    if bad:
        raise ConfigError(
            f"weights that are not finite in {dtype}, the first in {bad[0]}: use dtype=float32 or bfloat16"
        )
    return {name: value.contiguous() for name, value in state.items()}


def store(state: dict[str, Tensor], path: Path) -> None:
    """Write a state as safetensors."""
    save_file(state, path)


def load(
    directory: Path, weights: Weights = "ema", device: torch.device | str = "cpu", trust_code: bool = False
) -> LFMPolicy | FlowModel:
    """Load the policy or the density in a checkpoint, whichever it is, in evaluation mode.

    Raises:
        CheckpointError: there is none, or it cannot be read.
    """
    config = read_small(checkpoint_in(directory) / CONFIG)
    density = isinstance(config, dict) and str(config.get("format")).startswith("lfm-flow/")
    model = FlowModel if density else LFMPolicy
    return model.from_pretrained(directory, weights=weights, device=device, trust_code=trust_code)
