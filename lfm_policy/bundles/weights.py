"""A torch policy's weights to a bundle and back."""

import json
from dataclasses import asdict
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from lfm_policy.bundles.bundle import CONFIG, WEIGHTS, Affine, Bundle, BundleConfig, Dtype, Normalizer
from lfm_policy.errors import CheckpointError, ConfigError, ContractError
from lfm_policy.files import read_json
from lfm_policy.models.density import FORMAT as FLOW_FORMAT
from lfm_policy.models.density import FlowModel
from lfm_policy.models.policy import LFMPolicy, PolicySpec
from lfm_policy.models.pretrained import Weights, checkpoint_in

HORIZONS = ("horizon", "observation_steps", "action_steps")
NORMALIZERS = ("observation", "action")
PREFIX = "chain."


def config_of(policy: LFMPolicy, dtype: Dtype, nfe: int) -> BundleConfig:
    """What config.json says of a policy, with the solver it has now."""
    spec = policy.spec.model_dump(mode="json", exclude={"format", *HORIZONS}) | {"solver": asdict(policy.chain.solver)}
    horizons = {name: getattr(policy.spec, name) for name in HORIZONS}
    return BundleConfig(dtype=dtype, nfe=nfe, chain=spec, **horizons)


def normalizer_of(policy: LFMPolicy) -> Normalizer:
    """Both normalisers as numbers; float32 values survive JSON exactly.

    Raises:
        ContractError: one was never fitted.
    """
    affine = {}
    for name in NORMALIZERS:
        module = getattr(policy, f"{name}_normalizer")
        if not module.fitted:
            raise ContractError(f"the {name} normaliser was never fitted: a policy without it hardly moves")
        affine[name] = Affine(**{key: tuple(getattr(module, key).flatten().tolist()) for key in ("scale", "offset")})
    return Normalizer(**affine)


def rounded(policy: LFMPolicy, dtype: Dtype) -> dict[str, Tensor]:
    """The chain's state in the number format of a bundle.

    Raises:
        ConfigError: a weight does not fit it.
    """
    number = getattr(torch, dtype)
    state = {f"{PREFIX}{name}": value.detach().cpu() for name, value in policy.chain.state_dict().items()}
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
    try:
        config = read_json(checkpoint_in(directory) / CONFIG)
    except (json.JSONDecodeError, UnicodeDecodeError, OSError) as error:
        raise CheckpointError(f"{directory} holds no model that can be read: {error}") from None
    density = isinstance(config, dict) and config.get("format") == FLOW_FORMAT
    model = FlowModel if density else LFMPolicy
    return model.from_pretrained(directory, weights=weights, device=device, trust_code=trust_code)


def restore(bundle: Bundle, device: torch.device | str = "cpu", trust_code: bool = False) -> LFMPolicy:
    """Restore the policy of a bundle, in float32 and evaluation mode.

    Raises:
        CheckpointError: specification and weights do not fit each other, or hold what is unknown.
    """
    spec = {name: getattr(bundle.config, name) for name in HORIZONS} | bundle.config.chain
    try:
        policy = LFMPolicy(PolicySpec.model_validate(spec), bundle.contract, trust_code=trust_code)
    except (ValidationError, ValueError, ConfigError, ContractError) as error:
        raise CheckpointError(f"{bundle.directory / CONFIG} describes no policy that can be built: {error}") from None
    state = _tensors(bundle) | _normalizer_state(bundle, policy)
    try:
        policy.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(f"the weights in {bundle.directory} do not fit its {CONFIG}: {error}") from None
    return policy.to(device).eval()


def _tensors(bundle: Bundle) -> dict[str, Tensor]:
    path, expected = bundle.directory / WEIGHTS, getattr(torch, bundle.config.dtype)
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is damaged: {error}") from None
    strange = {str(tensor.dtype) for tensor in tensors.values() if tensor.is_floating_point()} - {str(expected)}
    if strange:
        raise CheckpointError(f"{path} holds {sorted(strange)} where {CONFIG} says {bundle.config.dtype}")
    return {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}


def _normalizer_state(bundle: Bundle, policy: LFMPolicy) -> dict[str, Tensor]:
    state = {}
    for name in NORMALIZERS:
        affine: Affine = getattr(bundle.normalizer, name)
        module = f"{name}_normalizer"
        shape = getattr(policy, module).scale.shape
        state |= {f"{module}.{key}": torch.tensor(getattr(affine, key)).view(shape) for key in ("scale", "offset")}
        state[f"{module}.fitted"] = torch.tensor(True)
    return state
