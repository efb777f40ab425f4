"""Larger networks that begin where a smaller one ended (Net2WiderNet, Chen et al. 2016)."""

import inspect
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lfm_policy.errors import ConfigError


def grown(spec: Mapping[str, Any], network: nn.Module, times: int) -> dict[str, Any]:
    """Return the description of the same network with about `times` the parameters: its widths times the root of it.

    Args:
        spec: `_target_` and arguments, as for `networks.build`.
        network: one that was built from it.
        times: how many times the parameters.

    Raises:
        ConfigError: the network has neither `dims` nor `width`.
    """
    parameters = inspect.signature(type(network)).parameters
    given = {name: parameter.default for name, parameter in parameters.items()} | dict(spec)
    multiple = given.get("groups", 1)

    def wider(width: int) -> int:
        return max(1, round(math.sqrt(times) * width / multiple)) * multiple

    if "dims" in parameters:
        return {**spec, "dims": [wider(width) for width in given["dims"]]}
    if "width" in parameters:
        return {**spec, "width": wider(given["width"])}
    raise ConfigError(f"{spec.get('_target_')} has neither dims nor width to grow: keep its size with grow=false")


@torch.no_grad()
def inherit(source: nn.Module, into: nn.Module, noise: float = 0.02) -> None:
    """Begin from the weights of a network like `into` with at most its widths: the same function, up to the noise.

    Channels are repeated, and what reads them divides its weights by how often. The same function is kept exactly
    where widths are whole multiples; otherwise the statistics of group normalisation shift a little. What has no
    counterpart keeps its own weights.

    Args:
        source: the smaller network.
        into: changed in place.
        noise: of repeated weights, times their standard deviation; without it the copies would never part.
    """
    theirs = source.state_dict()
    for name, module in into.named_modules():
        read_along = 0 if isinstance(module, nn.ConvTranspose1d) else 1
        for key, value in module.state_dict().items():
            counterpart = theirs.get(f"{name}.{key}" if name else key)
            if "." not in key and counterpart is not None and _fits(counterpart, value):
                value.copy_(_stretched(counterpart, value.shape, read_along, noise))


def _fits(small: Tensor, large: Tensor) -> bool:
    return small.ndim == large.ndim and all(a <= b for a, b in zip(small.shape, large.shape, strict=True))


def _stretched(tensor: Tensor, shape: torch.Size, read_along: int, noise: float) -> Tensor:
    if tensor.shape == shape:
        return tensor
    result = tensor
    for axis, size in enumerate(shape):
        index = torch.arange(size, device=tensor.device) * tensor.shape[axis] // size
        result = result.index_select(axis, index)
        if axis == read_along and tensor.ndim > 1:
            often = torch.bincount(index, minlength=tensor.shape[axis])[index]
            result = result / often.view([-1 if k == axis else 1 for k in range(tensor.ndim)])
    return result + noise * result.std() * torch.randn_like(result)
