"""The edge of every script: Hydra composes YAML with the overrides given, pydantic types it, errors are kind."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lfm_policy.errors import ConfigError, LFMError, nearest
from lfm_policy.settings import Frozen, parse

CONFIG = Path(__file__).resolve().parent.parent / "config"

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
        main(load(config, model, overrides))
    except LFMError as error:
        sys.exit(_fail(error))
    except KeyboardInterrupt:
        print("\ninterrupted: run the same command again to continue", file=sys.stderr)
        sys.exit(130)


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
            _known_keys(config, overrides)
            composed = OmegaConf.to_container(compose(config, overrides), resolve=True)
    except (HydraException, OmegaConfBaseException) as error:
        cause = error.__cause__ or error
        raise ConfigError(f"{error}\n{cause}".strip() if cause is not error else str(error)) from None
    assert isinstance(composed, dict)
    return parse(model, {str(key): value for key, value in composed.items()}, f"config/{config}.yaml")


def _known_keys(config: str, overrides: list[str]) -> None:
    """Name the nearest key for a misspelt top-level override; Hydra's own message lists none."""
    known = set(compose(config)) | {group.name for group in CONFIG.iterdir() if group.is_dir()}
    for override in overrides:
        key = override.split("=", 1)[0].lstrip("+~")
        if key.split(".")[0].split("@")[0].split("/")[0] not in known:
            raise ConfigError(f"unknown setting '{key}': {nearest(key, known)}")


def _fail(error: LFMError) -> int:
    print(f"error: {error}", file=sys.stderr)
    return 2
