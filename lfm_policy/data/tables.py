"""Tables for density estimation: POWER, GAS, MINIBOONE and BSDS300, prepared as in Papamakarios et al. 2017.

Splits, noise and normalisation follow the code of "Masked Autoregressive Flow for Density Estimation"
(github.com/gpapamak/maf), the norm that published likelihoods refer to. The first 90 % of a table are trained on and
chosen by (a tenth of them validation), the last 10 % are the test. The authors of arXiv 2410.02548 have two code bases:
hamrel-cxu/LocalFlowMatching evaluates on the validation points, xycheng/local-flow-matching on the test points. Both
numbers are reported here, and "test" means the latter.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from lfm_policy.choices import TableName
from lfm_policy.errors import DataError

SPLITS = ("train", "validation", "test")
ARCHIVE = "https://zenodo.org/record/1161203 (data.tar.gz)"
SENSORS = 16
LABELS = ("Time", "Meth", "Eth")
"""Columns of GAS that are no sensors."""
HOUSEHOLD = "household_power_consumption.txt of https://archive.ics.uci.edu/dataset/235"
"""UCI's own file of POWER."""
READINGS = (
    "Date;Time;Global_active_power;Global_reactive_power;Voltage;Global_intensity;"
    "Sub_metering_1;Sub_metering_2;Sub_metering_3"
)
"""The header of that file."""


@dataclass(frozen=True)
class Table:
    """Points (N, D) of three splits, single precision, in the units in which likelihoods are published."""

    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray


@dataclass(frozen=True)
class Source:
    """What the file of a table holds, and how it becomes one."""

    file: str
    """In the published archive."""
    columns: int
    """Number of columns in the file's rows."""
    dim: int | None
    """Dimension of the points; None where the rows decide it."""
    sizes: tuple[int, int, int]
    """Published points for training, validation and test."""
    load: Callable[[Path, int], Table]


def load_table(name: TableName, path: str | Path, noise_seed: int = 0) -> Table:
    """Read and prepare a table.

    Args:
        name: decides the preparation.
        path: .npy, .csv with a header, or .hdf5; for power UCI's .txt too; for bsds300 the published .hdf5, or grey
            patches in .npz.
        noise_seed: of the dequantisation of patches; POWER's noise is the published one.

    Raises:
        DataError: there is no such file, or it does not hold the table.
    """
    path, source = Path(path), SOURCES[name]
    if not path.exists():
        rows = sum(source.sizes)
        raise DataError(
            f"there is no {name} data at {path}: expected {source.file} of {ARCHIVE}, {rows:,} rows of "
            f"{source.columns} numbers.\nUnpack the archive and give the file, data.path=FILE; no checksum is "
            f"published, the run's summary records the file's SHA-256{_hint(name)}"
        )
    table = source.load(path, noise_seed)
    points = (table.train, table.valid, table.test)
    if any(part.ndim != 2 or part.shape[1] != (source.dim or part.shape[1]) or len(part) < 2 for part in points):
        shapes = ", ".join(str(part.shape) for part in points)
        raise DataError(f"{path}: expected splits of {name} with {source.dim} columns, found {shapes}")
    if not all(np.isfinite(part).all() for part in points):
        raise DataError(f"{path} holds NaN or infinity, or a constant column: expected the prepared file {source.file}")
    return Table(*(np.ascontiguousarray(part, dtype=np.float32) for part in points))


def as_published(name: TableName, table: Table) -> bool:
    """Say whether the splits have the published numbers of points."""
    return (len(table.train), len(table.valid), len(table.test)) == SOURCES[name].sizes


