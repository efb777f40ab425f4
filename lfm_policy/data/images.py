"""Image sets for generation: arrays in .npz, CIFAR-10's binary version, or a folder of pictures. No pickle is read."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from lfm_policy.data.normalizers.affine import AffineNormalizer
from lfm_policy.errors import DataError
from lfm_policy.flow import Sample

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
CIFAR = [f"data_batch_{k}.bin" for k in range(1, 6)]
WHERE = (
    "CIFAR-10: the binary version of https://www.cs.toronto.edu/~kriz/cifar.html, unpacked; ImageNet-32, Flowers and "
    "LSUN Churches: a folder of pictures, or .npz with train_x (N, H, W, 3) uint8"
)


@dataclass(frozen=True)
class Images:
    """Pictures (N, C, H, W), uint8; labels (N,) where the set has any."""

    train: Tensor
    test: Tensor
    train_labels: Tensor | None = None
    test_labels: Tensor | None = None


@dataclass(frozen=True)
class ImagePool:
    """`flow.Pool` over pictures as vectors in [-1, 1] times a factor; with flips each is there twice, once mirrored."""

    pictures: Tensor
    flips: bool
    factor: float = 1.0

    def __len__(self) -> int:
        return len(self.pictures) * (1 + self.flips)

    def take(self, index: Tensor, generator: torch.Generator | None = None) -> Sample:
        """Return the pictures at `index` (B,): x (B, C * H * W)."""
        pictures = self.pictures[index % len(self.pictures)]
        mirrored = (index >= len(self.pictures)).view(-1, 1, 1, 1)
        pixels = torch.where(mirrored, pictures.flip(-1), pictures).flatten(1).float() / 127.5 - 1
        return Sample(pixels if self.factor == 1 else self.factor * pixels)


def pixel_normalizer(dim: int) -> AffineNormalizer:
    """Map grey values 0 … 255 to [-1, 1]."""
    return AffineNormalizer.min_max(torch.tensor([0.0, 255.0])[:, None].expand(2, dim))


def as_pictures(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Turn grey values (B, C * H * W), rounded and clipped, into pictures: (B, *shape), uint8."""
    return x.round().clamp(0, 255).to(torch.uint8).unflatten(1, tuple(shape))


def load_images(path: str | Path, side: int) -> Images:
    """Read a set of square pictures.

    Args:
        path: .npz with train_x (N, H, W, C) uint8 and, if there are any, train_y, test_x, test_y; the folder of
            CIFAR-10's binary version; or a folder of pictures, whose folders `train` and `test` are the splits (without
            them every tenth picture is for testing).
        side: expected height and width of arrays; pictures in folders are cropped and resized to it.

    Raises:
        DataError: there is no such set, or its pictures have another size.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(
            f"there are no images at {path}: expected pictures of {side} x {side}, data.path=PATH.\n{WHERE}"
        )
    if path.is_file():
        images = _arrays(path)
    elif (path / CIFAR[0]).exists():
        images = _cifar10(path)
    else:
        images = _folder(path, side)
    for part in (images.train, images.test):
        if part.ndim != 4 or not len(part) or tuple(part.shape[2:]) != (side, side):
            raise DataError(f"{path}: expected pictures (N, C, {side}, {side}), found {tuple(part.shape)}")
    return images


def _arrays(path: Path) -> Images:
    if path.suffix != ".npz":
        raise DataError(f"{path}: expected .npz or a folder, found '{path.suffix}'.\n{WHERE}")
    with np.load(path, allow_pickle=False) as file:
        if "train_x" not in file or file["train_x"].dtype != np.uint8 or file["train_x"].ndim != 4:
            raise DataError(f"{path}: expected train_x (N, H, W, C) uint8, found {', '.join(file.files)}")
        found = {
            name: torch.from_numpy(file[name]) for name in ("train_x", "train_y", "test_x", "test_y") if name in file
        }
    train = found["train_x"].permute(0, 3, 1, 2).contiguous()
    train_y, test_y = (found[name].long() if name in found else None for name in ("train_y", "test_y"))
    if "test_x" not in found:
        return _parted(train, train_y)
    return Images(train, found["test_x"].permute(0, 3, 1, 2).contiguous(), train_y, test_y)


def _cifar10(path: Path) -> Images:
    """Read records of a label and 3 x 32 x 32 bytes."""
    missing = [name for name in (*CIFAR, "test_batch.bin") if not (path / name).exists()]
    if missing:
        raise DataError(f"{path}: CIFAR-10's binary version lacks {', '.join(missing)}")
    parts = []
    for names in (CIFAR, ["test_batch.bin"]):
        content = np.concatenate([np.fromfile(path / name, np.uint8) for name in names])
        if len(content) % 3073:
            raise DataError(f"{path}: expected records of 3073 bytes, found {len(content)} bytes")
        parts.append(torch.from_numpy(content.reshape(-1, 3073)))
    train, test = (part[:, 1:].reshape(-1, 3, 32, 32).contiguous() for part in parts)
    train_labels, test_labels = (part[:, 0].long() for part in parts)
    return Images(train, test, train_labels, test_labels)


def _folder(path: Path, side: int) -> Images:
    if (path / "train").is_dir() and (path / "test").is_dir():
        return Images(_pictures(path / "train", side), _pictures(path / "test", side))
    return _parted(_pictures(path, side), None)


def _parted(pictures: Tensor, labels: Tensor | None) -> Images:
    test = torch.arange(len(pictures)) % 10 == 9
    named = (None, None) if labels is None else (labels[~test], labels[test])
    return Images(pictures[~test], pictures[test], *named)


def _pictures(folder: Path, side: int) -> Tensor:
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES)
    if not files:
        raise DataError(f"{folder} holds no pictures ({', '.join(SUFFIXES)}).\n{WHERE}")
    shown = track(files, f"reading {folder.name}", transient=True, disable=not Console().is_terminal)
    return torch.stack([_picture(file, side) for file in shown])


def _picture(file: Path, side: int) -> Tensor:
    """Read the largest square in the middle, resized."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file) as picture:
            width, height = picture.size
            edge = min(width, height)
            left, top = (width - edge) // 2, (height - edge) // 2
            box = (left, top, left + edge, top + edge)
            square = picture.convert("RGB").resize((side, side), Image.Resampling.LANCZOS, box=box)
    except (UnidentifiedImageError, OSError) as error:
        raise DataError(f"{file} is no picture that can be read: {error}") from error
    return torch.from_numpy(np.array(square)).permute(2, 0, 1)
