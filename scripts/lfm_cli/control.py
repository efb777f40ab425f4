"""Control a robot in closed loop and real time: the simulator runs in its own process and waits for nobody.

    lfm control policy=lift rate_hz=20 episodes=10
    lfm control policy=outputs/lift inference=sync added_latency_ms=100
    lfm control policy=ws://localhost:8000 minutes=5 seam=ensemble
    lfm control policy=outputs/arm robot=lerobot:so101_follower \\
        robot_options.port=/dev/ttyACM0 dry_run=true
    lfm control policy=outputs/arm robot=tcp://localhost:5557 \\
        limits_from=data/arm.zarr episode_s=20

Any key, Ctrl-C, SIGTERM or SIGUSR1 is the emergency stop. Leaves summary.json and events.jsonl (every refused command
with its reason, lost chunk and missed deadline) in the output folder.
"""

from contextlib import AbstractContextManager, ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

from pydantic import Field

from lfm_policy.choices import Arithmetic, Perturbation, Place, PolicyChoice, Sampling, Score
from lfm_policy.control.session import SessionOptions
from lfm_policy.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from lfm_policy.chunks.band import Band
    from lfm_policy.contract import Contract
    from lfm_policy.control.inference import Judge
    from lfm_policy.control.robot import Robot
    from lfm_policy.protocols import ChunkPolicy, Environment

RENAMED = {"steps": "solver.steps"}


class Settings(SessionOptions, Arithmetic, Sampling, PolicyChoice):
    """A policy, a robot, and how they are connected."""

    api_key: str | None = Field(default=None, description="key of a policy server that asks for one")
    threads: int = Field(default=1, ge=1, description="CPU threads of the policy")
    environment: str | None = Field(
        default=None, description="name of a simulated robot's environment; null: the one in the policy's contract"
    )
    robot: str | None = Field(
        default=None,
        description="a robot of yours: package.module:Class, made with the policy's contract; lerobot:so101_follower "
        "or another type of LeRobot's; tcp://host:port of a process that answers for it; null: a simulated one",
    )
    robot_options: dict[str, Any] = Field(
        default={},
        description="what makes the robot: arguments of your class, LeRobot's configuration (robot_options.port=…)",
    )
    stop_if: str | None = Field(
        default=None,
        description="package.module:function of yours, asked before every command (a pedal, a light barrier): true, or "
        "a text that says why, pulls the emergency stop",
    )
    disturbance: Perturbation = Field(
        default="none",
        description="what goes wrong with a simulated robot on purpose, to try a monitor; see lfm monitor",
    )
    disturbance_step: int = Field(default=12, ge=1, description="from which control step on")
    warm_blocks: int | None = Field(
        default=None, ge=1, description="blocks that seam=warm evaluates; null: half of them"
    )
    monitor: Place | None = Field(
        default=None, description="bands.json of lfm monitor: score every chunk; an unusual one is recorded"
    )
    monitor_score: Score = Field(default="logpzo", description="which score")
    limits_from: Place | None = Field(
        default=None,
        description="prepared data whose demonstrations set the limits in space, or of each joint (times 1.5)",
    )


def main(settings: Settings) -> None:
    """Open the policy, control, and show what came of it."""
    from lfm_envs.lookup import load_object
    from lfm_policy.control.session import learned_limits, session
    from lfm_policy.files import write_json

    with ExitStack() as stack:
        policy = load(settings, stack)
        limits = settings.limits
        if settings.limits_from is not None:
            limits = learned_limits(settings.limits_from, policy.contract, limits)
        judge, alarm = watch(settings)
        name, factory = place_of(settings, policy.contract)
        asked = None if settings.stop_if is None else load_object(settings.stop_if)
        summary = session(policy, factory, settings, limits=limits, judge=judge, alarm=alarm, asked=asked)
    identity = {"environment": name, "settings": settings.model_dump(mode="json", exclude={"api_key"})}
    write_json(settings.out / "summary.json", summary | identity)
    show(summary, name, policy.contract.unit)


