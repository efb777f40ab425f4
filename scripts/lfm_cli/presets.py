"""The presets of `lfm train`: an experiment, the size of its networks and training, and a method.

Each is a YAML file in lfm_config. Experiments may build on recipes, which Hydra composes; over an experiment comes what
`size/<kind of its data>.yaml` says of the size, then the method.
"""

from fnmatch import fnmatchcase
from typing import Any

from pydantic import Field, field_validator

from lfm_cli.arguments import over
from lfm_config import PRESETS
from lfm_policy.choices import Size
from lfm_policy.errors import nearest
from lfm_policy.settings import Frozen


def names_in(group: str) -> list[str]:
    """List the presets of a group."""
    files = (PRESETS / group).rglob("*.yaml")
    return sorted(file.relative_to(PRESETS / group).with_suffix("").as_posix() for file in files)


class TrainPresets(Frozen):
    """What a training is composed from."""

    experiment: str = Field(default="robot/lift", description="rows of the paper's tables, and others like them")
    size: Size = Field(default="paper", description="how large the networks, how long the training; small: a CPU")
    method: str = Field(
        default="lfm",
        description="lfm; shared: one network for all its blocks; fm: one global flow; interflow: one, trigonometric; "
        "regression: the mean chunk; mip: in two steps; shortcut: long steps; ddpm, ddim: Diffusion Policy",
    )

    @field_validator("experiment", "method")
    @classmethod
    def _there(cls, name: str, info: Any) -> str:
        known = names_in(info.field_name)
        if name not in known:
            raise ValueError(f"there is no {info.field_name}={name}: {nearest(name, known)}")
        return name

    @staticmethod
    def options(group: str) -> list[str]:
        """List what a preset chooses from, for the shell to complete."""
        return names_in(group) if group in ("experiment", "method") else []

    def values(self) -> dict[str, Any]:
        """Return the settings that the presets make together."""
        values = composed(f"experiment/{self.experiment}")
        size = dict(content(f"size/{values['data']['kind']}")[self.size])
        special = size.pop("experiments", {}).items()
        own = [layer for name, layer in special if fnmatchcase(self.experiment, name)]
        for layer in (size, *own, content(f"method/{self.method}")):
            values = over(values, layer, ("updates", "epochs"))
        return values


def content(name: str) -> dict[str, Any]:
    """Read the settings in one preset's file."""
    from omegaconf import OmegaConf

    values = OmegaConf.to_container(OmegaConf.load(PRESETS / f"{name}.yaml"))
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def composed(name: str) -> dict[str, Any]:
    """Return the settings of a preset and of those that it builds on."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    with initialize_config_dir(str(PRESETS), version_base="1.3"):
        values = OmegaConf.to_container(compose(name), resolve=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}
