"""Velocity networks v(x, t, cond); every block of a chain is one of them."""

import importlib
from collections.abc import Mapping
from typing import Any

from torch import nn

from lfm_policy.errors import ConfigError, nearest
from lfm_policy.networks.grid import VelocityGrid
from lfm_policy.networks.mlp import VelocityMlp
from lfm_policy.networks.shared import SharedBlocks
from lfm_policy.networks.unet1d import ConditionalUnet1d

__all__ = ["ConditionalUnet1d", "SharedBlocks", "VelocityGrid", "VelocityMlp", "build", "build_blocks", "require_own"]


def build_blocks(
    spec: Mapping[str, Any], blocks: int, *, share: bool = False, own_only: bool = False, **sizes: int
) -> nn.ModuleList:
    """Build a chain's `blocks` networks: one each, or a single one that also takes the block's index. See `build`."""
    if share:
        sizes["cond_dim"] = sizes.get("cond_dim", 0) + blocks
        return SharedBlocks(build(spec, own_only=own_only, **sizes), blocks)
    return nn.ModuleList(build(spec, own_only=own_only, **sizes) for _ in range(blocks))


def build(spec: Mapping[str, Any], *, own_only: bool = False, **sizes: int) -> nn.Module:
    """Make the network that `spec` describes: `_target_` is its dotted class name, the other entries its arguments.

    Args:
        spec: plain values, as they stand in a configuration or a checkpoint.
        own_only: refuse classes from outside this package (a checkpoint may come from anywhere).
        sizes: arguments that the data decides, such as action_dim and cond_dim.

    Raises:
        ConfigError: there is no such class, it is no module, it refuses the arguments, or it may not be loaded.
    """
    arguments = {key: value for key, value in spec.items() if key != "_target_"}
    if "_target_" not in spec:
        raise ConfigError(f"expected network._target_, the dotted name of a class, beside {arguments}")
    target = str(spec["_target_"])
    module_name, _, class_name = target.rpartition(".")
    if own_only:
        require_own(spec)
    try:
        module = importlib.import_module(module_name)
    except (ImportError, ValueError) as error:
        raise ConfigError(f"network._target_ '{target}' cannot be imported: {error}") from None
    classes = {name: value for name, value in vars(module).items() if isinstance(value, type)}
    modules = {name: value for name, value in classes.items() if issubclass(value, nn.Module)}
    if class_name not in modules:
        raise ConfigError(f"network._target_ '{target}' is no torch module: {nearest(class_name, modules)}")
    try:
        return modules[class_name](**arguments, **sizes)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"network {target} refuses {arguments}: {error}") from None


def require_own(spec: Mapping[str, Any]) -> None:
    """Raise ConfigError if the network that `spec` describes is code from outside this package."""
    target = str(spec.get("_target_", ""))
    if not target.startswith("lfm_policy."):
        raise ConfigError(
            f"the network '{target}' is code from outside this package: say trust_code=true "
            "(trust_code=True in Python) if you know where the checkpoint comes from"
        )
