"""The suites of lfm benchmark. Each module has `measure(settings)`, which yields its ratios one by one."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Literal

from pydantic import Field

from lfm_policy.choices import Place, Source
from lfm_policy.settings import Frozen

Suite = Literal["latency", "training", "simulation", "data", "scaling", "pictures"]


class Settings(Frozen):
    """What is compared, and how long each side is measured."""

    suite: tuple[Suite, ...] = Field(
        default=("latency", "training", "simulation", "data", "scaling", "pictures"),
        description="which comparisons: [latency,data]",
    )
    repeats: int = Field(default=5, ge=1, description="rounds in which the compared things take turns; medians count")
    seconds: float = Field(default=1.0, gt=0, description="least time of each side in each round [s]")
    threads: int = Field(default=1, ge=1, description="CPU threads of one tensor operation")
    rollouts: int = Field(default=20, ge=1, description="episodes in the comparisons of whole evaluations")
    policy: Source | None = Field(
        default=None,
        description="policy of the comparisons that need one: a folder, or a name such as lift; null: they are skipped",
    )
    out: Place = Field(default=Path("outputs/benchmark"), description="output folder")


@dataclass(frozen=True)
class Ratio:
    """One figure: how many times better ours is than theirs, measured side by side in one run."""

    name: str
    """Suite and figure: "latency.teacher_vs_ddim16"."""
    value: float
    target: float | None
    """The least value wanted; None where there is none."""
    ours: float
    theirs: float
    unit: str
    """Unit of `ours` and `theirs`: "ms", "windows/s"."""
    note: str = ""
    """What was compared, and how."""

    @property
    def met(self) -> bool | None:
        """Whether the target is reached."""
        return None if self.target is None else self.value >= self.target


@dataclass(frozen=True)
class Skipped:
    """A figure that this machine cannot measure."""

    name: str
    reason: str


def alternate(sides: Sequence[Callable[[], object]], repeats: int, seconds: float) -> list[float]:
    """Return the median seconds of one call of each side; they take turns, so that a machine's drift meets all alike.

    Args:
        sides: what to call, without arguments; each is called once before the clock starts.
        repeats: rounds.
        seconds: least time of each side in each round [s].
    """
    for side in sides:
        side()
    rounds = [[_per_call(side, seconds) for side in sides] for _ in range(repeats)]
    return [median(times) for times in zip(*rounds, strict=True)]


def _per_call(side: Callable[[], object], seconds: float) -> float:
    calls, started = 0, time.perf_counter()
    while (spent := time.perf_counter() - started) < seconds or calls == 0:
        side()
        calls += 1
    return spent / calls
