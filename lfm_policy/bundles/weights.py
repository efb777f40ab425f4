"""A torch policy's weights to a bundle and back."""

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from lfm_policy.bundles.bundle import CONFIG, WEIGHTS, Affine, Bundle, BundleConfig, Dtype, Normalizer
from lfm_policy.errors import CheckpointError, ConfigError, ContractError
from lfm_policy.models.density import FlowModel
from lfm_policy.models.policy import LFMPolicy
from lfm_policy.models.pretrained import Weights, checkpoint_in, read_small, read_tensors

NORMALIZERS = ("observation", "action")
PREFIX = "chain."


def config_of(policy: LFMPolicy, dtype: Dtype, nfe: int) -> BundleConfig:
    """What config.json says of a policy, with the solver it has now."""
    chain = policy.spec.chain.model_copy(update={"solver": policy.chain.solver})
    return BundleConfig(dtype=dtype, nfe=nfe, policy=policy.spec.model_copy(update={"chain": chain}))


def normalizer_of(policy: LFMPolicy) -> Normalizer:
    """Both normalisers as numbers; float32 values survive JSON exactly."""
    affine = {}
    for name in NORMALIZERS:
        module = getattr(policy.encoding, f"{name}_normalizer")
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
    config = read_small(checkpoint_in(directory) / CONFIG)
    density = isinstance(config, dict) and str(config.get("format")).startswith("lfm-flow/")
    model = FlowModel if density else LFMPolicy
    return model.from_pretrained(directory, weights=weights, device=device, trust_code=trust_code)


def restore(bundle: Bundle, device: torch.device | str = "cpu", trust_code: bool = False) -> LFMPolicy:
    """Restore the policy of a bundle, in float32 and evaluation mode.

    Raises:
        CheckpointError: specification and weights do not fit each other, or hold what is unknown.
    """
    tensors = _tensors(bundle) | _normalizer_state(bundle)
    parts, where = (bundle.config.policy, bundle.contract), str(bundle.directory)
    try:
        return LFMPolicy.restored(parts, tensors, where, trust_code=trust_code).to(device)
    except (ConfigError, ContractError) as error:
        raise CheckpointError(f"{bundle.directory / CONFIG} describes no policy that can be built: {error}") from None


def _tensors(bundle: Bundle) -> dict[str, Tensor]:
    path, expected = bundle.directory / WEIGHTS, getattr(torch, bundle.config.dtype)
    tensors = read_tensors(path)
    strange = {str(tensor.dtype) for tensor in tensors.values() if tensor.is_floating_point()} - {str(expected)}
    if strange:
        raise CheckpointError(f"{path} holds {sorted(strange)} where {CONFIG} says {bundle.config.dtype}")
    return {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}


def _normalizer_state(bundle: Bundle) -> dict[str, Tensor]:
    state = {}
    for name in NORMALIZERS:
        affine: Affine = getattr(bundle.normalizer, name)
        width = bundle.contract.action_dim if name == "action" else bundle.contract.observation_dim
        steps = (-1,) if name == "action" and bundle.config.policy.anchored else ()
        for key in ("scale", "offset"):
            state[f"{name}_normalizer.{key}"] = torch.tensor(getattr(affine, key)).view(*steps, width)
        state[f"{name}_normalizer.fitted"] = torch.tensor(True)
    return state
