"""Compare density runs: `lfm report_density runs=[outputs/lfm,outputs/fm] out=outputs/report`.

Negative log-likelihood beside its floor, the density with each model's samples in the style of the paper's Figure 2,
and trajectories from noise to data.
"""

from pydantic import Field

from lfm_policy.choices import Place, SolverChange
from lfm_policy.settings import Frozen


class Settings(Frozen):
    """Which runs, and what is drawn of them."""

    runs: tuple[Place, ...] = Field(min_length=1, description="folders of finished runs on one density: [DIR,DIR]")
    out: Place = Field(description="folder for density.png, trajectories.png and summary.json")
    points: int = Field(default=20_000, ge=1, description="samples of each model in the pictures")
    pieces: int = Field(default=5, ge=1, description="parts of each block's time in the trajectories")
    trust_code: bool = Field(default=False, description="import networks of your own that a checkpoint names")
    solver: SolverChange = SolverChange()


def main(settings: Settings) -> None:
    """Measure, draw, and show a row per run."""
    from rich.console import Console

    from lfm_cli.tables import densities
    from lfm_policy.training.experiments.compare_densities import compare_densities

    values = {name: getattr(settings, name) for name in ("points", "pieces", "solver", "trust_code")}
    Console().print(densities(compare_densities(settings.runs, settings.out, **values)))
