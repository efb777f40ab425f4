"""Diffusion Policy's training windows, as tensors: a batch is two indexing operations, no Python per sample.

A window is `horizon` (T) consecutive rows of one episode. Windows may start up to To - 1 rows before the episode and
end up to Ta - 1 rows after it; rows outside repeat the first or last row, and are not masked. With T = 16, To = 2,
Ta = 8 an episode of length L has L - 7 windows.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn import functional

from lfm_policy.data.windows.store import Split, Store
from lfm_policy.errors import DataError


@dataclass(frozen=True)
class WindowBatch:
    """A batch of windows in raw units."""

    observation: Float[Tensor, "B To D"]
    """The window's first To observations, the latest last."""
    action: Float[Tensor, "B T A"]
    """Its T actions; row To - 1 is the action taken at the latest observation."""
    newest: Int[Tensor, " B"]
    """Row of the latest observation in its split."""
    frames: UInt8[Tensor, "B K h w 3"] | None = None
    """The cameras' pictures at the latest observation, where they were asked for."""


@dataclass(frozen=True)
class Windows:
    """All windows of a set of episodes, on one device."""

    observation: Float[Tensor, "S D"]
    action: Float[Tensor, "S A"]
    rows: Int[Tensor, "W T"]
    """Row of `observation` and `action` at each place of each window."""
    observation_steps: int
    frames: UInt8[Tensor, "S K h w 3"] | None = None
    """Pictures of every row, in memory or a file that is mapped into it."""

    @classmethod
    def from_store(
        cls,
        store: Store,
        split: Split = "train",
        horizon: int = 16,
        observation_steps: int = 2,
        action_steps: int = 8,
        frames: Tensor | None = None,
    ) -> "Windows":
        """Read one split of a prepared data set into memory; pictures of it are given, from `read_frames`.

        Raises:
            DataError: the store is damaged or the split has no window.
        """
        index = WindowIndex.from_store(store, split, horizon, observation_steps, action_steps)
        observation, action, _ = (torch.from_numpy(array) for array in store.read(split))
        return cls(observation, action, index.rows(torch.arange(len(index))), observation_steps, frames)

    def __len__(self) -> int:
        return len(self.rows)

    def gather(self, index: Int[Tensor, " B"]) -> WindowBatch:
        """Return the windows at `index`, a batch on the device of the data."""
        rows = self.rows[index]
        # an embedding is a table's rows by index: twice as fast as self.action[rows] on CPUs
        observation = functional.embedding(rows[:, : self.observation_steps], self.observation)
        newest = rows[:, self.observation_steps - 1]
        return WindowBatch(observation, functional.embedding(rows, self.action), newest, pictures(self.frames, newest))

    def to(self, device: torch.device | str) -> "Windows":
        """Return the same windows, resident on `device`; pictures stay where they are."""
        return replace(
            self, observation=self.observation.to(device), action=self.action.to(device), rows=self.rows.to(device)
        )


def pictures(frames: Tensor | None, rows: Int[Tensor, " B"]) -> Tensor | None:
    """Return the pictures (B, K, H, W, 3) of some rows; None where there are none."""
    return None if frames is None else frames[rows.to(frames.device)]


@dataclass(frozen=True)
class WindowIndex:
    """Where every window lies, in order of episode and start: a few numbers per episode."""

    begin: Int[Tensor, " E"]
    """First row of each episode."""
    end: Int[Tensor, " E"]
    """The row after its last."""
    after: Int[Tensor, " E"]
    """Windows of this and all earlier episodes."""
    horizon: int
    observation_steps: int

    @classmethod
    def of(
        cls, episode_end: Int[Tensor, " E"], horizon: int, observation_steps: int, action_steps: int
    ) -> "WindowIndex":
        """Return the windows of episodes.

        Args:
            episode_end: for each episode, the row after its last one.
            horizon: T, rows of a window.
            observation_steps: To; windows start up to To - 1 rows early.
            action_steps: Ta; windows end up to Ta - 1 rows late.
        """
        if not (1 <= observation_steps <= horizon and 1 <= action_steps <= horizon - observation_steps + 1):
            raise DataError(
                "windows need 1 <= observation_steps and observation_steps + action_steps <= horizon + 1, found "
                f"horizon {horizon}, observation_steps {observation_steps}, action_steps {action_steps}"
            )
        begin = torch.cat([episode_end.new_zeros(1), episode_end[:-1]])
        count = (episode_end - begin - horizon + observation_steps + action_steps - 1).clamp(min=0)
        return cls(begin, episode_end, count.cumsum(0), horizon, observation_steps)

    @classmethod
    def from_store(
        cls, store: Store, split: Split, horizon: int, observation_steps: int, action_steps: int
    ) -> "WindowIndex":
        """Return the windows of one split. Raises DataError when it has none."""
        episode_end = torch.from_numpy(store.ends(split))
        index = cls.of(episode_end, horizon, observation_steps, action_steps)
        if len(index) == 0:
            steps = int(episode_end[-1]) if len(episode_end) else 0
            raise DataError(
                f"split '{split}' of {store.path} has no window: {len(episode_end)} episode(s), {steps} steps; "
                f"a window of horizon {horizon} needs an episode of at least "
                f"{horizon - observation_steps - action_steps + 2} steps"
            )
        return index

    def __len__(self) -> int:
        return int(self.after[-1]) if len(self.after) else 0

    def rows(self, index: Int[Tensor, " B"]) -> Int[Tensor, "B T"]:
        """Return the rows of the windows at `index`; those outside the episode are clamped to its ends."""
        episode = torch.searchsorted(self.after, index, right=True)
        begin, end = self.begin[episode], self.end[episode]
        before = torch.where(episode > 0, self.after[episode - 1], 0)
        start = begin - (self.observation_steps - 1) + index - before
        rows = start[:, None] + torch.arange(self.horizon)
        return rows.clamp(min=begin[:, None], max=end[:, None] - 1)
