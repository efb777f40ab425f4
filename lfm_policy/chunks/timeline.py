"""Predicted actions by the control step they are meant for, and what happens where one chunk follows another."""

from collections import deque
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lfm_policy.errors import ConfigError
from lfm_policy.protocols import ChunkPolicy, WarmChunkPolicy

Seam = Literal["switch", "ensemble", "warm"]
"""Between chunks: take the newest at once; average the overlapping ones; or begin the new one from the running one."""


@dataclass(frozen=True)
class _Placed:
    first: int
    """Step of row 0."""
    seam: int
    """Step from which on it is in force."""
    rows: np.ndarray
    """(T, action_dim)."""

    @property
    def end(self) -> int:
        return self.first + len(self.rows)


class Timeline:
    """A queue of chunks whose actions carry the step they are meant for: what comes late is never executed late.

    Args:
        observation_steps: To; row To - 1 of a chunk is the action for the step of its latest observation.
        seam: "ensemble" averages all chunks that say something about a step, each weighted by a window that vanishes
            at both of its ends, so that none enters or leaves with a jump (ACT, arXiv 2304.13705, asks at every step
            and weights all equally). "switch" and "warm" take the newest; warm chunks are made to fit (warm.py).
    """

    def __init__(self, observation_steps: int, seam: Seam = "switch") -> None:
        self._before, self._seam = observation_steps - 1, seam
        self._chunks: deque[_Placed] = deque()

    def add(self, chunk: np.ndarray, step: int, arrival: int | None = None) -> int:
        """Place a chunk (T, action_dim) whose latest observation is that of `step`.

        Args:
            chunk: row To - 1 is for `step`.
            step: earlier than `arrival` where the prediction took time.
            arrival: the first step that can still be executed.

        Returns:
            Actions that come too late, and are dropped.
        """
        arrival = step if arrival is None else arrival
        placed = _Placed(step - self._before, arrival, np.asarray(chunk))
        self._chunks.append(placed)
        return min(arrival - step, placed.end - step)

    def at(self, step: int) -> np.ndarray | None:
        """Return the action (action_dim,) for `step`; None where no chunk covers it. Steps may not go back."""
        self._forget(step)
        covering = [placed for placed in self._chunks if placed.seam <= step < placed.end]
        if not covering:
            return None
        rows = np.stack([placed.rows[step - placed.first] for placed in covering])
        if self._seam != "ensemble" or len(rows) == 1:
            return rows[-1]
        weights = np.array([(step - p.seam + 1) * (p.end - step) for p in covering], rows.dtype)
        return (weights / weights.sum()) @ rows

    def remainder(self, step: int) -> np.ndarray | None:
        """Return the newest chunk from the oldest observation of `step`'s history on: (m, action_dim), m <= T.

        None where it holds no action for `step`.
        """
        if not self._chunks or not self._chunks[-1].seam <= step < self._chunks[-1].end:
            return None
        newest = self._chunks[-1]
        return newest.rows[max(0, step - self._before - newest.first) :]

    def running(self, step: int) -> np.ndarray | None:
        """Return the newest chunk as if its latest observation were `step`'s, (T, action_dim); it ends standing still.

        None where it holds no action for `step`.
        """
        rows = self.remainder(step)
        return None if rows is None else np.concatenate([rows, rows[-1:].repeat(len(self._newest) - len(rows), axis=0)])

    def clear(self) -> None:
        """Forget all chunks."""
        self._chunks.clear()

    @property
    def _newest(self) -> np.ndarray:
        return self._chunks[-1].rows

    def _forget(self, step: int) -> None:
        while len(self._chunks) > 1 and self._chunks[0].end <= step:
            self._chunks.popleft()


def complete(remainder: np.ndarray, fresh: np.ndarray) -> np.ndarray:
    """Return the chunk (T, action_dim) that begins as was promised (m, action_dim) and ends as the fresh one does."""
    return np.concatenate([remainder, fresh[len(remainder) :]]).astype(np.float32)


def require_seam(policy: ChunkPolicy, seam: Seam) -> None:
    """Raise ConfigError where a policy that cannot continue chunks is asked to."""
    if seam == "warm" and not isinstance(policy, WarmChunkPolicy):
        raise ConfigError(
            f"seam=warm needs a policy that can enter its chain at the running chunk (WarmStart of a torch policy), "
            f"found {type(policy).__name__}: use seam=ensemble or seam=switch"
        )
