"""The tables are prepared as in MAF; what is missing or wrong is said."""

import os
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from lfm_policy.data.normalizers.whitening import WhiteningNormalizer
from lfm_policy.data.tables import READINGS, as_published, load_table, patch_vectors
from lfm_policy.errors import DataError
from tests.data.tables import correlated_sensors, write_table


def _moments(*parts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rows = np.concatenate(parts).astype(np.float64)
    return rows.mean(axis=0), rows.std(axis=0)


def test_power_is_shuffled_dequantised_and_standardised(tmp_path: Path) -> None:
    """The published steps, one by one, on a table whose columns tell where each row came from."""
    rows = np.arange(8 * 1000, dtype=np.float64).reshape(1000, 8)
    np.save(tmp_path / "data.npy", rows)
    table = load_table("power", tmp_path / "data.npy")
    random = np.random.RandomState(42)
    random.shuffle(rows)
    noise = np.zeros((1000, 6))
    noise[:, 1] = 0.01 * random.rand(1000)
    noise[:, 0] = 0.001 * random.rand(1000)
    noise[:, 2:5] = random.rand(1000, 3)
    expected = rows[:, [0, 2, 4, 5, 6, 7]] + noise
    expected = (expected - expected[:900].mean(0)) / expected[:900].std(0)
    assert [len(part) for part in (table.train, table.valid, table.test)] == [810, 90, 100]
    np.testing.assert_allclose(np.concatenate([table.train, table.valid, table.test]), expected, atol=1e-6)
    assert table.train.dtype == np.float32


def test_power_is_the_same_from_ucis_own_file(tmp_path: Path) -> None:
    """Minutes that lack a reading are left out; the clock becomes the minute of the day."""
    rows = np.random.default_rng(0).integers(0, 60, (200, 8)).astype(np.float64)
    rows[:, 7] = np.arange(200) * 7 % 1440
    lines = [
        f"16/12/2006;{int(row[7]) // 60:02d}:{int(row[7]) % 60:02d}:00;" + ";".join(f"{x:.3f}" for x in row[:7])
        for row in rows
    ]
    lines.insert(17, "28/4/2007;00:21:00;?;?;?;?;?;?;")
    lines.insert(90, "28/4/2007;00:22:00;0.1;0.2;240.1;1.0;;0.0;1.0")
    text = tmp_path / "household_power_consumption.txt"
    text.write_text("\n".join([READINGS, *lines, ""]))
    np.save(tmp_path / "data.npy", rows)
    expected = load_table("power", tmp_path / "data.npy")
    np.testing.assert_array_equal(load_table("power", text).train, expected.train)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: lines[1:], "expected the header Date;Time;"),
        (lambda lines: [*lines, "1/1/2007;00:00:00;1.0;2.0"], r"expected lines of Date;Time;"),
        (lambda lines: [*lines, "1/1/2007;noon;1;2;3;4;5;6;7"], r"expected lines of Date;Time;"),
        (lambda lines: lines[:5], "expected at least 20 rows, found 4"),
    ],
)
def test_a_damaged_file_of_ucis_is_refused(
    change: Callable[[list[str]], list[str]], message: str, tmp_path: Path
) -> None:
    lines = [READINGS, *("16/12/2006;17:24:00;4.2;0.4;234.8;18.4;0.0;1.0;17.0" for _ in range(40))]
    text = tmp_path / "household_power_consumption.txt"
    text.write_text("\n".join(change(lines)))
    with pytest.raises(DataError, match=message):
        load_table("power", text)


@pytest.mark.parametrize(("content", "message"), [(b"\xff\xfe\x00", "expected text with the header"), (b"", "found ;")])
def test_what_is_no_text_of_ucis_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "power.txt").write_bytes(content)
    with pytest.raises(DataError, match=message):
        load_table("power", tmp_path / "power.txt")


def test_gas_keeps_one_of_correlated_sensors(tmp_path: Path) -> None:
    table = load_table("gas", write_table(tmp_path, "gas"))
    kept = correlated_sensors(200)[:, 1::2]  # the first of each pair goes
    whole = np.concatenate([table.train, table.valid, table.test])
    np.testing.assert_allclose(whole, (kept - kept.mean(0)) / kept.std(0, ddof=1), atol=1e-5)
    assert (len(table.valid), len(table.test)) == (18, 20)


@pytest.mark.parametrize("suffix", [".csv", ".hdf5"])
def test_gas_is_the_same_from_other_formats(suffix: str, tmp_path: Path) -> None:
    rows = correlated_sensors(200)
    path = tmp_path / f"ethylene_CO{suffix}"
    if suffix == ".csv":
        labels = np.column_stack([np.arange(200), np.zeros((200, 2))])
        header = ",".join(["Time", "Meth", "Eth", *(f"R{k}" for k in range(16))])
        np.savetxt(path, np.column_stack([labels, rows]), delimiter=",", header=header, comments="")
    else:
        with h5py.File(path, "w") as file:
            file["data"] = rows
    expected = load_table("gas", write_table(tmp_path, "gas"))
    np.testing.assert_array_equal(load_table("gas", path).test, expected.test)


