"""Control a robot in closed loop and real time: the simulator runs in its own process and waits for nobody.

    lfm control bundle=outputs/bundles/lift rate_hz=20 episodes=10
    lfm control checkpoint=outputs/lift inference=sync added_latency_ms=100
    lfm control server=ws://localhost:8000 minutes=5 seam=ensemble

Ctrl-C, SIGTERM or SIGUSR1 is the emergency stop. Leaves summary.json, episodes.jsonl and events.jsonl (every refused
command with its reason, lost chunk and missed deadline) in the output folder.
"""

import functools
import json
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

import lfm_envs
from lfm_cli import command_line as _cli
from lfm_policy.bundles.open import Sampling, dress, open_policy, open_torch
from lfm_policy.control.clock import Pace
from lfm_policy.control.inference import Delay, Inference
from lfm_policy.control.limits import Limits, limits_of
from lfm_policy.control.loop import ControlLoop, ControlOptions, Episode, describe, refusal_event
from lfm_policy.control.robot import SimulatedRobot, run_first
from lfm_policy.control.safety import EmergencyStop, Gate
from lfm_policy.errors import ConfigError
from lfm_policy.files import read_json, write_json
from lfm_policy.measure.statistics import wilson_interval
from lfm_policy.settings import parse

if TYPE_CHECKING:
    from lfm_policy.contract import Contract
    from lfm_policy.control.inference import Judge
    from lfm_policy.protocols import ChunkPolicy


class Settings(Sampling):
    """See config/control.yaml."""

    bundle: str | None
    checkpoint: Path | None
    server: str | None
    api_key: str | None
    precision: str | None
    threads: int = Field(ge=1)
    trust_code: bool = False
    env: str | None
    seed: int = Field(ge=0)
    episodes: int = Field(ge=1)
    minutes: float | None = Field(gt=0)
    rate_hz: float = Field(gt=0)
    inference: Literal["sync", "async"]
    seam: Literal["switch", "ensemble", "warm"]
    warm_blocks: int | None = Field(ge=1)
    added_latency_ms: float = Field(ge=0)
    loss: float = Field(ge=0, lt=1)
    tolerance_ms: float = Field(gt=0)
    realtime: bool
    monitor: Path | None
    monitor_score: Literal["density", "residual", "variance"]
    alarm_stops: bool
    limits: Limits
    limits_from: Path | None
    out: Path

    @model_validator(mode="after")
    def _check(self) -> "Settings":
        given = [name for name in ("bundle", "checkpoint", "server") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"expected one of bundle=, checkpoint= and server=, found {given or 'none'}")
        return self


def main(settings: Settings) -> None:
    with ExitStack() as stack:
        policy = load(settings, stack)
        environment = settings.env or lfm_envs.name_for(policy.contract)
        settings.out.mkdir(parents=True, exist_ok=True)
        write = stack.enter_context(_lines(settings.out / "events.jsonl"))
        stop = _emergency_stop(stack)
        limits = _limits(settings, policy.contract)
        gate = Gate(policy.contract, limits, settings.rate_hz, stop, lambda refusal: write(refusal_event(refusal)))
        factory = functools.partial(lfm_envs.make, environment)
        log = settings.out / "simulator.log"
        robot = stack.enter_context(SimulatedRobot(factory, settings.rate_hz, log, settings.realtime))
        delay = Delay(latency_ms=settings.added_latency_ms, loss=settings.loss, seed=settings.seed)
        judge, alarm = watch(settings)
        inference = stack.enter_context(Inference(policy, delay, judge=judge))
        options = ControlOptions(**settings.model_dump(include=set(ControlOptions.model_fields)), alarm=alarm)
        loop = ControlLoop(policy, robot, inference, gate, options, record=write)
        first = settings.realtime and run_first()
        episodes, world = run(loop, robot, settings, stop)
    summary = summarize(policy, episodes, world, settings.tolerance_ms)
    identity = {"environment": environment, "realtime": first, "limits": limits.model_dump(mode="json")}
    write_json(settings.out / "summary.json", summary | identity | {"settings": settings.model_dump(mode="json")})
    show(summary, environment)


def run(
    loop: ControlLoop, robot: SimulatedRobot, settings: Settings, stop: EmergencyStop
) -> tuple[list[Episode], Counter[str]]:
    """Episode after episode, until as many are done or as much time has been controlled; and the simulator's counts."""
    episodes: list[Episode] = []
    world: Counter[str] = Counter()
    target = 60 * settings.minutes if settings.minutes else float(settings.episodes)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, refresh_per_second=1) as bar:
        task = bar.add_task("controlling", total=target)
        done = 0.0
        while done < target and not stop.pulled:
            episode = loop.run(settings.seed + len(episodes))
            episodes.append(episode)
            world.update(robot.counts)
            ticks = len(episode.pace.late_ms) + episode.pace.skipped
            done += ticks / settings.rate_hz if settings.minutes else 1
            successes = sum(found.success for found in episodes)
            bar.update(task, completed=done, description=f"success {successes}/{len(episodes)}")
    return episodes, world


