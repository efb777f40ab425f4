"""Episodes of closed-loop control, one after the other, with their log and summary; as `lfm control` runs them."""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from lfm_policy.actions.motion import rest_actions
from lfm_policy.choices import Place
from lfm_policy.control.clock import Pace
from lfm_policy.control.inference import Delay, Inference
from lfm_policy.control.limits import Limits, limits_of
from lfm_policy.control.loop import ControlLoop, ControlOptions, Episode, LoopOptions, describe, refusal_event
from lfm_policy.control.robot import DryRun, Robot, SimulatedRobot, run_first
from lfm_policy.control.safety import Gate
from lfm_policy.control.stops import Asked, EmergencyStop, keys_pull, signals_pull
from lfm_policy.measure.statistics import wilson_interval

if TYPE_CHECKING:
    from lfm_policy.chunks.band import Band
    from lfm_policy.contract import Contract
    from lfm_policy.control.inference import Judge
    from lfm_policy.protocols import ChunkPolicy, Environment


FIRST_MOVE_S = 1.0
"""Shortest ramp of a robot's first move, where no other is asked for [s]."""


class SessionOptions(LoopOptions):
    """How many episodes, over what line, and within which limits."""

    seed: int = Field(default=100_000, ge=0, description="seed of the first episode; the others follow")
    episodes: int = Field(default=10, ge=1, description="episodes to run")
    minutes: float | None = Field(
        default=None, gt=0, description="run episodes for as much controlled time instead [min]"
    )
    added_latency_ms: float = Field(default=0, ge=0, description="added to every answer of the policy [ms]")
    packet_loss: float = Field(default=0, ge=0, lt=1, description="probability that an answer is lost")
    realtime: bool = Field(
        default=False,
        description="ask the kernel to run loop and simulator before other processes (SCHED_FIFO; needs the right to)",
    )
    dry_run: bool = Field(
        default=False, description="look at the robot and judge commands, but send none; an episode is dry_ticks long"
    )
    dry_ticks: int = Field(default=100, ge=1, description="commands of a dry run's episode")
    limits: Limits = Limits()
    out: Place = Field(default=Path("outputs/control"), description="output folder")


def session(
    policy: "ChunkPolicy",
    place: "Robot | Callable[[], Environment]",
    options: SessionOptions,
    *,
    limits: Limits | None = None,
    judge: "Judge | None" = None,
    alarm: "Band | None" = None,
    asked: Asked | None = None,
) -> dict[str, Any]:
    """Control a robot, or an environment that steps in real time in a process of its own.

    Ctrl-C, SIGTERM, SIGUSR1 or any key in the terminal is the emergency stop. Every refused command, lost chunk and
    missed deadline goes to events.jsonl in the output folder.

    Args:
        policy: what the chunks come from.
        place: the robot, which is closed at the end; or what makes an environment, in another process (picklable).
        options: of the session.
        limits: what is used in the place of those in the options.
        judge: scores every chunk.
        alarm: a score above its level is recorded.
        asked: called before every command; true pulls the emergency stop.

    Returns:
        All episodes together, and one by one, as plain values.
    """
    limits = _with_ramp(limits or options.limits, policy.contract, isinstance(place, Robot))
    options.out.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        write = stack.enter_context(_lines(options.out / "events.jsonl"))
        stop = EmergencyStop(asked)
        stack.enter_context(signals_pull(stop))
        stack.enter_context(keys_pull(stop))
        robot = stack.enter_context(_robot(place, options))
        gate = Gate(policy.contract, limits, options.rate_hz, stop, lambda refusal: write(refusal_event(refusal)))
        delay = Delay(latency_ms=options.added_latency_ms, packet_loss=options.packet_loss, seed=options.seed)
        inference = stack.enter_context(Inference(policy, delay, judge=judge))
        control = ControlOptions(**options.model_dump(include=set(LoopOptions.model_fields)), alarm=alarm)
        loop = ControlLoop(policy, robot, inference, gate, control, record=write)
        first = options.realtime and run_first()
        episodes, world = run(loop, robot, options, stop)
    found = summarize(policy, episodes, world, options.tolerance_ms)
    return found | {"realtime": first, "limits": limits.model_dump(mode="json")}


