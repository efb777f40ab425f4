"""What a server serves: a bundle, a checkpoint, or a stand-in that needs no model."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from lfm_policy.choices import Arithmetic, Place, PolicyChoice, Sampling
from lfm_policy.contract import Contract
from lfm_policy.errors import ConfigError
from lfm_policy.protocols import ChunkPolicy
from lfm_policy.server.limits import ServerOptions
from lfm_policy.server.stand_ins import ReplayPolicy, ZeroPolicy, read_contract

REPLAY, ZERO = "replay:", "zero"


class ServeSettings(ServerOptions, Arithmetic, Sampling, PolicyChoice):
    """What is served, to whom; `policy` may also be replay:DATA.zarr, or zero."""

    threads: int = Field(default=1, ge=1, description="CPU threads of one policy call")
    contract: Place | None = Field(
        default=None, description="contract.json of the robot, or a directory that holds one; another policy is refused"
    )
    episode: int = Field(default=0, ge=0, description="of replay: the episode to repeat")
    horizon: int = Field(default=16, ge=1, description="of replay and zero: actions in a chunk")
    observation_steps: int = Field(default=2, ge=1, description="of replay and zero: observations in the history")
    action_steps: int = Field(default=8, ge=1, description="of replay and zero: actions executed of a chunk")
    out: Place | None = Field(default=None, description="folder for summary.json, written when the server stops")


@dataclass(frozen=True)
class Served:
    """A policy ready to serve."""

    policy: ChunkPolicy
    name: str
    """What clients and messages call it."""
    digest: str
    """Hash of all that decides its chunks; a client that reconnects asks for the same."""


Opener = Callable[..., ChunkPolicy]
"""`open_policy`, given from above, since it opens policies behind servers too."""


def load(settings: ServeSettings, opener: Opener) -> Served:
    """Load what is to be served.

    Args:
        settings: what to serve.
        opener: opens it, unless it is a stand-in.

    Raises:
        CheckpointError, DataError, ConfigError: it cannot be loaded, or the settings do not fit it.
        ContractError: the policy's contract is not the one of `settings.contract`.
    """
    expected = read_contract(settings.contract) if settings.contract else None
    served = _stand_in(settings, expected) or _model(settings, opener)
    if expected is not None:
        served.policy.contract.require_match(expected, f"policy {served.name}", str(settings.contract))
    return served


def metadata(served: Served, options: ServerOptions, max_message_bytes: int) -> dict[str, Any]:
    """Return the first frame that a client gets."""
    policy = served.policy
    limits = options.model_dump(include={"max_batch", "rate_hz", "idle_s", "ping_s"})
    return {
        "server": "lfm-policy",
        "version": version("lfm-policy"),
        "policy": served.name,
        "digest": served.digest,
        "observation_steps": policy.observation_steps,
        "action_steps": policy.action_steps,
        "action_horizon": policy.noise_shape[0] - policy.observation_steps + 1,
        "noise_shape": list(policy.noise_shape),
        "limits": limits | {"max_message_bytes": max_message_bytes},
        "contract": policy.contract.model_dump(mode="json"),
    }


def _stand_in(settings: ServeSettings, expected: Contract | None) -> Served | None:
    chunk = settings.horizon, settings.observation_steps, settings.action_steps
    if settings.policy == ZERO:
        if expected is None:
            raise ConfigError("zero needs a robot's contract: contract=FILE, for example a bundle's contract.json")
        return Served(ZeroPolicy(expected, *chunk), ZERO, ZERO)
    if settings.policy.startswith(REPLAY):
        replay = ReplayPolicy.open(settings.policy.removeprefix(REPLAY), settings.episode, *chunk)
        return Served(replay, f"{settings.policy} episode {settings.episode}", replay.digest())
    return None


def _model(settings: ServeSettings, opener: Opener) -> Served:
    policy = opener(
        settings.policy,
        runtime="auto",
        weights=settings.weights,
        precision=settings.precision,
        sampling=settings.sampling,
        threads=settings.threads,
        trust_code=settings.trust_code,
    )
    warm_up(policy)
    return Served(policy, Path(settings.policy).resolve().name, policy.digest())  # pyright: ignore[reportAttributeAccessIssue]


def warm_up(policy: ChunkPolicy) -> None:
    """Ask for a chunk before a robot waits for one: the first call after an installation compiles."""
    history = np.zeros((1, policy.observation_steps, policy.contract.observation_dim), np.float32)
    shape = policy.contract.frames_shape
    frames = () if shape is None else (np.zeros((1, *shape), np.uint8),)
    policy.predict(history, np.zeros((1, *policy.noise_shape), np.float32), *frames)
