"""Draw pictures of image runs: `lfm report_images runs=[outputs/lfm,outputs/fm] out=outputs/report`.

Grids of samples from the same noise, the way from noise to pictures, Fréchet distances; `students=[…]` shows what
lfm distill made of the first run beside it.
"""

from pydantic import Field

from lfm_policy.choices import Place, SolverChange, StoreChoice
from lfm_policy.settings import Frozen

RENAMED = {"path": "data.path"}


class Settings(Frozen):
    """Which runs, and what is drawn of them."""

    runs: tuple[Place, ...] = Field(
        min_length=1, description="folders of finished image runs on one data set: [DIR,DIR]"
    )
    out: Place = Field(description="folder for the pictures and summary.json")
    students: tuple[Place, ...] = Field(
        default=(), description="folders of distillations of the first run (lfm distill), shown beside it"
    )
    data: StoreChoice = Field(default=StoreChoice())
    columns: int = Field(default=8, ge=1, description="columns of the grids of samples")
    states: int = Field(default=8, ge=2, description="shown of each way from noise to a picture")
    pieces: int = Field(default=5, ge=1, description="parts of each block's time in these ways")
    trust_code: bool = Field(default=False, description="import networks of your own that a checkpoint names")
    threads: int = Field(default=1, ge=1, description="CPU threads")
    solver: SolverChange = SolverChange()


def main(settings: Settings) -> None:
    """Draw, measure, and show a row per run."""
    import torch
    from rich.console import Console

    from lfm_cli.tables import pictures
    from lfm_policy.training.experiments.compare_images import compare_images

    torch.set_num_threads(settings.threads)
    rows = compare_images(
        settings.runs,
        settings.out,
        students=settings.students,
        path=settings.data.path,
        columns=settings.columns,
        states_shown=settings.states,
        pieces=settings.pieces,
        solver=settings.solver,
        trust_code=settings.trust_code,
    )
    Console().print(pictures(rows))