def place_of(settings: Settings, contract: "Contract") -> "tuple[str, Robot | Callable[[], Environment]]":
    """Find what is controlled: a robot of the user's, or the policy's environment; its name, and what makes it."""
    import lfm_envs
    from lfm_envs.perturbed import perturbed

    if settings.robot is None:
        name, make = lfm_envs.factory_for(contract, settings.environment, trust_code=settings.trust_code)
        if settings.disturbance == "none":
            return name, make
        return name, partial(perturbed, make, settings.disturbance, settings.disturbance_step)
    if settings.disturbance != "none":
        raise ConfigError("disturbance= is of a simulated robot: leave it out, or leave robot= out")
    return settings.robot, robot_of(settings.robot, contract, settings.robot_options)


def robot_of(source: str, contract: "Contract", options: dict[str, Any]) -> "Robot":
    """Make and connect a robot: one of LeRobot's, one behind a socket, or one of the user's own.

    Raises:
        ConfigError: there is no such robot, or it has no such options.
    """
    from lfm_envs.lookup import load_object
    from lfm_policy.control.robot import Robot

    scheme, _, rest = source.partition(":")
    if scheme == "lerobot":
        from lfm_policy.control.lerobot import open_lerobot

        return open_lerobot(contract, rest, options)
    if rest.startswith("//"):
        from lfm_policy.control.bridge import BridgedRobot

        make, options = BridgedRobot, {"address": source, **options}
    else:
        make = load_object(source)
    try:
        made = make(contract, **options)
    except TypeError as error:
        if not options:
            raise
        raise ConfigError(f"'{source}' does not take robot_options={options}: {error}") from error
    if not isinstance(made, Robot):
        raise ConfigError(f"'{source}' made no robot: expected reset, read, send, stop and close, found {made!r}")
    return made


def load(settings: Settings, stack: ExitStack) -> "ChunkPolicy":
    """Open the policy, here or behind a server."""
    from lfm_policy.bundles.open import dress, open_policy

    policy = open_policy(
        settings.policy,
        runtime="torch" if settings.seam == "warm" else "auto",
        weights=settings.weights,
        precision=settings.precision,
        sampling=settings.sampling,
        threads=settings.threads,
        trust_code=settings.trust_code,
        api_key=settings.api_key,
    )
    if isinstance(policy, AbstractContextManager):  # a connection to a server
        stack.enter_context(policy)
    return dress(policy, settings.seam, settings.warm_blocks, 1)[0]


def watch(settings: Settings) -> "tuple[Judge | None, Band | None]":
    """Build the monitor and give its alarm levels, where one is asked for.

    Raises:
        ConfigError: there is no policy in torch to ask, or no such alarm levels.
    """
    if settings.monitor is None:
        return None, None
    if settings.policy.startswith(("ws://", "wss://")):
        raise ConfigError("monitor= asks the policy's density here: give policy= a folder or a name, not a server")
    from lfm_envs.monitoring import OBSERVATIONS
    from lfm_policy.bundles.open import open_torch
    from lfm_policy.chunks.band import Band
    from lfm_policy.chunks.monitor import Monitor
    from lfm_policy.files import read_json
    from lfm_policy.models.density import FlowModel
    from lfm_policy.settings import parse

    bands = read_json(settings.monitor) if settings.monitor.is_file() else {}
    if settings.monitor_score not in bands:
        raise ConfigError(f"no alarm level for '{settings.monitor_score}' in {settings.monitor}: run lfm monitor")
    band = parse(Band, bands[settings.monitor_score], str(settings.monitor))
    policy = open_torch(
        settings.policy, sampling=settings.sampling, threads=settings.threads, trust_code=settings.trust_code
    )
    density = FlowModel.from_pretrained(settings.monitor.parent / OBSERVATIONS) if band.score == "logpzo" else None
    monitor = Monitor(policy, band.score, band.draws, observations=density)

    def judge(*seen: Any) -> float:
        return float(monitor.scores(*(rows[None] for rows in seen))[0])

    return judge, band


def show(summary: dict[str, Any], environment: str, unit: str) -> None:
    """Show the table at the end."""
    from rich.console import Console
    from rich.table import Table

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
    table.add_row("commands held", ", ".join(f"{k} {v}" for k, v in summary["refusals"].items()) or "none")
    table.add_row("alarms of the monitor", str(summary["alarms"]))
    jerk = summary["seam_jerk"]
    table.add_row("jerk between chunks", "no seam" if jerk is None else f"{jerk:.0f} {unit}/s³")
    Console().print(table)
