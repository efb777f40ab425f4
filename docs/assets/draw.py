"""Draw the two figures of the documentation: the chain of flows, and the timeline of action chunks.

    python docs/assets/draw.py

writes chain.svg and timeline.svg beside this file; a test compares them with what it would write.
"""

import math
from collections.abc import Iterable, Iterator
from pathlib import Path

FOLDER = Path(__file__).parent
INK, PALE, BLUE, SKY, ORANGE, SAND = "#37474f", "#90a4ae", "#1565c0", "#bbdefb", "#ef6c00", "#ffe0b2"


def main() -> None:
    """Write both figures."""
    for name, figure in (("chain", chain()), ("timeline", timeline())):
        (FOLDER / f"{name}.svg").write_text(figure)


def chain() -> str:
    """Return the densities that the blocks of a chain connect: exact OU marginals of two bumps, as Can's preset steps.

    Every panel is one p_n; the arrows between them are the blocks, trained towards noise and sampled towards data.
    """
    times = [0.0, 0.2, 0.45, 0.7625, math.inf]
    names = ["p₀: data", "p₁", "p₂", "p₃", "p₄: noise"]
    step, width, top = 165, 100, 44
    parts = [_text(400, 30, "adding noise in small steps tells every block where it begins and ends", PALE)]
    for n, (time, name) in enumerate(zip(times, names, strict=True)):
        left = 20 + n * step
        parts += [_density(time, left, width, top), _text(left + width / 2, top + 148, name, INK, bold=True)]
    for n in range(4):
        left = 20 + n * step + width + 4
        parts += [
            _arrow(left, left + step - width - 8, top + 44, PALE),
            _text(left + 28, top + 74, f"block {n + 1}", BLUE, bold=True),
            _text(left + 28, top + 90, f"v{'₁₂₃₄'[n]}(x, t)", BLUE),
            _arrow(left + step - width - 8, left, top + 104, ORANGE),
        ]
    parts += [
        _text(400, 226, "training: each block learns only the flow between its two neighbours", PALE),
        _text(400, 248, "sampling: from noise through all blocks, back to data", ORANGE),
    ]
    return _svg(800, 262, parts)


def timeline() -> str:
    """Return two chunks on a line of control steps, first without delay, then arriving two steps late."""
    parts: list[str] = []
    for row, (late, title) in enumerate(
        ((0, "No delay: the robot executes Ta = 8 of the T = 16 actions, then asks again"),
         (2, "A delay of 2 steps: the running chunk is continued, and what comes too late is dropped"))
    ):  # fmt: skip
        parts += _timeline(34 + row * 206, late, title)
    return _svg(860, 424, parts)


def _timeline(top: float, late: int, title: str) -> Iterator[str]:
    first, step = 130.0, 28.0

    def left(k: int) -> float:
        return first + (k + 1) * step

    yield _text(20, top, title, INK, bold=True, anchor="start")
    for k in range(-1, 24):
        if k % 2 == 0:
            yield _text(left(k) + step / 2, top + 24, "k" if k == 0 else f"+{k}", PALE, size=11)
    for chunk, begin in enumerate((0, 8)):
        y = top + 34 + chunk * 56
        name = f"chunk {chunk + 1}"
        yield _text(118, y + 18, name, INK, anchor="end")
        for k in range(begin - 1, begin + 15):
            start, stop = (begin + late if chunk else begin), begin + 8 + late
            fill, edge = (SKY, BLUE) if start <= k < stop else ("#eceff1", PALE)
            if chunk and begin <= k < begin + late:
                fill, edge = SAND, ORANGE
            yield _box(left(k), y, step, 26, fill, edge)
        for k in (begin - 1, begin):
            yield f'<circle cx="{left(k) + step / 2:g}" cy="{y + 37:g}" r="4.5" fill="{INK}"/>'
        yield _text(left(begin - 1) - 6, y + 41, "To = 2 observations", INK, size=11, anchor="end")
    seam = left(8 + late)
    yield f'<path d="M{seam:g} {top + 30:g} V{top + 122:g}" stroke="{ORANGE}" stroke-width="2.5"/>'
    yield _text(seam + 26, top + 140, "seam", ORANGE, bold=True, anchor="start")
    legend = [(SKY, BLUE, "executed"), ("#eceff1", PALE, "predicted, not executed")]
    for n, (fill, edge, name) in enumerate(legend + [(SAND, ORANGE, "too late: dropped")] * (late > 0)):
        x = 210 + n * 150 + (n > 1) * 40
        yield from (
            _box(x, top + 152, 16, 14, fill, edge),
            _text(x + 22, top + 164, name, INK, size=12, anchor="start"),
        )


def _density(time: float, left: float, width: float, top: float) -> str:
    """Draw the curve of 0.5 N(-1.5, s²) + 0.5 N(1.5, s²) after an OU time, filled."""
    keep = math.exp(-time)
    deviation = math.sqrt(keep**2 * 0.22**2 + 1 - keep**2)
    points = []
    for i in range(81):
        x = -3 + 6 * i / 80
        value = sum(math.exp(-0.5 * ((x - mode * keep) / deviation) ** 2) for mode in (-1.5, 1.5)) / (2 * deviation)
        points.append(f"{left + width * i / 80:.1f},{top + 124 - 52 * value:.1f}")
    base = f"{left + width:.1f},{top + 124:.1f} {left:.1f},{top + 124:.1f}"
    return f'<polygon points="{" ".join(points)} {base}" fill="{SKY}" stroke="{BLUE}" stroke-width="1.5"/>'


def _arrow(start: float, end: float, y: float, colour: str) -> str:
    head = 8 if end > start else -8
    return (
        f'<path d="M{start:g} {y:g} H{end - head:g}" stroke="{colour}" stroke-width="2.5"/>'
        f'<path d="M{end:g} {y:g} l{-head * 1.3:g} -5 v10 z" fill="{colour}"/>'
    )


def _box(x: float, y: float, width: float, height: float, fill: str, edge: str) -> str:
    return f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" fill="{fill}" stroke="{edge}"/>'


def _text(
    x: float, y: float, text: str, colour: str, *, bold: bool = False, size: int = 13, anchor: str = "middle"
) -> str:
    weight = ' font-weight="600"' if bold else ""
    return f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{colour}" text-anchor="{anchor}"{weight}>{text}</text>'


def _svg(width: int, height: int, parts: Iterable[str]) -> str:
    start = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="Helvetica, Arial, sans-serif">'
    )
    background = f'<rect width="{width}" height="{height}" fill="#ffffff"/>'
    return "\n".join([start, background, *parts, "</svg>"]) + "\n"


if __name__ == "__main__":
    main()
