"""Sets of small generated pictures, in the formats that are read."""

from pathlib import Path

import numpy as np
from PIL import Image


def squares(count: int, side: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Noise with a bright square on the left (label 0) or on the right (label 1): (count, side, side, 3) uint8."""
    random = np.random.default_rng(count)
    pictures = random.integers(0, 60, (count, side, side, 3), dtype=np.uint8)
    labels = np.arange(count) % 2
    half = side // 2
    pictures[labels == 0, :half, :half] += 180
    pictures[labels == 1, :half, half:] += 180
    return pictures, labels


def write_arrays(path: Path, count: int = 60, side: int = 8) -> Path:
    """A file like a subset of CIFAR-10."""
    (train_x, train_y), (test_x, test_y) = squares(count, side), squares(count // 2, side)
    np.savez(path, train_x=train_x, train_y=train_y, test_x=test_x, test_y=test_y)
    return path


def write_folder(folder: Path, count: int = 20, side: int = 8) -> Path:
    """Pictures as files, wider than high."""
    folder.mkdir(parents=True)
    for k, picture in enumerate(squares(count, side)[0]):
        Image.fromarray(np.pad(picture, ((0, 0), (3, 3), (0, 0)))).save(folder / f"{k:03}.png")
    return folder
