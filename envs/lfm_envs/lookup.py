"""Objects by their address, "package.module:name", as command lines and contracts write it."""

import importlib
import os
import sys
from typing import Any

from lfm_policy.errors import ConfigError, nearest


def is_address(text: str) -> bool:
    """Tell whether `text` has the form "package.module:name"."""
    module, colon, name = text.partition(":")
    return bool(colon) and name.isidentifier() and all(part.isidentifier() for part in module.split("."))


def load_object(address: str) -> Any:
    """Import what `address` names; modules of the working directory are found too.

    Raises:
        ConfigError: there is no such module or no such name in it (names the nearest one).
    """
    module_name, _, name = address.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # last, so that nothing installed is hidden
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(f"'{address}' cannot be imported: {error}") from error
    if not hasattr(module, name):
        public = [entry for entry in vars(module) if not entry.startswith("_")]
        raise ConfigError(f"module '{module_name}' has no '{name}': {nearest(name, public)}")
    return getattr(module, name)
