"""An environment of Gymnasium behind the runner's `Environment` protocol, described by a small file.

    id: gym_pusht/PushT-v0
    options: {obs_type: state}
    observations: {agent_pos: 2, block_pos: 2, block_angle: 1}
    actions: [{name: x, unit: px}, {name: y, unit: px}]
    space: position
    control_hz: 10
    success: reward >= 0.95

Needs the extra `gym`. The contract holds what the file says: the numbers as such and the rest in `made_by`, so that a
checkpoint knows what it was trained for without the file.
"""

import importlib
import json
import re
from collections.abc import Mapping
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl, quote, urlencode

import numpy as np
from pydantic import Field, StringConstraints, field_validator

from lfm_policy.contract import ActionNumber, Contract, ObservationKey, Score, Space
from lfm_policy.errors import ConfigError, RolloutError, nearest
from lfm_policy.protocols import Observation, StepResult
from lfm_policy.settings import Frozen, parse

SUITE = "gymnasium"
"""Suite of the contracts that are made here."""
ONLY = "observation"
"""Name of an observation that is one vector and is given no names."""
_RULE = re.compile(r"reward\s*>=\s*(-?[0-9.]+(?:e-?[0-9]+)?)")

Success = Annotated[str, StringConstraints(pattern=r"^(is_success|terminated|reward\s*>=\s*-?[0-9.]+(e-?[0-9]+)?)$")]


class Description(Frozen):
    """What an environment of Gymnasium is, in a file of this form; only `id` is always needed.

    Flat observations are cut into `observations` in their order; of a dictionary, entries of those names are taken.
    """

    id: str
    """As `gymnasium.make` takes it; a namespace that is a module ("gym_pusht/PushT-v0") is imported first."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of `gymnasium.make`."""
    observations: dict[str, int] | None = None
    """Name and width of each part of the observation."""
    actions: tuple[ActionNumber, ...] = ()
    """Names and units of the numbers of an action; a name alone stands for one without a unit."""
    space: Space = "vector"
    """What the actions are: position (of one point), joints or vector."""
    action_form: Literal["absolute", "delta"] = "absolute"
    """absolute: repeating an action holds still; delta (displacements, velocities, torques): zeros do."""
    measured: str | None = None
    """The observation that measures what the action commands."""
    control_hz: float | None = Field(default=None, gt=0, le=10_000, allow_inf_nan=False)
    """Steps per second; null: as the environment's metadata say."""
    success: Success = "is_success"
    """is_success: as `info` says; terminated; or "reward >= x"."""
    score: Score | None = None
    """The reward that the task is judged by, beside success."""
    horizon: int | None = Field(default=None, ge=1)
    """Steps after which an episode counts as failed; null: where Gymnasium truncates it."""
    robots: tuple[str, ...] = ()

    @field_validator("actions", mode="before")
    @classmethod
    def _names(cls, values: Any) -> Any:
        return [{"name": value} if isinstance(value, str) else value for value in values]

    def make(self, **options: Any) -> "GymnasiumEnvironment":
        """Build the environment; `options` take precedence over those of the description."""
        return GymnasiumEnvironment(self.model_copy(update={"options": {**self.options, **options}}))

    @property
    def address(self) -> str:
        """What a contract does not say of this environment, and where it is, in one line; `describe` reads it."""
        said = {
            "success": self.success,
            "horizon": self.horizon,
            **{f"options.{k}": v for k, v in self.options.items()},
        }
        rules = {name: json.dumps(value) for name, value in said.items() if value not in (None, "is_success")}
        return f"gym:{self.id}" + (f"?{urlencode(rules, quote_via=quote, safe='/>=:')}" if rules else "")


