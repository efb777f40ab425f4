"""What the control loop asks of a robot, and a simulated one: its simulator runs in real time, in its own process.

Like a real robot, the simulator does not wait: it steps at its rate whether or not a new command came, holding the
last one. Until the first command of an episode nothing moves.
"""

import contextlib
import os
import sys
import time
import traceback
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from lfm_policy import compiling
from lfm_policy.actions.motion import hold
from lfm_policy.compiling import Compiling
from lfm_policy.contract import Contract
from lfm_policy.control.clock import MonotonicClock, Ticker
from lfm_policy.errors import LFMError, RolloutError
from lfm_policy.processes import child_surroundings, end_with
from lfm_policy.protocols import Environment
from lfm_policy.rollout.play import seen_now
from lfm_policy.rollout.records import Failure, Ready
from lfm_policy.rollout.workers import Factory


@dataclass(frozen=True)
class Reading:
    """What a robot has seen since it was last asked."""

    rows: np.ndarray
    """float32 (k, observation_dim), flattened in the contract's order, oldest first; k may be 0."""
    success: bool = False
    over: bool = False
    """The episode is over: success, or too many steps."""
    frames: np.ndarray | None = None
    """uint8 (cameras, height, width, 3): what the contract's cameras saw at the latest row; None without any."""


@runtime_checkable
class Robot(Protocol):
    """Hardware or a simulator, with a clock of its own."""

    @property
    def contract(self) -> Contract:
        """What its actions and observations mean."""
        ...

    def reset(self, seed: int) -> Reading:
        """Begin an episode; the robot rests until the first command. Returns one observation."""
        ...

    def read(self) -> Reading:
        """Tell what was seen since the last call, without waiting."""
        ...

    def send(self, action: np.ndarray, due: float) -> None:
        """Give a command (action_dim,) for the control period that began at `due` [s, monotonic]."""
        ...

    def stop(self) -> None:
        """Stop where it is, now: the emergency stop was pulled. Called once, and no command follows."""
        ...

    def close(self) -> None:
        """Leave the robot where it is safe."""
        ...


class DryRun:
    """A robot that is looked at and never moved: what would be sent is kept. Implements `Robot`.

    Args:
        robot: the real one; only its `read` and `close` are called.
        steps: commands after which the episode is over.
        patience_s: longest wait for the first observation [s].
    """

    def __init__(self, robot: Robot, steps: int, patience_s: float = 5.0) -> None:
        self.contract, self._robot, self._steps, self._patience = robot.contract, robot, steps, patience_s
        self.commands: list[np.ndarray] = []
        """What would have been sent in this episode."""

    def reset(self, seed: int) -> Reading:
        """Wait for an observation; the robot stays where it is.

        Raises:
            RolloutError: none came.
        """
        self.commands.clear()
        deadline = time.monotonic() + self._patience
        while not len((reading := self._robot.read()).rows):
            if time.monotonic() > deadline:
                raise RolloutError(f"the robot showed nothing for {self._patience:g} s: are its sensors on?")
            time.sleep(0.001)
        return Reading(reading.rows[-1:], frames=reading.frames)

    def read(self) -> Reading:
        """Tell what the robot sees."""
        reading = self._robot.read()
        over = reading.over or len(self.commands) >= self._steps
        return Reading(reading.rows, reading.success, over, reading.frames)

    def send(self, action: np.ndarray, due: float) -> None:
        """Keep the command."""
        self.commands.append(np.array(action))

    def stop(self) -> None:
        """Do nothing: who moves the robot meanwhile is somebody else."""

    def close(self) -> None:
        """Leave the robot."""
        self._robot.close()


@dataclass(frozen=True)
class _Step:
    """The child's message after every step."""

    row: np.ndarray
    success: bool
    over: bool
    frames: np.ndarray | None


