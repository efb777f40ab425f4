"""The whole way on one task: collect demonstrations, prepare them, train a policy, evaluate it on unseen seeds.

    lfm demo                      local flow matching on Lift
    lfm demo compare=fm           global flow matching beside it
    lfm demo observations=images  from cameras, without the objects' poses;
                                  beside it a twin trained without the pictures

Every stage is one of the other verbs. Run it again after an interruption: finished stages are skipped and the
interrupted one continues. Leaves summary.json in the output folder.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field
from rich.console import Console
from rich.table import Table

from lfm_cli.stages import Stage, run
from lfm_envs.tasks import task
from lfm_policy.choices import Place, Size
from lfm_policy.files import read_json, write_json
from lfm_policy.locks import owned
from lfm_policy.settings import Frozen

UNSEEN = 100_000
"""First seed of the evaluation; demonstrations start from other states."""
RENAMED = {"episodes": "demonstrations", "steps": "updates"}
METHODS = {"lfm": "LFM", "fm": "global FM", "blind": "LFM, blind"}
EVALUATIONS = {"state": 50, "images": 100}
"""Unseen episodes, unless the settings say how many."""


class Settings(Frozen):
    """Which task, how much of everything."""

    task: str = Field(default="lift", description="lift, can, square, transport, tool_hang")
    observations: Literal["state", "images"] = Field(
        default="state",
        description="state: with the objects' poses; images: from cameras, evaluated at temperature 0 too, beside a "
        "blind twin",
    )
    compare: Literal["none", "fm"] = Field(
        default="none",
        description="fm: global flow matching too, at equal parameters and equal training compute",
    )
    size: Size = Field(default="small", description="how large the networks, how long the training")
    demonstrations: int = Field(default=200, ge=2, description="demonstrations to collect")
    evaluations: int | None = Field(
        default=None, ge=1, description="unseen episodes to evaluate on, seeds 100000 …; null: 50, of images 100"
    )
    updates: int | None = Field(default=None, ge=1, description="updates of each block; null: those of the size")
    seed: int = Field(default=0, ge=0, description="seed of demonstrations and training")
    workers: int = Field(default=2, ge=1, description="simulator processes")
    threads: int = Field(
        default=1, ge=1, description="CPU threads of the training; two help on two idle cores, and stall on shared ones"
    )
    out: Place | None = Field(
        default=None, description="output folder; null: outputs/demo/<task>, of images outputs/demo/<task>_images"
    )
    fresh: bool = Field(default=False, description="do every stage again, also those that are finished")

    @property
    def folder(self) -> Path:
        """Where everything goes."""
        return self.out or Path("outputs/demo") / (self.task if self.observations == "state" else f"{self.task}_images")

    @property
    def episodes(self) -> int:
        """Unseen episodes of each evaluation."""
        return self.evaluations or EVALUATIONS[self.observations]

    @property
    def methods(self) -> list[str]:
        """What is trained and evaluated: a policy that sees is never shown without its blind twin."""
        compared = [] if self.compare == "none" else [self.compare]
        return ["lfm", *compared, *(["blind"] if self.observations == "images" else [])]


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
    """List what has to be done, in order."""
    s, out, data = settings, settings.folder, settings.folder / f"{settings.task}.zarr"
    demos = {"task": s.task, "episodes": s.demonstrations, "seed": s.seed, "workers": s.workers, "out": out / "demos"}
    prepared = {"source": out / "demos" / "demos.hdf5", "out": data}
    preset = "robot"
    if s.observations == "images":
        demos["cameras"] = f"[{','.join(task(s.task).cameras)}]"
        prepared, preset = {**prepared, "observations": "images"}, "robot_image"
    collect = Stage("collect", demos)
    prepare = Stage("prepare", prepared, collect)
    plan = [collect, prepare]
    training = {
        "experiment": f"{preset}/{s.task}",
        "size": s.size,
        "data.path": data,
        "seed": s.seed,
        "threads": s.threads,
    } | ({} if s.updates is None else {"updates": s.updates})
    for method in s.methods:
        own = _differences(s, method)
        after = plan[2] if "vision.trained" in own else prepare
        train = Stage(f"train{_ending(method)}", {**training, **own, "out": out / method}, after)
        plan += [train, *_evaluations(s, method, train)]
    return plan


def _differences(settings: Settings, method: str) -> dict[str, Any]:
    """Return what one method's training has beside what all have."""
    if method == "blind":
        return {"method": "lfm", "data.blind": "true"}
    if method == "fm" and settings.observations == "images":  # on the same features
        return {"method": method, "vision.trained": settings.folder / "lfm"}
    return {"method": method}


def _evaluations(settings: Settings, method: str, train: Stage) -> Iterator[Stage]:
    """Yield the evaluation of a policy; of those from images, at temperature 0 too."""
    rollouts = {"episodes": settings.episodes, "seed": UNSEEN, "workers": settings.workers, "videos": 1}
    folder = {"policy": settings.folder / method, "out": settings.folder / f"{method}_evaluation"}
    yield Stage(f"evaluate{_ending(method)}", {**rollouts, **folder}, train)
    if settings.observations == "images":
        folder["out"] = settings.folder / f"{method}_evaluation_typical"
        yield Stage(f"evaluate_typical{_ending(method)}", {**rollouts, **folder, "temperature": 0}, train)


def _ending(method: str) -> str:
    return "" if method == "lfm" else f"_{method}"


def summarise(settings: Settings, records: Mapping[str, Any]) -> dict[str, Any]:
    """Return success, cost and times as JSON."""
    keys = ("success", "episodes", "interval", "nfe", "ms_per_chunk")
    summary: dict[str, Any] = {"task": settings.task}
    for method in settings.methods:
        report = read_json(settings.folder / f"{method}_evaluation" / "summary.json")
        summary[method] = {key: report[key] for key in keys}
        if settings.observations == "images":
            typical = read_json(settings.folder / f"{method}_evaluation_typical" / "summary.json")
            summary[method]["temperature_0"] = {key: typical[key] for key in ("success", "interval")}
    names = [stage.name for stage in stages(settings)]
    return {**summary, "seconds": {name: round(records[name]["seconds"], 1) for name in names}}


def table(settings: Settings, summary: Mapping[str, Any]) -> Table:
    """Make a table with one row per method."""
    seconds = summary["seconds"]
    title = f"{settings.task}: {settings.episodes} unseen seeds, {settings.demonstrations} scripted demonstrations"
    rows = Table(title=title, caption=f"collect {seconds['collect']:.0f} s, prepare {seconds['prepare']:.0f} s")
    images = settings.observations == "images"
    typical = ("at temperature 0",) if images else ()
    for column in ("method", "success", "95 % interval", *typical, "NFE", "ms/chunk", "train", "evaluate"):
        rows.add_column(column, justify="left" if column == "method" else "right")
    for method in settings.methods:
        report, ending = summary[method], _ending(method)
        low, high = report["interval"]
        rows.add_row(
            METHODS[method],
            f"{report['success']:.2f}",
            f"{low:.2f} … {high:.2f}",
            *((f"{report['temperature_0']['success']:.2f}",) if images else ()),
            f"{report['nfe']:g}",
            f"{report['ms_per_chunk']:.1f}",
            f"{seconds[f'train{ending}']:.0f} s",
            f"{seconds[f'evaluate{ending}']:.0f} s",
        )
    return rows
