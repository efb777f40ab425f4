"""Policies without a model, to bring up a robot: one that asks for no motion, one that repeats a demonstration."""

import hashlib
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from lfm_policy.actions.motion import rest_actions
from lfm_policy.contract import Contract
from lfm_policy.errors import ConfigError
from lfm_policy.protocols import ChunkBatch


class ZeroPolicy:
    """Asks for no motion: the poses or numbers that were last observed, grippers of poses open; or else zeros.

    Args:
        contract: of the robot.
        horizon: T.
        observation_steps: To.
        action_steps: Ta.
    """

    def __init__(
        self, contract: Contract, horizon: int = 16, observation_steps: int = 2, action_steps: int = 8
    ) -> None:
        _require_horizons(horizon, observation_steps, action_steps)
        self.contract, self.observation_steps, self.action_steps = contract, observation_steps, action_steps
        self.noise_shape = (horizon, contract.action_dim)

    def predict(self, histories: np.ndarray, noise: np.ndarray, frames: np.ndarray | None = None) -> ChunkBatch:
        """Predict as a `ChunkPolicy`; noise and pictures are not used."""
        resting = rest_actions(self.contract, histories[:, -1])
        actions = np.zeros((len(histories), self.contract.action_dim)) if resting is None else resting
        return ChunkBatch(np.repeat(actions[:, None].astype(np.float32), self.noise_shape[0], axis=1), nfe=0)


class ReplayPolicy:
    """Repeats one recorded episode: the actions around the recorded observation that is nearest to the latest one.

    It keeps no step counter, so it follows the robot: where the robot lags behind the recording, so does the replay.

    Args:
        contract: what the episode's numbers mean.
        observation: float32 (L, observation_dim).
        action: float32 (L, action_dim).
        horizon: T.
        observation_steps: To.
        action_steps: Ta.
    """

    def __init__(
        self,
        contract: Contract,
        observation: np.ndarray,
        action: np.ndarray,
        horizon: int = 16,
        observation_steps: int = 2,
        action_steps: int = 8,
    ) -> None:
        _require_horizons(horizon, observation_steps, action_steps)
        self.contract, self.observation_steps, self.action_steps = contract, observation_steps, action_steps
        self.noise_shape = (horizon, contract.action_dim)
        steps = np.arange(len(action))[:, None]
        coming = np.clip(steps + np.arange(horizon) + 1 - observation_steps, 0, len(action) - 1)
        spread = observation.std(axis=0)
        self._scale = 1 / np.where(spread > 1e-6, spread, 1)
        self._observations, self._chunks = observation * self._scale, action[coming]

    @classmethod
    def open(cls, path: str | Path, episode: int, *horizons: int) -> "ReplayPolicy":
        """Read an episode of a prepared data set (lfm prepare).

        Raises:
            DataError: the data set cannot be read.
            ConfigError: it has no such episode, or zarr is not installed.
        """
        try:
            from lfm_policy.data.windows.store import open_store
        except ModuleNotFoundError as error:  # a robot needs zarr for nothing else
            raise ConfigError(f"replaying a data set needs {error.name}: pip install {error.name}") from None
        store = open_store(path)
        if not 0 <= episode < len(store):
            raise ConfigError(f"{path} has the episodes 0 to {len(store) - 1}, found episode {episode}")
        recorded = store.episode(episode)
        return cls(store.contract, recorded.observation, recorded.action, *horizons)

    def predict(self, histories: np.ndarray, noise: np.ndarray, frames: np.ndarray | None = None) -> ChunkBatch:
        """Predict as a `ChunkPolicy`; noise and pictures are not used."""
        gaps = histories[:, -1, None] * self._scale - self._observations
        nearest = np.square(gaps).sum(axis=2).argmin(axis=1)
        return ChunkBatch(self._chunks[nearest], nfe=0)

    def digest(self) -> str:
        """Hash of all that decides the chunks."""
        return hashlib.sha256(self._observations.tobytes() + self._chunks.tobytes()).hexdigest()[:16]


def read_contract(path: Path) -> Contract:
    """Read contract.json, given it, or a bundle, a checkpoint or a run that holds one.

    Raises:
        ConfigError: there is none, or it cannot be read.
    """
    candidates = (path, path / "contract.json", path / "checkpoint" / "contract.json")
    for candidate in candidates:
        if candidate.is_file():
            try:
                return Contract.model_validate_json(candidate.read_bytes())
            except ValidationError as error:
                raise ConfigError(f"{candidate} is not a contract: {error.errors()[0]['msg']}") from None
    raise ConfigError(f"no contract in {path}: expected a contract.json, or a directory that holds one")


def _require_horizons(horizon: int, observation_steps: int, action_steps: int) -> None:
    if observation_steps - 1 + action_steps > horizon:
        raise ConfigError(
            f"{action_steps} actions from index {observation_steps - 1} on do not fit a chunk of {horizon}: "
            "expected horizon >= observation_steps - 1 + action_steps"
        )
