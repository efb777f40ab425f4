"""From demonstration files (HDF5) to a prepared data set: absolute actions, observations, contract, in zarr.

Official and raw files hold delta actions: the goal pose of each is read off the simulator at the recorded state.
"""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

import lfm_envs
from lfm_envs.replay import Replay, convert, from_axis_angle, loadable_model, recorded_states, replay
from lfm_envs.tasks import TASKS, task
from lfm_policy.actions.poses import position_columns
from lfm_policy.contract import Contract
from lfm_policy.data.demos.file import DemoFile, open_demos
from lfm_policy.data.demos.pictures import Pictures, find_pictures
from lfm_policy.data.windows.store import SHORTEST, Episode, Split, Store, open_store, write_store
from lfm_policy.errors import ConfigError, DataError
from lfm_policy.files import keeping, names_apart, write_json
from lfm_policy.locks import owned

VISIBLE_GAP = 5e-3
"""Difference of observations that is worth telling: reading them 2 ms late, as robosuite does, explains less."""


@dataclass
class Tally:
    """What was seen in one file."""

    file: DemoFile
    label: str
    """Tells it apart from the other files."""
    pictures: Pictures | None = None
    lengths: list[int] = field(default_factory=list)
    clipped: int = 0
    observation_gap: float = 0.0
    seconds: float = 0.0
    low: np.ndarray = field(default_factory=lambda: np.full(3, np.inf))
    high: np.ndarray = field(default_factory=lambda: np.full(3, -np.inf))

    def add(self, episode: Episode, clipped: int, gap: float, seconds: float) -> None:
        """Count one episode; positions of all arms share one range."""
        positions = episode.action[:, position_columns(self.file.contract)].reshape(-1, 3)
        self.lengths.append(len(episode.action))
        self.clipped += clipped
        self.observation_gap = max(self.observation_gap, gap)
        self.seconds += seconds
        self.low, self.high = np.minimum(self.low, positions.min(0)), np.maximum(self.high, positions.max(0))

    def notes(self) -> list[str]:
        """Tell what a user should know about how this file was read."""
        ranges = zip("xyz", self.low, self.high, strict=True)
        notes = ["positions [m] " + ", ".join(f"{axis} {low:.2f}…{high:.2f}" for axis, low, high in ranges)]
        notes += self.file.notes
        if short := sum(length < SHORTEST for length in self.lengths):
            notes.append(f"{short} of its demonstrations are shorter than {SHORTEST} steps: too short for a window")
        notes += [] if self.pictures is None else self.pictures.notes()
        if self.file.kind != "native":
            notes.append("deltas became absolute poses in the world frame, observations are this simulator's")
        if self.clipped:
            notes.append(f"{self.clipped} numbers of its actions were beyond ±1 and clipped, as the controller does")
        if self.observation_gap > VISIBLE_GAP:
            notes.append(f"its own observations differ from this simulator's by up to {self.observation_gap:.3g}")
        return notes

    def summary(self) -> dict[str, Any]:
        """Give the same as JSON."""
        return {
            **self.file.source(),
            "episodes": len(self.lengths),
            "steps": sum(self.lengths),
            "length": [min(self.lengths), max(self.lengths)],
            "position_m": [self.low.tolist(), self.high.tolist()],
            "clipped": self.clipped,
            "observation_gap": self.observation_gap,
            "notes": self.notes(),
            "seconds": round(self.seconds, 2),
        }


def simulator(contract: Contract, environment: str | None = None) -> Any:
    """Build the environment that shows what this contract's policies see, once."""
    key: Any = contract  # frozen and so hashable, which type checkers do not see
    return _simulator(key, environment)


@cache
def _simulator(contract: Contract, environment: str | None) -> Any:
    env: Any = lfm_envs.factory_for(contract, environment)[1]()
    env.reset(0)
    return env


