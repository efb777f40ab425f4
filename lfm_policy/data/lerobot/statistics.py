"""The statistics that LeRobot normalises by: of each episode, and of all, joined as LeRobot's own writer joins them."""

from collections.abc import Mapping, Sequence

import numpy as np

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
LARGEST_SAMPLE = 100
"""Pictures of an episode that are looked at."""
FEWEST_PIXELS = 150
"""Sides of pictures are thinned out down to about as many."""

Statistics = dict[str, np.ndarray]


def of_numbers(values: np.ndarray) -> Statistics:
    """Describe the columns of (L, width), or the one of (L,): arrays of (width,), and count (1,)."""
    rows = values.reshape(len(values), -1).astype(np.float64)
    quantiles = np.quantile(rows, list(QUANTILES.values()), axis=0)
    return {
        "min": rows.min(axis=0),
        "max": rows.max(axis=0),
        "mean": rows.mean(axis=0),
        "std": rows.std(axis=0),
        "count": np.array([len(rows)]),
        **dict(zip(QUANTILES, quantiles, strict=True)),
    }


def of_pictures(pictures: np.ndarray) -> Statistics:
    """Describe the channels of uint8 (L, height, width, 3) from a sample, on [0, 1]: (3, 1, 1) each, and count (1,)."""
    chosen = np.unique(np.linspace(0, len(pictures) - 1, min(len(pictures), LARGEST_SAMPLE)).round().astype(int))
    step = max(1, min(pictures.shape[1:3]) // FEWEST_PIXELS)
    sample = pictures[chosen][:, ::step, ::step].reshape(-1, pictures.shape[-1])
    found = of_numbers(sample)
    return {
        name: np.array([len(chosen)]) if name == "count" else value.reshape(-1, 1, 1) / 255
        for name, value in found.items()
    }


def joined(parts: Sequence[Mapping[str, np.ndarray]]) -> Statistics:
    """Join the statistics of episodes; quantiles are averaged, which is no quantile of all, but what LeRobot takes."""
    shape = (-1, *[1] * parts[0]["mean"].ndim)
    count = np.array([part["count"][0] for part in parts])
    weight = (count / count.sum()).reshape(shape)
    stacked = {name: np.stack([part[name] for part in parts]) for name in parts[0] if name != "count"}
    mean = (weight * stacked["mean"]).sum(axis=0)
    return {
        "min": stacked["min"].min(axis=0),
        "max": stacked["max"].max(axis=0),
        "mean": mean,
        "std": np.sqrt((weight * (stacked["std"] ** 2 + (stacked["mean"] - mean) ** 2)).sum(axis=0)),
        "count": np.array([count.sum()]),
        **{name: (weight * stacked[name]).sum(axis=0) for name in QUANTILES},
    }