class SimulatedRobot:
    """An environment that steps in real time in a process of its own (spawned). Use it as a context manager.

    It steps in the middle between two ticks of the control loop, so that a command has half a period to arrive.

    Args:
        factory: makes the environment, in the child; picklable.
        rate_hz: steps per second.
        log: file that takes what the child prints.
        realtime: ask the kernel to run the child before all other processes.

    Raises:
        RolloutError: the child cannot make the environment, or dies.
    """

    def __init__(self, factory: Factory, rate_hz: float, log: Path, realtime: bool = False) -> None:
        context = get_context("spawn")
        self._connection, theirs = context.Pipe()
        arguments = (theirs, str(log), os.getpid(), rate_hz, realtime)
        self._process = context.Process(target=_live, args=arguments, daemon=True)
        with child_surroundings():
            self._process.start()
        theirs.close()
        self._connection.send(factory)
        while isinstance(ready := self._receive(), Compiling):
            compiling.report(ready)
        assert isinstance(ready, Ready)
        self.contract, self.horizon = ready.contract, ready.horizon
        self.counts: dict[str, int] = {}
        """Counts of the last episode: steps, those that held an old command, commands no step used, steps left out."""

    def __enter__(self) -> "SimulatedRobot":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def reset(self, seed: int) -> Reading:
        """Begin the episode of `seed`."""
        self._connection.send(("reset", seed, 0.0))
        while not isinstance(message := self._receive(), Reading):
            pass  # steps of the episode before, which is over
        return message

    def read(self) -> Reading:
        """Return the steps since the last call."""
        steps: list[_Step] = []
        while self._connection.poll():
            message = self._receive()
            if isinstance(message, dict):
                self.counts = message
            else:
                steps.append(message)
        rows = [step.row for step in steps]
        shape = (0, self.contract.observation_dim)
        return Reading(
            np.stack(rows) if rows else np.zeros(shape, np.float32),
            any(step.success for step in steps),
            any(step.over for step in steps),
            steps[-1].frames if steps else None,
        )

    def send(self, action: np.ndarray, due: float) -> None:
        """Command an action (action_dim,)."""
        try:
            self._connection.send(("command", action, due))
        except (BrokenPipeError, ConnectionResetError):
            self._receive()

    def stop(self) -> None:
        """Stand still, as it does by itself where no command comes."""

    def close(self) -> None:
        """End the simulator."""
        with contextlib.suppress(OSError):
            self._connection.send(None)
        self._process.join(5)
        self._process.kill()
        self._process.join()
        self._connection.close()

    def _receive(self) -> Any:
        try:
            message = self._connection.recv()
        except (EOFError, ConnectionResetError):
            self._process.join(5)
            raise RolloutError(f"the simulator's process ended (exit code {self._process.exitcode})") from None
        if isinstance(message, Failure):
            raise RolloutError(f"the simulator failed: {message.reason}")
        return message


def run_first() -> bool:
    """Ask the kernel to run this thread before all ordinary ones (SCHED_FIFO), not those it starts; did it agree?"""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(10))
    except (AttributeError, PermissionError):
        return False
    return True


def _live(connection: Connection, log: str, parent: int, rate_hz: float, realtime: bool) -> None:
    """Run as the child process."""
    output = open(log, "w", buffering=1, encoding="utf-8")  # noqa: SIM115 (lives as long as the process)
    os.dup2(output.fileno(), 1)
    os.dup2(output.fileno(), 2)
    end_with(parent)
    compiling.tell(connection.send)
    try:
        environment: Environment = connection.recv()()
        if realtime:
            run_first()
        compiling.tell(None)
        connection.send(Ready(environment.contract, environment.horizon))
        try:
            _episodes(environment, connection, rate_hz)
        finally:
            environment.close()
    except EOFError:
        return  # the parent is gone
    except Exception as error:
        reason = str(error) if isinstance(error, LFMError) else traceback.format_exc()
        connection.send(Failure(reason, final=True))
        sys.exit(1)


def _episodes(environment: Environment, connection: Connection, rate_hz: float) -> None:
    message = connection.recv()
    while message is not None:
        kind, argument, due = message
        if kind == "reset":
            row = environment.contract.flatten(environment.reset(argument))
            connection.send(Reading(row[None], frames=seen_now(environment)))
            message = connection.recv()
        else:  # the first command of an episode
            message = _episode(environment, connection, rate_hz, argument, due)


def _episode(environment: Environment, connection: Connection, rate_hz: float, command: np.ndarray, due: float) -> Any:
    """Step in real time until the episode is over or another request comes, which is returned."""
    ticker = Ticker(rate_hz, MonotonicClock(), due + 0.5 / rate_hz)
    counts = {"steps": 0, "held": 0, "unused": 0, "left_out": 0}
    fresh, over = 1, False
    while not over:
        tick = ticker.wait()
        while connection.poll():
            message = connection.recv()
            if message is None or message[0] != "command":
                return message
            command, fresh = message[1], fresh + 1
        counts["left_out"] += tick.skipped
        counts["held"] += fresh == 0
        counts["unused"] += max(0, fresh - 1)
        counts["steps"] += 1
        result = environment.step(command if fresh else hold(environment.contract, command))
        fresh = 0
        over = result.success or counts["steps"] >= environment.horizon
        if over:
            connection.send(counts)
        frames = None if over else seen_now(environment)
        connection.send(_Step(environment.contract.flatten(result.observation), result.success, over, frames))
    return _after_commands(connection)


def _after_commands(connection: Connection) -> Any:
    """Return the next request that is no command; those were under way when the episode ended."""
    while True:
        message = connection.recv()
        if message is None or message[0] != "command":
            return message
