"""Files in the formats of the published tables, with random content."""

from pathlib import Path

import h5py
import numpy as np


def write_table(folder: Path, name: str, rows: int = 200) -> Path:
    """Write the file of one table; "patches" is BSDS300 as grey patches."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    sizes = {"train": rows, "validation": rows // 10, "test": rows // 5}
    match name:
        case "patches":
            path = folder / "patches.npz"
            smooth = {k: np.cumsum(random.integers(0, 4, (n, 8, 8)), axis=2) for k, n in sizes.items()}
            np.savez(path, **{k: (30 + part).astype(np.uint8) for k, part in smooth.items()})
        case "bsds300":
            path = folder / "BSDS300.hdf5"
            with h5py.File(path, "w") as file:
                for split, count in sizes.items():
                    file[split] = random.normal(size=(count, 63)) / 8
        case "gas":
            path = folder / "ethylene_CO.npy"
            np.save(path, correlated_sensors(rows))
        case _:
            path = folder / "data.npy"
            np.save(path, random.normal(3, 2, size=(rows, {"power": 8, "miniboone": 43}[name])))
    return path


def correlated_sensors(rows: int) -> np.ndarray:
    """Sixteen columns in pairs, of which the second is nearly the first."""
    random = np.random.default_rng(1)
    half = random.normal(5, 2, size=(rows, 8))
    return np.stack([half, half + 0.01 * random.normal(size=half.shape)], axis=2).reshape(rows, 16)
