"""Film strips: an episode in one picture, with what the policy's cameras saw below."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lfm_policy.files import atomic_file
from lfm_policy.rollout.records import EpisodeResult, Segment
from lfm_policy.rollout.subscriber import Subscriber

MOMENTS, SIDE, GAP = 8, 128, 2
"""Pictures of a row, their height and width, and what is left between them [pixels]."""


@dataclass
class _Reel:
    """Moments of one episode, at most twice as many as a strip shows, evenly spaced but for the newest."""

    moments: list[np.ndarray] = field(default_factory=list)
    """Columns of the strip, uint8 (rows * SIDE, SIDE, 3)."""
    every: int = 1
    """Segments from one kept moment to the next."""
    count: int = 0
    newest: np.ndarray | None = None
    seen: np.ndarray | None = None

    def add(self, column: np.ndarray) -> None:
        self.newest = column
        if self.count % self.every == 0:
            self.moments.append(column)
            if len(self.moments) == 2 * MOMENTS:
                self.moments, self.every = self.moments[::2], 2 * self.every
        self.count += 1

    def strip(self) -> np.ndarray:
        """Lay moments from the first to the newest side by side."""
        columns = self.moments if self.newest is self.moments[-1] else [*self.moments, self.newest]
        chosen = np.unique(np.linspace(0, len(columns) - 1, MOMENTS).round().astype(int))
        gap = np.full((len(columns[0]), GAP, 3), 255, np.uint8)
        return np.concatenate([part for n in chosen for part in (gap, columns[n])][1:], axis=1)


class StripWriter(Subscriber):
    """Writes every episode that is rendered to `folder` as success_SEED.jpg or failure_SEED.jpg; needs Pillow."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._reels: dict[int, _Reel] = {}

    def on_segment(self, seed: int, segment: Segment) -> None:
        """Keep the segment's last moment."""
        if segment.frames is None:
            return
        reel = self._reels.setdefault(seed, _Reel())
        reel.seen = reel.seen if segment.seen is None else segment.seen  # none where the episode is over
        reel.add(np.concatenate([_tile(image) for image in (segment.frames[-1], *_views(reel.seen))]))

    def on_end(self, result: EpisodeResult) -> None:
        """Write the strip."""
        if (reel := self._reels.pop(result.seed, None)) is not None:
            from PIL import Image

            with atomic_file(self.folder / f"{stem(result)}.jpg") as temporary:
                Image.fromarray(reel.strip()).save(temporary, format="JPEG", quality=85)

    def on_failure(self, seed: int, attempt: int, reason: str) -> None:
        """Forget the moments; the episode will be redone."""
        self._reels.pop(seed, None)


def stem(result: EpisodeResult) -> str:
    """Name of an episode's film and strip, without its ending."""
    return f"{'success' if result.success else 'failure'}_{result.seed}"


def _views(seen: np.ndarray | None) -> Sequence[np.ndarray]:
    return () if seen is None else list(seen)


def _tile(image: np.ndarray) -> np.ndarray:
    """Scale a picture (height, width, 3) to SIDE x SIDE; one that is not square gets grey bars."""
    from PIL import Image, ImageOps

    return np.asarray(ImageOps.pad(Image.fromarray(np.ascontiguousarray(image)), (SIDE, SIDE), color=(128, 128, 128)))
