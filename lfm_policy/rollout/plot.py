"""The picture of an evaluation; needs matplotlib."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lfm_policy.files import write_bytes
from lfm_policy.measure.statistics import wilson_interval
from lfm_policy.rollout.records import EpisodeResult


def plot(path: str | Path, title: str, results: Sequence[EpisodeResult]) -> str | None:
    """Draw the running success rate with its Wilson band, and the steps to success, as PNG.

    Returns:
        Why there is no picture, or None.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        return "matplotlib is not installed (pip install 'lfm-policy[media]')"
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    ordered = sorted(results, key=lambda result: result.seed)
    successes = np.cumsum([result.success for result in ordered])
    counts = np.arange(1, len(ordered) + 1)
    low, high = zip(*(wilson_interval(int(s), int(n)) for s, n in zip(successes, counts, strict=True)), strict=True)
    left.fill_between(counts, low, high, alpha=0.25, linewidth=0, label="Wilson 95 %")
    left.plot(counts, successes / counts, label="success rate")
    left.set(xlabel="episodes, by seed", ylim=(0, 1.02), title=title)
    left.legend(loc="lower right")
    steps = [result.steps_to_success for result in ordered if result.steps_to_success is not None]
    right.hist(steps, bins=20)
    right.set(xlabel="steps to success", ylabel="episodes")
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=120)
    write_bytes(path, content.getvalue())
    return None
