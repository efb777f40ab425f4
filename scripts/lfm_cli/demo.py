"""The whole way on one task: collect demonstrations, prepare them, train a policy, evaluate it on unseen seeds.

    lfm demo                 local flow matching on Lift
    lfm demo compare=fm      global flow matching beside it

Every stage is one of the other scripts. Run it again after an interruption: finished stages are skipped and the
interrupted one continues. Leaves summary.json in the output folder.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field
from rich.console import Console
from rich.table import Table

from lfm_cli import command_line as _cli
from lfm_cli.stages import Stage, run
from lfm_policy.files import read_json, write_json
from lfm_policy.settings import Frozen

UNSEEN = 100_000
"""First seed of the evaluation; demonstrations start from other states."""
METHODS = {"lfm": "LFM", "fm": "global FM"}


class Settings(Frozen):
    """Settings of config/demo.yaml."""

    task: str
    compare: Literal["none", "fm"]
    model: Literal["tiny", "small", "paper"]
    episodes: int = Field(ge=2)
    evaluations: int = Field(ge=1)
    steps: int | None = Field(ge=1)
    seed: int = Field(ge=0)
    workers: int = Field(ge=1)
    threads: int = Field(ge=1)
    out: Path
    fresh: bool

    @property
    def methods(self) -> list[str]:
        """What is trained and evaluated."""
        return ["lfm"] if self.compare == "none" else ["lfm", self.compare]


def main(settings: Settings) -> None:
    """Run the stages that are not finished, then compare the methods."""
    records = settings.out / "stages.json"
    if settings.fresh:
        records.unlink(missing_ok=True)
    for stage in stages(settings):
        run(stage, records)
    summary = summarise(settings, read_json(records))
    write_json(settings.out / "summary.json", summary)
    Console().print(table(settings, summary))


def stages(settings: Settings) -> list[Stage]:
    """What has to be done, in order."""
    s, out, data = settings, settings.out, settings.out / f"{settings.task}.zarr"
    demos = {"task": s.task, "episodes": s.episodes, "seed": s.seed, "workers": s.workers, "out": out / "demos"}
    collect = Stage("collect", demos)
    prepare = Stage("prepare", {"source": out / "demos" / "demos.hdf5", "out": data}, collect)
    plan = [collect, prepare]
    training = {
        "experiment": f"robot/{s.task}",
        "size": s.model,
        "data.path": data,
        "seed": s.seed,
        "threads": s.threads,
    } | ({} if s.steps is None else {"epochs": "null", "steps": s.steps})
    rollouts = {"episodes": s.evaluations, "seed": UNSEEN, "workers": s.workers, "videos": 1}
    for method in s.methods:
        ending = "" if method == "lfm" else f"_{method}"
        train = Stage(f"train{ending}", {**training, "method": method, "out": out / method}, prepare)
        folder = {"checkpoint": out / method, "out": out / f"{method}_evaluation"}
        plan += [train, Stage(f"evaluate{ending}", {**rollouts, **folder}, train)]
    return plan


def summarise(settings: Settings, records: Mapping[str, Any]) -> dict[str, Any]:
    """Success, cost and times as JSON."""
    keys = ("success", "episodes", "interval", "nfe", "ms_per_chunk")
    summary: dict[str, Any] = {"task": settings.task}
    for method in settings.methods:
        report = read_json(settings.out / f"{method}_evaluation" / "summary.json")
        summary[method] = {key: report[key] for key in keys}
    names = [stage.name for stage in stages(settings)]
    return {**summary, "seconds": {name: round(records[name]["seconds"], 1) for name in names}}


def table(settings: Settings, summary: Mapping[str, Any]) -> Table:
    """One row a method."""
    seconds = summary["seconds"]
    title = f"{settings.task}: {settings.evaluations} unseen seeds, {settings.episodes} scripted demonstrations"
    rows = Table(title=title, caption=f"collect {seconds['collect']:.0f} s, prepare {seconds['prepare']:.0f} s")
    for column in ("method", "success", "95 % interval", "NFE", "ms/chunk", "train", "evaluate"):
        rows.add_column(column, justify="left" if column == "method" else "right")
    for method in settings.methods:
        report, ending = summary[method], "" if method == "lfm" else f"_{method}"
        low, high = report["interval"]
        rows.add_row(
            METHODS[method],
            f"{report['success']:.2f}",
            f"{low:.2f} … {high:.2f}",
            f"{report['nfe']:g}",
            f"{report['ms_per_chunk']:.1f}",
            f"{seconds[f'train{ending}']:.0f} s",
            f"{seconds[f'evaluate{ending}']:.0f} s",
        )
    return rows


if __name__ == "__main__":
    _cli.run("demo", Settings, main, __doc__)
