"""The tensors of a bundle, as a policy's state."""

import torch
from torch import Tensor

from lfm_policy.errors import CheckpointError
from lfm_policy.models.bundle import CONFIG, WEIGHTS, Affine, Bundle
from lfm_policy.models.pretrained import read_tensors

_NORMALIZERS = ("observation", "action")


def bundle_tensors(bundle: Bundle) -> dict[str, Tensor]:
    """Read a bundle's weights, in float32 whatever they are stored in, and its normalisers.

    Raises:
        CheckpointError: the weights are damaged, or in another number format than config.json says.
    """
    return _tensors(bundle) | _normalizer_state(bundle)


def _tensors(bundle: Bundle) -> dict[str, Tensor]:
    path, expected = bundle.directory / WEIGHTS, getattr(torch, bundle.config.dtype)
    tensors = read_tensors(path)
    strange = {str(tensor.dtype) for tensor in tensors.values() if tensor.is_floating_point()} - {str(expected)}
    if strange:
        raise CheckpointError(f"{path} holds {sorted(strange)} where {CONFIG} says {bundle.config.dtype}: export again")
    return {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}


def _normalizer_state(bundle: Bundle) -> dict[str, Tensor]:
    state = {}
    for name in _NORMALIZERS:
        affine: Affine = getattr(bundle.normalizer, name)
        width = bundle.contract.action_dim if name == "action" else bundle.contract.observation_dim
        steps = (-1,) if name == "action" and bundle.config.policy.anchored else ()
        for key in ("scale", "offset"):
            state[f"{name}_normalizer.{key}"] = torch.tensor(getattr(affine, key)).view(*steps, width)
        state[f"{name}_normalizer.fitted"] = torch.tensor(True)
    return state
