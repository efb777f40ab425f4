"""Line charts for pages; needs matplotlib."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lfm_policy.reports.page import Picture


@dataclass(frozen=True)
class Curve:
    """Values over something, perhaps with a band around them."""

    x: Sequence[int | float]
    y: Sequence[int | float]
    low: Sequence[int | float] = ()
    high: Sequence[int | float] = ()


def chart(
    curves: Mapping[str, Curve], x: str, y: str, *, log: bool = False, level: int | float | None = None
) -> list[Picture]:
    """Draw curves by their names into one chart; returns it, or nothing where there is no curve or no matplotlib.

    Args:
        curves: at most ten are told apart by colour.
        x: what the axes show, with units.
        y: the same.
        log: whether values are drawn on a logarithmic scale.
        level: a value to draw a line at.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        return []
    if not curves:
        return []
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.subplots()
    for name, curve in curves.items():
        (line,) = axes.plot(curve.x, curve.y, label=name)
        if curve.low:
            axes.fill_between(curve.x, curve.low, curve.high, color=line.get_color(), alpha=0.2, linewidth=0)
    if level is not None:
        axes.axhline(level, color="0.5", linewidth=1)
    axes.set(xlabel=x, ylabel=y, yscale="log" if log else "linear")
    axes.legend(fontsize=8, ncols=2)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110)
    return [Picture(content.getvalue(), "image/png", f"{y} against {x}")]