def patch_vectors(patches: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Follow BSDS300's recipe: add uniform [0, 1), divide by 256, subtract the patch's mean, drop the last pixel.

    Args:
        patches: grey values (N, h, w), uint8.
        generator: of the noise.

    Returns:
        (N, h w - 1), single precision; the dropped pixel is minus the sum of the others.
    """
    pixels = patches.reshape(len(patches), -1)
    values = (pixels + generator.random(pixels.shape, dtype=np.float32)) / np.float32(256)
    return (values - values.mean(axis=1, keepdims=True))[:, :-1]


def _power(path: Path, _: int) -> Table:
    """Shuffle; leave out reactive power and intensity; add noise as wide as the rounding of each column but time."""
    rows = _read_household(path) if path.suffix == ".txt" else _read(path, 8)
    random = np.random.RandomState(42)  # the published split and noise are this generator's
    rows = rows[random.permutation(len(rows))]
    rows = np.delete(rows, [1, 3], axis=1)
    voltage, active = 0.01 * random.rand(len(rows), 1), 0.001 * random.rand(len(rows), 1)
    meters = random.rand(len(rows), 3)
    return _standardised(rows + np.hstack([active, voltage, meters, np.zeros_like(active)]))


def _gas(path: Path, _: int) -> Table:
    """Drop sensors that correlate above 0.98 with another; all rows decide about mean, deviation and correlation."""
    rows = _read(path, SENSORS)
    while len(copies := np.flatnonzero((np.corrcoef(rows.T) > 0.98).sum(axis=1) > 1)):
        rows = np.delete(rows, copies[0], axis=1)
    return _split((rows - rows.mean(axis=0)) / rows.std(axis=0, ddof=1))


def _miniboone(path: Path, _: int) -> Table:
    return _standardised(_read(path, 43))


def _bsds300(path: Path, noise_seed: int) -> Table:
    """Load the published points as they are, or grey patches by the same recipe."""
    if path.suffix != ".npz":
        with _hdf5(path) as file:
            _require(path, set(SPLITS) <= set(file), f"data sets {', '.join(SPLITS)}", ", ".join(file))
            return Table(*(np.asarray(file[split]) for split in SPLITS))
    with np.load(path, allow_pickle=False) as file:
        _require(path, set(SPLITS) <= set(file.files), f"arrays {', '.join(SPLITS)}", ", ".join(file.files))
        patches = [file[split] for split in SPLITS]
    for part in patches:
        grey = part.ndim == 3 and part.dtype == np.uint8
        _require(path, grey, "uint8 patches (N, 8, 8)", f"{part.dtype} {part.shape}")
    return Table(*(patch_vectors(part, np.random.default_rng([noise_seed, k])) for k, part in enumerate(patches)))


def _split(rows: np.ndarray) -> Table:
    test = int(0.1 * len(rows))
    valid = int(0.1 * (len(rows) - test))
    stop = len(rows) - test
    return Table(rows[: stop - valid], rows[stop - valid : stop], rows[stop:])


def _standardised(rows: np.ndarray) -> Table:
    """Scale to mean 0 and deviation 1 over training and validation."""
    table = _split(rows)
    known = rows[: len(rows) - len(table.test)]
    mean, std = known.mean(axis=0), known.std(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):  # constant columns are refused by the caller
        return Table(*((part - mean) / std for part in (table.train, table.valid, table.test)))


def _read(path: Path, columns: int) -> np.ndarray:
    """Read the rows of a file (N, columns), double precision."""
    match path.suffix:
        case ".npy":
            rows = np.load(path, allow_pickle=False)
        case ".csv":
            with path.open(encoding="utf-8") as lines:
                names = lines.readline().strip().split(",")
            kept = [k for k, name in enumerate(names) if name.strip('" ') not in LABELS]
            rows = np.loadtxt(path, delimiter=",", skiprows=1, usecols=kept, ndmin=2)
        case ".h5" | ".hdf5":
            with _hdf5(path) as file:
                _require(path, "data" in file, "a data set 'data'", ", ".join(file))
                rows = np.asarray(file["data"])
        case suffix:
            hint = _hint("gas") if suffix in (".pickle", ".pkl") else ""
            raise DataError(f"{path}: expected .npy, .csv with a header, or .hdf5, found '{suffix}'{hint}")
    _require(path, rows.ndim == 2 and rows.shape[1] == columns, f"rows of {columns} numbers", f"shape {rows.shape}")
    _require(path, len(rows) >= 20, "at least 20 rows", f"{len(rows)}")
    return rows.astype(np.float64)


def _read_household(path: Path) -> np.ndarray:
    """Read UCI's minutes (N, 8), without those that lack a reading: seven readings, minute of the day."""
    try:
        header, *lines = path.read_text(encoding="utf-8").splitlines() or [""]
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: expected text with the header {READINGS}: {error}") from error
    _require(path, header == READINGS, f"the header {READINGS}", header[:200])
    whole = [line for line in lines if "?" not in line and ";;" not in line and not line.endswith(";")]
    try:
        clock = [line.split(";", 2)[1].split(":") for line in whole]
        minutes = np.array([60 * int(hour) + int(minute) for hour, minute, _ in clock])
        readings = np.loadtxt(whole, delimiter=";", usecols=range(2, 9), ndmin=2)
    except (ValueError, IndexError) as error:
        raise DataError(f"{path}: expected lines of {READINGS}: {error}") from error
    _require(path, len(readings) >= 20, "at least 20 rows", f"{len(readings)}")
    return np.column_stack([readings, minutes])


def _hint(name: str) -> str:
    """Say where else a table is, or how to get rid of a pickle."""
    if name == "power":
        return f". {HOUSEHOLD} does as well: the same rows"
    if name != "gas":
        return ""
    labels = ", ".join(f"'{label}'" for label in LABELS)
    return (
        ".\nThe archive holds GAS as a pickle, which may run code when it is read, so that it is not read here. If you "
        "trust it, convert it where pandas is installed:\n"
        f"""python -c "import numpy, pandas; frame = pandas.read_pickle('ethylene_CO.pickle'); """
        f"""numpy.save('ethylene_CO.npy', frame.drop(columns=[{labels}]).to_numpy())\""""
    )


def _hdf5(path: Path) -> h5py.File:
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise DataError(f"expected an HDF5 file, and {path} cannot be opened: {error}") from error


def _require(path: Path, fulfilled: bool, expected: str, found: str) -> None:
    if not fulfilled:
        raise DataError(f"{path}: expected {expected}, found {found}; see data/README.md")


SOURCES: Mapping[TableName, Source] = {
    "power": Source("power/data.npy", 8, 6, (1_659_917, 184_435, 204_928), _power),
    "gas": Source("gas/ethylene_CO.pickle", SENSORS, None, (852_174, 94_685, 105_206), _gas),
    "miniboone": Source("miniboone/data.npy", 43, 43, (29_556, 3_284, 3_648), _miniboone),
    "bsds300": Source("BSDS300/BSDS300.hdf5", 63, 63, (1_000_000, 50_000, 250_000), _bsds300),
}
