"""What the runner asks of an environment and of a policy; nothing else is assumed about either."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from lfm_policy.contract import Contract

Observation = Mapping[str, np.ndarray]
"""Named raw observations; `Contract.flatten` turns one into a vector."""


@dataclass(frozen=True)
class StepResult:
    """Outcome of one control step."""

    observation: Observation
    reward: float
    success: bool
    """The task's success check holds after this step."""


@runtime_checkable
class Environment(Protocol):
    """One task, stepped at the contract's control rate."""

    @property
    def contract(self) -> Contract:
        """What this environment's actions and observations mean."""
        ...

    @property
    def horizon(self) -> int:
        """Steps after which an episode counts as failed."""
        ...

    def reset(self, seed: int) -> Observation:
        """Start the episode of `seed`: the same seed gives the same start, whatever happened before."""
        ...

    def step(self, action: np.ndarray) -> StepResult:
        """Execute one action of shape (contract.action_dim,) for one control period."""
        ...

    def render(self, width: int, height: int) -> np.ndarray:
        """Draw the current scene as uint8 (height, width, 3). Raises RolloutError where no renderer is available."""
        ...

    def close(self) -> None:
        """Release the simulator."""
        ...


@runtime_checkable
class SeeingEnvironment(Environment, Protocol):
    """An environment whose contract has cameras."""

    def look(self) -> Mapping[str, np.ndarray]:
        """Return what the cameras see now, by `Camera.key`: uint8 (height, width, 3). Drawn only when asked for."""
        ...


@runtime_checkable
class TellingEnvironment(Environment, Protocol):
    """An environment whose contract names modes."""

    def mode(self) -> str | None:
        """Tell which of them the episode has taken so far, or what else; None before there was a choice."""
        ...


@dataclass(frozen=True)
class ChunkBatch:
    """Predicted action chunks and what they cost."""

    actions: np.ndarray
    """(B, horizon, action_dim), in the contract's units, ready to execute."""
    nfe: int
    """Network evaluations spent on each chunk."""


@runtime_checkable
class ChunkPolicy(Protocol):
    """A policy as the runner sees it: stacked observation histories in, action chunks out."""

    @property
    def contract(self) -> Contract:
        """What its observations and actions mean."""
        ...

    @property
    def observation_steps(self) -> int:
        """To: observations in the history, the latest last."""
        ...

    @property
    def action_steps(self) -> int:
        """Ta: actions executed from each chunk."""
        ...

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """Shape of the noise of one chunk, (horizon, action_dim) for flows."""
        ...

    def predict(self, histories: np.ndarray, noise: np.ndarray, frames: np.ndarray | None = None) -> ChunkBatch:
        """Predict one chunk a history.

        Args:
            histories: float32 (B, To, observation_dim), raw units.
            noise: float32 (B, *noise_shape), standard normal; the chunk is a function of history, noise and frames.
            frames: uint8 (B, *contract.frames_shape), the cameras' pictures at the latest observations; given to
                policies whose contract has cameras, and to no others.
        """
        ...


@runtime_checkable
class WarmChunkPolicy(ChunkPolicy, Protocol):
    """A policy that can also continue the chunk which is being executed."""

    def resume(
        self, histories: np.ndarray, noise: np.ndarray, running: np.ndarray, frames: np.ndarray | None = None
    ) -> ChunkBatch:
        """Do as `predict`, from running chunks (B, T, action_dim) whose latest observations are in `histories`."""
        ...


@runtime_checkable
class PortablePolicy(ChunkPolicy, Protocol):
    """A policy that other processes may hold copies of, made by pickling it from one process to the next."""

    @property
    def portable(self) -> bool:
        """Whether a copy beside others gives the same chunks in the same time: no state, no GPU, one thread."""
        ...
