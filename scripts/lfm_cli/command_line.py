"""The edge of every script: Hydra composes YAML with the overrides given, pydantic types it, errors are kind."""

import os
import sys
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lfm_config import PRESETS as CONFIG
from lfm_policy.errors import ConfigError, LFMError, nearest
from lfm_policy.locks import owned
from lfm_policy.settings import Frozen, parse

Settings = TypeVar("Settings", bound=Frozen)


def run(config: str, model: type[Settings], main: Callable[[Settings], Any], doc: str | None) -> None:
    """Run `main` with the settings of config/<config>.yaml and the `key=value` overrides in sys.argv.

    Exits with 0; with 2 and one clear message when the input is at fault; with 130 when interrupted.
    """
    overrides = sys.argv[1:]
    if any(flag in overrides for flag in ("-h", "--help")):
        print(f"{(doc or '').strip()}\n\nSettings, given as key=value (config/{config}.yaml):\n")
        print((CONFIG / f"{config}.yaml").read_text())
        return
    try:
        settings = load(config, model, overrides)
        with _folder(settings):
            main(settings)
    except LFMError as error:
        sys.exit(_fail(error))
    except KeyboardInterrupt:
        print("\ninterrupted: run the same command again to continue", file=sys.stderr)
        sys.exit(130)


def _folder(settings: Frozen) -> AbstractContextManager[None]:
    """Own the folder that a command writes to; a command that finds it out by itself owns it then.

    Of the processes of torchrun, the first one writes.
    """
    out = getattr(settings, "out", None)
    return nullcontext() if out is None or os.environ.get("RANK", "0") != "0" else owned(out)


def load(config: str, model: type[Settings], overrides: list[str]) -> Settings:
    """Compose and validate without running anything.

    Raises:
        ConfigError: an override cannot be parsed, names no setting, or has a bad value.
    """
    for override in overrides:
        if "=" not in override:
            raise ConfigError(f"expected key=value, found '{override}' (try --help)")
    try:
        with initialize_config_dir(str(CONFIG), version_base="1.3"):
            groups = _groups(config)
            choices = [override for override in overrides if _chooses(groups, override)]
            _require_known(compose(config, choices), set(overrides) - set(choices), groups)
            composed = compose(config, overrides)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(str(error.__cause__ or error)) from None
    missing = sorted(OmegaConf.missing_keys(composed))
    if missing:
        raise ConfigError("missing: " + ", ".join(f"{key}=VALUE" for key in missing) + " (try --help)")
    values = OmegaConf.to_container(composed, resolve=True)
    assert isinstance(values, dict)
    return parse(model, {str(key): value for key, value in values.items()}, f"config/{config}.yaml")


def _groups(config: str) -> list[str]:
    """The groups that config/<config>.yaml chooses from."""
    values: Any = OmegaConf.to_container(OmegaConf.load(CONFIG / f"{config}.yaml"))
    entries = [entry for entry in values.get("defaults", []) if isinstance(entry, dict)]
    return [group.removeprefix("optional ") for entry in entries for group in entry]


def _chooses(groups: list[str], override: str) -> bool:
    """Whether an override chooses from a group; otherwise it sets a value.

    Raises:
        ConfigError: the group has no such file.
    """
    name, choice = override.split("=", 1)
    if name not in groups:
        return False
    choices = [str(file.relative_to(CONFIG / name).with_suffix("")) for file in (CONFIG / name).rglob("*.yaml")]
    if choice not in choices:
        raise ConfigError(f"there is no {name}={choice}: {nearest(choice, choices)}")
    return True


def _require_known(composed: DictConfig, overrides: Iterable[str], groups: list[str]) -> None:
    """Name the nearest key for a misspelt one; Hydra's own message lists none. A leading + adds a key on purpose."""
    for override in overrides:
        key = override.split("=", 1)[0].lstrip("~")
        node: Any = composed
        for part in [] if key.startswith("+") else key.split("."):
            if not isinstance(node, DictConfig):
                break
            names = [str(name) for name in node.keys()]  # noqa: SIM118 (iteration skips missing values)
            if part not in names:
                more = groups if node is composed else []
                raise ConfigError(f"unknown setting '{key}': {nearest(part, names + more)}")
            node = node._get_node(part)


def _fail(error: LFMError) -> int:
    print(f"error: {error}", file=sys.stderr)
    return 2