def describe(name: str, contract: Contract | None = None) -> Description:
    """Read a description from a file, or from an address "gym:ID" and the contract that goes with it.

    Raises:
        ConfigError: the file or the address cannot be read, or does not describe an environment.
    """
    if not name.startswith("gym:"):
        return parse(Description, _read(Path(name)), name)
    identity, _, query = name.removeprefix("gym:").partition("?")
    values: dict[str, Any] = {"id": identity, "options": {}}
    for key, text in parse_qsl(query):
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        if key.startswith("options."):
            values["options"][key.removeprefix("options.")] = value
        else:
            values[key] = value
    if contract is not None:
        values |= {
            "observations": {entry.name: entry.dim for entry in contract.observations},
            **contract.model_dump(include={"space", "actions", "action_form", "control_hz", "robots"}),
            "measured": contract.measured,
            "score": contract.score,
        }
    return parse(Description, values, name)


class GymnasiumEnvironment:
    """One environment of Gymnasium. Implements `lfm_policy.protocols.Environment`.

    An episode that ends without success before the horizon stays as it is for the rest of its steps, with reward 0.

    Args:
        description: which one, and what its numbers mean.

    Raises:
        ConfigError: Gymnasium or the environment is not there, or its spaces are not those of the description.
    """

    def __init__(self, description: Description) -> None:
        self._description = description
        self._environment = _make(description)
        self.contract = self._contract()
        self.horizon = self._horizon()
        self._flat = not isinstance(_plain(self._environment.observation_space), dict)
        self._last: Observation = {}
        self._ended = False

    def reset(self, seed: int) -> Observation:
        """Start the episode of `seed`."""
        observation, _ = self._environment.reset(seed=seed)
        self._last, self._ended = self._named(observation), False
        return self._last

    def step(self, action: np.ndarray) -> StepResult:
        """Execute one action, in the environment's own units.

        Raises:
            RolloutError: the action has another shape or is not finite.
        """
        space = self._environment.action_space
        action = np.asarray(action, space.dtype)
        if action.shape != (self.contract.action_dim,) or not np.isfinite(action).all():
            raise RolloutError(
                f"{self._description.id}: expected an action of {self.contract.action_dim} finite numbers, got {action}"
            )
        if self._ended:
            return StepResult(self._last, 0.0, False)
        observation, reward, terminated, truncated, info = self._environment.step(action.reshape(space.shape))
        self._last, self._ended = self._named(observation), bool(terminated or truncated)
        return StepResult(self._last, float(reward), self._success(float(reward), bool(terminated), info))

    def render(self, width: int, height: int) -> np.ndarray:
        """Show the environment's picture, its nearest pixels taken: uint8 (height, width, 3).

        Raises:
            RolloutError: it has none.
        """
        if self._environment.render_mode != "rgb_array":
            raise RolloutError(f"{self._description.id} renders no rgb_array: turn video off")
        try:
            picture = np.asarray(self._environment.render())
        except Exception as error:  # a library of the environment's own is missing, or no display
            raise RolloutError(f"{self._description.id} does not render here: {error}") from error
        rows, columns = (np.arange(n) * size // n for n, size in zip((height, width), picture.shape, strict=False))
        return picture[rows][:, columns].astype(np.uint8)

    def close(self) -> None:
        """Release the environment."""
        self._environment.close()

    def _success(self, reward: float, terminated: bool, info: Mapping[str, Any]) -> bool:
        rule = self._description.success
        if rule == "terminated":
            return terminated
        if match := _RULE.fullmatch(rule):
            return reward >= float(match[1])
        if "is_success" not in info:
            raise RolloutError(
                f"{self._description.id}: info has no 'is_success', found {sorted(info)}: say in a file what counts as "
                "success (success: terminated, or success: reward >= x)"
            )
        return bool(info["is_success"])

    def _named(self, observation: Any) -> Observation:
        if self._flat:
            numbers = np.asarray(observation).ravel()
            return {name: numbers[columns] for name, columns in self.contract.columns.items()}
        return {entry.name: np.asarray(observation[entry.name]).ravel() for entry in self.contract.observations}

    def _contract(self) -> Contract:
        given, spec = self._description, self._environment.spec
        space = self._environment.action_space
        if not hasattr(space, "low"):
            raise ConfigError(f"{given.id}: expected actions in a Box of numbers, found {space}")
        rate = given.control_hz or self._environment.metadata.get("render_fps")
        if rate is None:
            raise ConfigError(f"{given.id} does not say how many steps per second it takes: give control_hz in a file")
        module = str(spec.entry_point).partition(":")[0].partition(".")[0]
        distribution = packages_distributions().get(module, [SUITE])[0]
        return parse(
            Contract,
            {
                "suite": SUITE,
                "suite_version": f"{distribution} {version(distribution)}",
                "environment": given.id,
                "control_hz": rate,
                "action_dim": int(np.prod(space.shape)),
                "observations": self._keys(),
                "made_by": given.address,
                **given.model_dump(include={"robots", "space", "action_form", "actions", "measured", "score"}),
            },
            f"the description of {given.id}",
        )

    def _keys(self) -> list[dict[str, Any]]:
        """Match the description's observations with those of the environment."""
        given, found = self._description.observations, _plain(self._environment.observation_space)
        if given is None:
            given = found if isinstance(found, dict) else {ONLY: found}
        if isinstance(found, dict):
            for name, dim in given.items():
                if found.get(name) != dim:
                    known = ", ".join(f"{key} {width}" for key, width in found.items())
                    hint = nearest(name, found) if name not in found else f"it has {found[name]} numbers"
                    raise ConfigError(f"{self._description.id} observes {known}, expected '{name}' of {dim}: {hint}")
        elif sum(given.values()) != found:
            raise ConfigError(
                f"{self._description.id} observes {found} numbers, expected {sum(given.values())}: {given}"
            )
        return [ObservationKey(name=name, dim=dim).model_dump() for name, dim in given.items()]

    def _horizon(self) -> int:
        limit = self._environment.spec.max_episode_steps
        horizon = self._description.horizon or limit
        if horizon is None:
            raise ConfigError(f"{self._description.id} has no end: give horizon in a file")
        return min(horizon, limit or horizon)


def _plain(space: Any) -> Any:
    """Return the widths of a space of observations: a number, or numbers by name."""
    if hasattr(space, "spaces") and isinstance(space.spaces, Mapping):
        return {name: int(np.prod(part.shape)) for name, part in space.spaces.items() if hasattr(part, "low")}
    if not hasattr(space, "low"):
        raise ConfigError(f"expected observations in a Box or a Dict of them, found {space}")
    return int(np.prod(space.shape))


def _make(description: Description) -> Any:
    try:
        import gymnasium
    except ModuleNotFoundError:
        raise ConfigError(f"{description.id} needs Gymnasium: pip install 'lfm-policy[gym]'") from None
    module, colon, identity = description.id.rpartition(":")
    namespace = module if colon else identity.partition("/")[0]
    if identity not in gymnasium.registry and (colon or "/" in identity):
        try:
            importlib.import_module(namespace)
        except ImportError as error:
            raise ConfigError(f"{description.id}: its module '{namespace}' cannot be imported: {error}") from error
    if identity not in gymnasium.registry:
        raise ConfigError(f"Gymnasium knows no '{identity}': {nearest(identity, gymnasium.registry)}")
    try:
        modes = gymnasium.make(identity, **description.options).metadata.get("render_modes", ())
    except Exception as error:  # whatever the environment's constructor raises
        raise ConfigError(f"{description.id} cannot be made with {description.options}: {error}") from error
    picture = {"render_mode": "rgb_array"} if "rgb_array" in modes else {}
    return gymnasium.make(identity, **{**picture, **description.options})


def _read(path: Path) -> Mapping[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from error
    try:
        if path.suffix == ".json":
            values = json.loads(text)
        else:
            import yaml

            values = yaml.safe_load(text)
    except ModuleNotFoundError:
        raise ConfigError(f"{path}: YAML needs PyYAML (in lfm-policy[train]); JSON does not") from None
    except Exception as error:  # either parser's own errors
        raise ConfigError(f"{path} cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected the description of an environment, found {type(values).__name__}")
    return values
