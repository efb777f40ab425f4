"""Pictures are read from all formats, and a pool of them is what a chain is trained on."""

from pathlib import Path

import numpy as np
import pytest
import torch

from lfm_policy.data.images import CIFAR, ImagePool, as_pictures, load_images, pixel_normalizer
from lfm_policy.errors import DataError
from tests.data.pictures import squares, write_arrays, write_folder


def test_arrays_are_read_channel_by_channel(tmp_path: Path) -> None:
    images = load_images(write_arrays(tmp_path / "a.npz"), 8)
    pictures, labels = squares(60)
    assert images.train.shape == (60, 3, 8, 8)
    np.testing.assert_array_equal(images.train[7].permute(1, 2, 0).numpy(), pictures[7])
    assert images.train_labels is not None
    np.testing.assert_array_equal(images.train_labels.numpy(), labels)
    assert len(images.test) == 30


def test_the_binary_version_of_cifar10(tmp_path: Path) -> None:
    pictures, labels = squares(12, side=32)
    for k, name in enumerate([*CIFAR, "test_batch.bin"]):
        rows = slice(2 * k, 2 * k + 2)
        content = pictures[rows].transpose(0, 3, 1, 2).reshape(2, -1)
        np.column_stack([labels[rows].astype(np.uint8), content]).tofile(tmp_path / name)
    images = load_images(tmp_path, 32)
    assert images.train.shape == (10, 3, 32, 32)
    np.testing.assert_array_equal(images.test[1].permute(1, 2, 0).numpy(), pictures[11])
    assert images.test_labels is not None
    assert images.test_labels.tolist() == labels[10:].tolist()
    (tmp_path / "data_batch_3.bin").unlink()
    with pytest.raises(DataError, match=r"lacks data_batch_3\.bin"):
        load_images(tmp_path, 32)


def test_a_folder_of_pictures_is_cropped_and_parted(tmp_path: Path) -> None:
    images = load_images(write_folder(tmp_path / "all"), 8)
    assert (len(images.train), len(images.test)) == (18, 2)
    np.testing.assert_array_equal(images.train[3].permute(1, 2, 0).numpy(), squares(20)[0][3])
    write_folder(tmp_path / "parted" / "train", 6)
    write_folder(tmp_path / "parted" / "test", 4)
    parted = load_images(tmp_path / "parted", 4)
    assert (parted.train.shape, len(parted.test)) == ((6, 3, 4, 4), 4)


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no images at .*expected pictures of 32 x 32[\s\S]*cs\.toronto\.edu"):
        load_images(tmp_path / "nothing", 32)
    with pytest.raises(DataError, match=r"expected pictures \(N, C, 32, 32\), found \(60, 3, 8, 8\)"):
        load_images(write_arrays(tmp_path / "a.npz"), 32)
    np.savez(tmp_path / "float.npz", train_x=np.zeros((4, 8, 8, 3)))
    with pytest.raises(DataError, match="uint8"):
        load_images(tmp_path / "float.npz", 8)
    (tmp_path / "pictures").mkdir()
    with pytest.raises(DataError, match="holds no pictures"):
        load_images(tmp_path / "pictures", 8)
    (tmp_path / "pictures" / "a.png").write_text("no picture")
    with pytest.raises(DataError, match="no picture that can be read"):
        load_images(tmp_path / "pictures", 8)


def test_a_pool_holds_every_picture_and_its_mirror_image(tmp_path: Path) -> None:
    pictures = load_images(write_arrays(tmp_path / "a.npz"), 8).train
    pool, plain = ImagePool(pictures, flips=True), ImagePool(pictures, flips=False)
    assert (len(pool), len(plain)) == (120, 60)
    x = pool.take(torch.tensor([7, 67])).x
    assert x.min() >= -1
    assert x.max() <= 1
    once, mirrored = x.unflatten(1, (3, 8, 8))
    torch.testing.assert_close(once, mirrored.flip(-1))
    torch.testing.assert_close(plain.take(torch.tensor([7])).x[0], x[0])
    raw = pixel_normalizer(192).denormalize(x[:1])
    assert torch.equal(as_pictures(raw, (3, 8, 8))[0], pictures[7])


def test_pixels_of_unit_variance_are_what_the_normaliser_makes() -> None:
    pictures = torch.randint(256, (5, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    normalizer = pixel_normalizer(192).scaled(2.0)
    x = ImagePool(pictures, flips=False, factor=2.0).take(torch.arange(5)).x
    torch.testing.assert_close(x, normalizer.normalize(pictures.flatten(1).float()))