def prepare(
    source: Sequence[Path],
    out: Path | None = None,
    *,
    observations: Literal["state", "images"] = "state",
    cameras: Sequence[str] | None = None,
    mask: str | None = None,
    replay: int | Literal["all"] = 0,
    environment: str | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Write a prepared data set, say what was found, and execute demonstrations as a proof if asked to.

    Args:
        source: HDF5 files of demonstrations.
        out: the data set; by default data/<task>_<names of the sources>.zarr.
        observations: with the objects' poses, or with the pictures in the files.
        cameras: of images, whose pictures, in this order; all by default.
        mask: take only the demonstrations of one of the files' filter keys.
        replay: demonstrations whose stored actions are executed in the simulator.
        environment: name or address of a robosuite task that the files are of; by default one of ours.
        console: where to say it.

    Returns:
        What summary.json in the data set says.

    Raises:
        DataError: a file cannot be used.
        ContractError: the files mean different things.
    """
    console, started = console or Console(), time.perf_counter()
    with ExitStack() as stack:
        known = [*TASKS.values(), *([] if environment is None else [task(environment)])]
        contracts = {task.environment: task.contract for task in known}
        require_different(source)
        opened = [stack.enter_context(open_demos(path, contracts, mask=mask)) for path in source]
        tallies = seen_by_policy(opened, observations, cameras)
        contract = tallies[0].file.contract
        out = out or default_output(contract, [tally.label for tally in tallies])
        stack.enter_context(owned(out))
        _write(tallies, out, console, environment)
        summary = {
            "out": str(out),
            "contract": contract.model_dump(mode="json"),
            "files": [tally.summary() for tally in tallies],
            "replay": replay_summary(replay_some(tallies, open_store(out), replay, console, environment)),
            "seconds": round(time.perf_counter() - started, 2),
        }
        with keeping(out / "summary.json"):
            write_json(out / "summary.json", summary)
    return summary


def _write(tallies: Sequence[Tally], out: Path, console: Console, environment: str | None) -> None:
    """Convert the demonstrations into the data set, and say what was found in each file."""
    files = [tally.file for tally in tallies]
    with progress(console) as bar:
        split = joint_split(files)
        origin = {"files": [file.source() for file in files]}
        write_store(out, convert_all(tallies, split, bar, environment), files[0].contract, split, origin)
    console.print(files_table(tallies, out))
    for tally in tallies:
        for note in tally.notes():
            console.print(f"{tally.label}: {note}", markup=False, highlight=False)


def require_different(paths: Sequence[Path]) -> None:
    """Check that no file is given twice: its demonstrations would count double, also as seen and held out.

    Raises:
        DataError: one is.
    """
    places = [os.path.realpath(path) for path in paths]
    if twice := sorted({str(path) for path, place in zip(paths, places, strict=True) if places.count(place) > 1}):
        raise DataError(f"source= names one file more than once ({', '.join(twice)}): name each file once")


def seen_by_policy(
    files: Sequence[DemoFile], observations: Literal["state", "images"], cameras: Sequence[str] | None
) -> list[Tally]:
    """Read files as the policy is to see them, by names that tell them apart.

    Raises:
        ContractError: they mean different things.
    """
    labels = names_apart([file.path for file in files])
    tallies = [seen_by(file, label, observations, cameras) for file, label in zip(files, labels, strict=True)]
    for tally in tallies[1:]:
        tallies[0].file.contract.require_match(tally.file.contract, tallies[0].label, tally.label)
    return tallies


def seen_by(file: DemoFile, label: str, observations: str, cameras: Sequence[str] | None) -> Tally:
    """Read the file as the policy is to see it: with the objects' poses, or with pictures in their place."""
    if observations == "state":
        if cameras is not None:
            raise ConfigError("cameras= are for observations=images, found observations=state: add it, or leave them")
        return Tally(file, label)
    pictures = find_pictures(file, None if cameras is None else tuple(cameras))
    seen = tuple(key for key in file.contract.observations if key.name != "object")
    contract = Contract.model_validate(dict(file.contract) | {"observations": seen, "cameras": pictures.cameras})
    return Tally(replace(file, contract=contract), label, pictures)


def default_output(contract: Contract, labels: Sequence[str]) -> Path:
    """Return data/<task>_<names of the sources>.zarr: official files have the same name in all tasks."""
    known = {task.environment: task.name for task in reversed(TASKS.values())}
    task = known.get(contract.environment, contract.environment.lower())
    name = "+".join(str(Path(label).with_suffix("")).replace("/", "-") for label in labels)
    return Path("data") / f"{name if name.startswith(task) else f'{task}_{name}'}.zarr"


def convert_all(
    tallies: Sequence[Tally], split: Mapping[Split, Sequence[int]], bar: Progress, environment: str | None = None
) -> Iterator[Episode]:
    """Convert every episode of every file in turn.

    Raises:
        DataError: at the end, a split has no episode that is long enough for a training.
    """
    job = bar.add_task("preparing", total=sum(len(tally.file) for tally in tallies))
    for tally in tallies:
        file = tally.file
        for index in range(len(file)):
            begun = time.perf_counter()
            demo, gap = file.read(index), 0.0
            if file.kind == "native":
                assert demo.observation is not None
                assert demo.actions_abs is not None
                episode = Episode(demo.observation, from_axis_angle(demo.actions_abs))
            else:
                converted = convert(simulator(file.contract, environment), demo, file.recording.controllers)
                episode, gap = converted.episode, converted.observation_gap
            if tally.pictures is not None:
                episode = replace(episode, frames=tally.pictures.read(index))
            tally.add(episode, demo.clipped, gap, time.perf_counter() - begun)
            yield episode
            bar.advance(job)
    lengths = [length for tally in tallies for length in tally.lengths]
    for name, chosen in split.items():
        if chosen and (longest := max(lengths[index] for index in chosen)) < SHORTEST:
            raise DataError(
                f"a training takes windows, which need {SHORTEST} steps, and the longest demonstration of the split "
                f"'{name}' has {longest}: add longer ones, or leave that split empty"
            )


def joint_split(files: Sequence[DemoFile]) -> dict[Split, list[int]]:
    """Join the files' splits, in the numbering of the data set that holds them one after the other."""
    split: dict[Split, list[int]] = {"train": [], "valid": []}
    offset = 0
    for file in files:
        for name, indices in split.items():
            indices.extend(offset + index for index in file.split[name])
        offset += len(file)
    return split


def replay_some(
    tallies: Sequence[Tally],
    store: Store,
    count: int | Literal["all"],
    console: Console,
    environment: str | None = None,
) -> dict[str, Replay]:
    """Execute the first `count` stored demonstrations, over all files, and show what came of each."""
    chosen = [(tally, index) for tally in tallies for index in range(len(tally.file))]
    if count != "all":
        chosen = chosen[:count]
    if not chosen:
        return {}
    env = simulator(store.contract, environment)
    store.contract.require_match(env.contract, "the data", "the simulator here")
    results = {}
    with progress(console) as bar:
        for row, (tally, index) in enumerate(bar.track(chosen, description="replaying")):
            file = tally.file
            demo = file.read(index)
            model = loadable_model(env, file.recording.suite_version, file.model_xml(index))
            actions = store.episode(row).action
            results[f"{tally.label}/{demo.name}"] = replay(env, recorded_states(demo), actions, model)
    console.print(replay_table(results))
    return results


def replay_summary(results: dict[str, Replay]) -> dict[str, Any] | None:
    """Return successes and errors in [mm] and [deg] as JSON; None if nothing was replayed."""
    if not results:
        return None
    rows = {name: {"success": bool(result.success), **result.errors()} for name, result in results.items()}
    return {"episodes": len(rows), "successes": sum(row["success"] for row in rows.values()), "each": rows}


def files_table(tallies: Sequence[Tally], out: Path) -> Table:
    """Show what each file held."""
    table = Table(title=escape(f"prepared {out}"))
    for column in ("file", "kind", "episodes", "steps", "length", "clipped", "seconds"):
        table.add_column(column, justify="left" if column in ("file", "kind") else "right")
    for tally in tallies:
        table.add_row(
            escape(tally.label),
            tally.file.kind,
            str(len(tally.lengths)),
            str(sum(tally.lengths)),
            f"{min(tally.lengths)}…{max(tally.lengths)}",
            str(tally.clipped),
            f"{tally.seconds:.1f}",
        )
    return table


def replay_table(results: dict[str, Replay]) -> Table:
    """Make a table of success and distance from the recorded path of each replayed demonstration."""
    successes = sum(result.success for result in results.values())
    table = Table(
        title=f"replayed absolute actions: {successes} of {len(results)} succeed",
        caption="distance from the recorded path, and the turn away from it",
    )
    table.add_column("demonstration", overflow="fold")
    for column in ("success", "mean mm", "max mm", "mean deg", "max deg"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, result in results.items():
        table.add_row(
            escape(name), "yes" if result.success else "no", *(f"{value:.2f}" for value in result.errors().values())
        )
    return table


def progress(console: Console) -> Progress:
    """Make a bar with the time left."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, TextColumn("left"), TimeRemainingColumn(), console=console)