def load(settings: Settings, stack: ExitStack) -> "ChunkPolicy":
    """The policy, here or behind a server."""
    source = settings.server or settings.bundle or str(settings.checkpoint)
    policy = open_policy(
        source,
        runtime="onnx" if settings.bundle is not None and settings.seam != "warm" else "torch",
        precision=settings.precision,
        sampling=settings.sampling,
        threads=settings.threads,
        trust_code=settings.trust_code,
        api_key=settings.api_key,
    )
    if isinstance(policy, AbstractContextManager):  # a connection to a server
        stack.enter_context(policy)
    return dress(policy, settings.seam, settings.warm_blocks, 1)[0]


def watch(settings: Settings) -> "tuple[Judge | None, float | None]":
    """The likelihood monitor and its alarm level, where one is asked for.

    Raises:
        ConfigError: there is no policy in torch to ask, or no such alarm level.
    """
    if settings.monitor is None:
        return None, None
    source = settings.checkpoint or settings.bundle
    if source is None:
        raise ConfigError("monitor= asks the policy's density here: give checkpoint= or bundle=, not server=")
    from lfm_policy.chunks.monitor import Monitor, Threshold

    levels = read_json(settings.monitor) if settings.monitor.is_file() else {}
    if settings.monitor_score not in levels:
        raise ConfigError(f"no alarm level for '{settings.monitor_score}' in {settings.monitor}: run lfm monitor")
    level = parse(Threshold, levels[settings.monitor_score], str(settings.monitor))
    policy = open_torch(source, sampling=settings.sampling, threads=settings.threads, trust_code=settings.trust_code)
    monitor = Monitor(policy, level.score, level.draws)
    return lambda history, chunk: float(monitor.scores(history[None], chunk[None])[0]), level.value


def summarize(
    policy: "ChunkPolicy", episodes: list[Episode], world: Counter[str], tolerance_ms: float
) -> dict[str, Any]:
    """All episodes together, and one by one, as plain values."""
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


def show(summary: dict[str, Any], environment: str) -> None:
    """The table at the end."""
    pace, low_high = summary["deadlines"], summary["interval"]
    table = Table(title=f"closed loop: {environment}", show_header=False, title_justify="left")
    rate = "no episode was finished" if summary["success"] is None else f"{summary['success']:.3f}"
    table.add_row("success", f"{rate}, {summary['episodes']} episodes [{low_high[0]:.3f}, {low_high[1]:.3f}]")
    table.add_row("control ticks", f"{pace['ticks']}, and {pace['skipped']} skipped")
    table.add_row(f"later than {pace['tolerance_ms']:g} ms", str(pace["missed"]))
    lateness = (
        f"{pace['late_ms_p50']:.2f} ms median, {pace['late_ms_p99']:.2f} ms at 99 %, {pace['late_ms_max']:.2f} ms"
    )
    table.add_row("lateness", f"{lateness} at most")
    table.add_row("answers", f"{summary['answer_ms_p50']:.1f} ms median, {summary['answer_ms_p99']:.1f} ms at 99 %")
    table.add_row(
        "actions dropped, chunks lost, ticks held", f"{summary['dropped']}, {summary['lost']}, {summary['held']}"
    )
    table.add_row("refused commands", ", ".join(f"{k} {v}" for k, v in summary["refusals"].items()) or "none")
    table.add_row("alarms of the monitor", str(summary["alarms"]))
    jerk = summary["seam_jerk"]
    table.add_row("jerk between chunks", "no seam" if jerk is None else f"{jerk:.0f} m/s³")
    Console().print(table)


def _limits(settings: Settings, contract: "Contract") -> Limits:
    if settings.limits_from is None:
        return settings.limits
    from lfm_policy.data.windows.store import open_store

    store = open_store(settings.limits_from)
    contract.require_match(store.contract, "the policy", str(settings.limits_from))
    episodes = ((found.observation, found.action) for found in (store.episode(int(i)) for i in store.train))
    learned = limits_of(contract, episodes)
    kept = ("gripper", "stale_s", "ramp_s")
    return learned.model_copy(update={name: getattr(settings.limits, name) for name in kept})


def _emergency_stop(stack: ExitStack) -> EmergencyStop:
    """Pulled by signals; the second Ctrl-C ends the program as usual."""
    stop = EmergencyStop()

    def pull(number: int, frame: object) -> None:
        if stop.pulled and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.pull(f"signal {signal.Signals(number).name}")

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        stack.callback(signal.signal, number, signal.signal(number, pull))
    return stop


@contextmanager
def _lines(path: Path) -> Iterator[Any]:
    """A function that appends one JSON line."""
    with path.open("w", buffering=1) as file:
        yield lambda event: file.write(json.dumps({"time": round(time.time(), 3), **event}) + "\n")


if __name__ == "__main__":
    _cli.run("control", Settings, main, __doc__)