def _with_ramp(limits: Limits, contract: "Contract", hardware: bool) -> Limits:
    """Let a robot begin slowly where nothing else was asked for and its place is known."""
    if limits.ramp_s is not None:
        return limits
    known = rest_actions(contract, np.zeros((1, contract.observation_dim))) is not None
    return limits.model_copy(update={"ramp_s": FIRST_MOVE_S if hardware and known else 0.0})


@contextmanager
def _robot(place: "Robot | Callable[[], Environment]", options: SessionOptions) -> Iterator[Robot]:
    """Yield the robot that the loop talks to, and close it at the end."""
    if isinstance(place, Robot):
        robot = place
    else:
        robot = SimulatedRobot(place, options.rate_hz, options.out / "simulator.log", options.realtime)
    try:
        yield DryRun(robot, options.dry_ticks) if options.dry_run else robot
    finally:
        robot.close()


def run(
    loop: ControlLoop, robot: Robot, options: SessionOptions, stop: EmergencyStop
) -> tuple[list[Episode], Counter[str]]:
    """Run episodes until as many are done or as much time has been controlled; also return the simulator's counts."""
    episodes: list[Episode] = []
    world: Counter[str] = Counter()
    target = 60 * options.minutes if options.minutes else float(options.episodes)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, refresh_per_second=1) as bar:
        task = bar.add_task("controlling", total=target)
        done = 0.0
        while done < target and not stop.pulled:
            episode = loop.run(options.seed + len(episodes))
            episodes.append(episode)
            world.update(robot.counts if isinstance(robot, SimulatedRobot) else {})
            ticks = len(episode.pace.late_ms) + episode.pace.skipped
            done += ticks / options.rate_hz if options.minutes else 1
            successes = sum(found.success for found in episodes)
            bar.update(task, completed=done, description=f"success {successes}/{len(episodes)}")
    return episodes, world


def summarize(
    policy: "ChunkPolicy", episodes: list[Episode], world: Counter[str], tolerance_ms: float
) -> dict[str, Any]:
    """Summarise all episodes together, and one by one, as plain values."""
    pace, refusals = Pace(tolerance_ms), Counter[str]()
    for episode in episodes:
        pace.extend(episode.pace)
        refusals.update(episode.refusals)
    finished = [episode for episode in episodes if not episode.stopped]
    successes = sum(episode.success for episode in finished)
    answers = sorted(ms for episode in episodes for ms in episode.answer_ms) or [0.0]
    described = [describe(episode, policy) for episode in episodes]
    jerks = [row["seam_jerk"] for row in described if row["seam_jerk"] is not None]
    return {
        "episodes": len(finished),
        "success": successes / len(finished) if finished else None,
        "interval": wilson_interval(successes, len(finished)),
        "deadlines": pace.summary(),
        "chunks": sum(episode.chunks for episode in episodes),
        "answer_ms_p50": round(answers[len(answers) // 2], 3),
        "answer_ms_p99": round(answers[int(0.99 * (len(answers) - 1))], 3),
        "dropped": sum(episode.dropped for episode in episodes),
        "lost": sum(episode.lost for episode in episodes),
        "held": sum(episode.held for episode in episodes),
        "refusals": dict(refusals),
        "alarms": sum(episode.alarms for episode in episodes),
        "seam_jerk": round(sum(jerks) / len(jerks), 3) if jerks else None,
        "simulator": dict(world),
        "each": described,
    }


def learned_limits(data: Path, contract: "Contract", own: Limits) -> Limits:
    """Learn what the demonstrations of a data set asked of the robot, times 1.5; the rest from `own`.

    Raises:
        ContractError: the data have another contract than the policy.
        DataError: the data set is missing or damaged.
    """
    from lfm_policy.data.windows.store import open_store

    store = open_store(data)
    contract.require_match(store.contract, "the policy", str(data))
    episodes = ((found.observation, found.action) for found in (store.episode(int(i)) for i in store.train))
    learned = limits_of(contract, episodes)
    kept = ("gripper", "stale_s", "ramp_s", "ramp_share")
    return learned.model_copy(update={name: getattr(own, name) for name in kept})


@contextmanager
def _lines(path: Path) -> Iterator[Any]:
    """Yield a function that appends one JSON line."""
    with path.open("w", buffering=1, encoding="utf-8") as file:
        yield lambda event: file.write(json.dumps({"time": round(time.time(), 3), **event}) + "\n")