def test_miniboone_is_standardised_over_training_and_validation(tmp_path: Path) -> None:
    table = load_table("miniboone", write_table(tmp_path, "miniboone"))
    mean, std = _moments(table.train, table.valid)
    np.testing.assert_allclose(mean, 0, atol=1e-6)
    np.testing.assert_allclose(std, 1, atol=1e-6)
    assert not as_published("miniboone", table)


@pytest.mark.skipif("LFM_DATA" not in os.environ, reason="LFM_DATA is not set: no rows of the real MINIBOONE are here")
def test_rows_of_the_real_miniboone() -> None:
    table = load_table("miniboone", Path(os.environ["LFM_DATA"]) / "tabular" / "miniboone_first_rows.npy")
    assert [len(part) for part in (table.train, table.valid, table.test)] == [1234, 137, 152]
    assert table.train.shape[1] == 43
    np.testing.assert_allclose(_moments(table.train, table.valid)[1], 1, atol=1e-4)


def test_published_bsds300_is_taken_as_it_is(tmp_path: Path) -> None:
    path = write_table(tmp_path, "bsds300")
    table = load_table("bsds300", path)
    with h5py.File(path) as file:
        np.testing.assert_array_equal(table.test, np.asarray(file["test"], dtype=np.float32))


def test_patches_become_points_by_the_recipe(tmp_path: Path) -> None:
    path = write_table(tmp_path, "patches")
    table = load_table("bsds300", path)
    grey = np.load(path)["test"].reshape(40, 64)
    assert table.test.shape == (40, 63)
    whole = np.column_stack([table.test, -table.test.sum(axis=1)])  # the dropped pixel: every patch has mean 0
    noise = (whole - whole[:, :1]) * 256 - (grey - grey[:, :1].astype(float))
    assert np.abs(noise).max() < 1 + 1e-3  # differences of two numbers in [0, 1)
    assert noise.std() == pytest.approx(np.sqrt(1 / 6 * 63 / 64), rel=0.05)


def test_noise_of_patches_is_decided_by_its_seed(tmp_path: Path) -> None:
    path = write_table(tmp_path, "patches")
    first, again, other = (load_table("bsds300", path, noise_seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.train, again.train)
    assert not np.allclose(first.train, other.train, atol=1e-5)
    flat = patch_vectors(np.zeros((5, 8, 8), np.uint8), np.random.default_rng(0))
    assert flat.std() == pytest.approx(1 / 256 / np.sqrt(12), rel=0.15)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "power",
            r"power/data.npy of https://zenodo.org/record/1161203 \(data.tar.gz\), 2,049,280 rows of 8 numbers"
            r"[\s\S]*archive.ics.uci.edu",
        ),
        ("gas", r"1,052,065 rows of 16[\s\S]*pandas.read_pickle"),
        ("miniboone", "36,488 rows of 43"),
        ("bsds300", "1,300,000 rows of 63"),
    ],
)
def test_missing_files_say_where_to_get_them(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        load_table(name, tmp_path / "nothing.npy")


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.pickle").write_bytes(b"")
    with pytest.raises(DataError, match=r"found '\.pickle'[\s\S]*pandas.read_pickle"):
        load_table("gas", tmp_path / "a.pickle")
    np.save(tmp_path / "narrow.npy", np.zeros((100, 7)))
    with pytest.raises(DataError, match=r"expected rows of 8 numbers, found shape \(100, 7\)"):
        load_table("power", tmp_path / "narrow.npy")
    np.save(tmp_path / "constant.npy", np.ones((100, 43)))
    with pytest.raises(DataError, match="NaN or infinity, or a constant column"):
        load_table("miniboone", tmp_path / "constant.npy")
    np.savez(tmp_path / "float.npz", **{k: np.zeros((9, 8, 8)) for k in ("train", "validation", "test")})
    with pytest.raises(DataError, match="expected uint8 patches"):
        load_table("bsds300", tmp_path / "float.npz")
    (tmp_path / "text.hdf5").write_text("no HDF5")
    with pytest.raises(DataError, match="cannot be opened"):
        load_table("bsds300", tmp_path / "text.hdf5")


def test_whitening_and_back() -> None:
    """Unit covariance, and the log-determinant of the map is that of its scale."""
    mix = torch.randn(5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = torch.randn(2000, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64) @ mix + 3
    normalizer = WhiteningNormalizer.fit(x).double()
    white = normalizer.normalize(x)
    torch.testing.assert_close(torch.cov(white.T), torch.eye(5).double(), atol=2e-3, rtol=0)
    torch.testing.assert_close(normalizer.denormalize(white), x, atol=1e-5, rtol=1e-5)
    log_det = -0.5 * torch.logdet(torch.cov(x.T))
    torch.testing.assert_close(normalizer.scale.log().sum(), log_det, atol=2e-3, rtol=0)
    twice = normalizer.scaled(2.0).double()
    torch.testing.assert_close(twice.normalize(x), 2 * white, atol=1e-4, rtol=1e-4)
