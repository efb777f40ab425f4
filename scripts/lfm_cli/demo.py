"""The whole way on one task: collect demonstrations, prepare them, train a policy, evaluate it on unseen seeds.

    lfm demo                 local flow matching on Lift
    lfm demo compare=fm      global flow matching beside it

Every stage is one of the other verbs. Run it again after an interruption: finished stages are skipped and the
interrupted one continues. Leaves summary.json in the output folder.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field
from rich.console import Console
from rich.table import Table

from lfm_cli.stages import Stage, run
from lfm_policy.choices import Place, Size
from lfm_policy.files import read_json, write_json
from lfm_policy.locks import owned
from lfm_policy.settings import Frozen

UNSEEN = 100_000
"""First seed of the evaluation; demonstrations start from other states."""
RENAMED = {"episodes": "demonstrations", "steps": "updates"}
METHODS = {"lfm": "LFM", "fm": "global FM"}


class Settings(Frozen):
    """Which task, how much of everything."""

    task: str = Field(default="lift", description="lift, can, square, transport, tool_hang")
    compare: Literal["none", "fm"] = Field(
        default="none",
        description="fm: global flow matching too, at equal parameters and equal training compute",
    )
    size: Size = Field(default="small", description="how large the networks, how long the training")
    demonstrations: int = Field(default=200, ge=2, description="demonstrations to collect")
    evaluations: int = Field(default=50, ge=1, description="unseen episodes to evaluate on, seeds 100000 …")
    updates: int | None = Field(default=None, ge=1, description="of each block; null: those of the size")
    seed: int = Field(default=0, ge=0, description="of demonstrations and training")
    workers: int = Field(default=2, ge=1, description="simulator processes")
    threads: int = Field(
        default=1, ge=1, description="of the training; two help on two idle cores, and stall on shared ones"
    )
    out: Place | None = Field(default=None, description="output folder; null: outputs/demo/<task>")
    fresh: bool = Field(default=False, description="do every stage again, also those that are finished")

    @property
    def folder(self) -> Path:
        """Where everything goes."""
        return self.out or Path("outputs/demo") / self.task

    @property
    def methods(self) -> list[str]:
        """What is trained and evaluated."""
        return ["lfm"] if self.compare == "none" else ["lfm", self.compare]


def main(settings: Settings) -> None:
    """Run the stages that are not finished, then compare the methods."""
    records = settings.folder / "stages.json"
    with owned(settings.folder):
        if settings.fresh:
            records.unlink(missing_ok=True)
        for stage in stages(settings):
            run(stage, records)
        summary = summarise(settings, read_json(records))
        write_json(settings.folder / "summary.json", summary)
    Console().print(table(settings, summary))


def stages(settings: Settings) -> list[Stage]:
    """What has to be done, in order."""
    s, out, data = settings, settings.folder, settings.folder / f"{settings.task}.zarr"
    demos = {"task": s.task, "episodes": s.demonstrations, "seed": s.seed, "workers": s.workers, "out": out / "demos"}
    collect = Stage("collect", demos)
    prepare = Stage("prepare", {"source": out / "demos" / "demos.hdf5", "out": data}, collect)
    plan = [collect, prepare]
    training = {
        "experiment": f"robot/{s.task}",
        "size": s.size,
        "data.path": data,
        "seed": s.seed,
        "threads": s.threads,
    } | ({} if s.updates is None else {"updates": s.updates})
    rollouts = {"episodes": s.evaluations, "seed": UNSEEN, "workers": s.workers, "videos": 1}
    for method in s.methods:
        ending = "" if method == "lfm" else f"_{method}"
        train = Stage(f"train{ending}", {**training, "method": method, "out": out / method}, prepare)
        folder = {"policy": out / method, "out": out / f"{method}_evaluation"}
        plan += [train, Stage(f"evaluate{ending}", {**rollouts, **folder}, train)]
    return plan


def summarise(settings: Settings, records: Mapping[str, Any]) -> dict[str, Any]:
    """Success, cost and times as JSON."""
    keys = ("success", "episodes", "interval", "nfe", "ms_per_chunk")
    summary: dict[str, Any] = {"task": settings.task}
    for method in settings.methods:
        report = read_json(settings.folder / f"{method}_evaluation" / "summary.json")
        summary[method] = {key: report[key] for key in keys}
    names = [stage.name for stage in stages(settings)]
    return {**summary, "seconds": {name: round(records[name]["seconds"], 1) for name in names}}


def table(settings: Settings, summary: Mapping[str, Any]) -> Table:
    """One row per method."""
    seconds = summary["seconds"]
    title = f"{settings.task}: {settings.evaluations} unseen seeds, {settings.demonstrations} scripted demonstrations"
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
