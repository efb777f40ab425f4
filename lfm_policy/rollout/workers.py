"""Environments in processes of their own, one each: they step in parallel, and one that breaks takes nothing along.

The parent holds a `Worker` for each and waits for all of them with `poll`. Children start fresh (spawn), compute with
one thread, and import only what the environment needs, and the policy where they get a copy of it: without one, no
torch. Messages go over multiprocessing's pipes.
"""

import contextlib
import faulthandler
import os
import pickle
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import numpy as np

from lfm_policy import compiling
from lfm_policy.compiling import Compiling
from lfm_policy.errors import LFMError
from lfm_policy.processes import child_surroundings, end_with
from lfm_policy.protocols import Environment
from lfm_policy.rollout.planner import Planner
from lfm_policy.rollout.play import Player, execute, play, start
from lfm_policy.rollout.records import EpisodeResult, Failure, FrameSize, Ready, Segment

Factory = Callable[[], Environment]
"""Makes one environment; picklable, for example `functools.partial(lfm_envs.make, "robosuite/lift")`."""
Reply = Ready | Segment | EpisodeResult | Failure
"""The answer to a request; before it, a child may say that it is compiling."""

_LOG_TAIL = 4000
"""Characters of a failed worker's output that are shown."""


class Worker:
    """The parent's handle of one child. Every request sets a deadline; `poll` collects the answers.

    Args:
        factory: makes the environment in the child.
        log: file that takes what the child prints.
        timeout_s: longest time between a request and its answer [s]; None waits for ever.
        start_timeout_s: the same for the child's start, imports and simulator included [s].
    """

    ready: Ready | None
    """What is known of the environment once it is made."""

    def __init__(
        self,
        factory: Factory,
        log: Path,
        timeout_s: float | None = 60.0,
        start_timeout_s: float | None = 300.0,
    ) -> None:
        self._factory, self._log = factory, log
        self._timeout_s, self._start_timeout_s = timeout_s, start_timeout_s
        self.start()

    def start(self) -> None:
        """Start a fresh child; it answers `Ready`."""
        context = get_context("spawn")
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, str(self._log), os.getpid()), daemon=True)
        with child_surroundings():
            self._process.start()
        theirs.close()
        self.ready, self._playing, self._has_policy = None, False, False
        self._request(self._factory, self._start_timeout_s)

    def reset(self, seed: int, frame: FrameSize = None) -> None:
        """Ask for the start of the episode of `seed`; answered by a `Segment` of one observation."""
        self._request(("reset", seed, frame), self._timeout_s)

    def execute(self, actions: np.ndarray, frame: FrameSize = None) -> None:
        """Ask for the actions (k, action_dim), stopping at success; answered by a `Segment`."""
        self._request(("execute", actions, frame), self._timeout_s)

    def play(self, seed: int, player: bytes, frame: FrameSize = None) -> None:
        """Ask for the episode of `seed`, played in the child; answered by its segments, and its result.

        Args:
            seed: of the episode.
            player: a pickled `play.Player`, always the same; it is sent once.
            frame: size of rendered frames, or None.
        """
        fresh, self._playing, self._has_policy = not self._has_policy, True, True
        self._request(
            ("play", seed, frame, player if fresh else None), self._start_timeout_s if fresh else self._timeout_s
        )

    def receive(self) -> Reply | Compiling:
        """Return what lies in the pipe, or a `Failure` that says how the child ended."""
        self.deadline = None
        try:
            reply = self.connection.recv()
        except (EOFError, ConnectionResetError):
            self._process.join(5)
            return Failure(f"the worker process died ({_ending(self._process.exitcode)}){self._output()}", final=False)
        match reply:
            case Compiling():
                self._expect(self._start_timeout_s)  # it lives, and has not answered yet
            case Ready():
                self.ready = reply
            case Segment() if self._playing:
                self._expect(self._timeout_s)
            case EpisodeResult():
                self._playing = False
        return reply

    def hung(self) -> Failure:
        """Say where the child hangs, and end it."""
        waited = self._waits_for
        if self._process.pid is not None and self._process.is_alive():
            os.kill(self._process.pid, signal.SIGUSR1)
            time.sleep(0.3)
        self.stop()
        return Failure(f"the worker did not answer within {waited:g} s{self._output()}", final=False)

    def stop(self) -> None:
        """End the child at once."""
        self.deadline = None
        self._process.kill()
        self._process.join()
        self.connection.close()

    def close(self) -> None:
        """Let the child close its environment, then end it."""
        with contextlib.suppress(OSError):
            self.connection.send(None)
            self._process.join(2)
        self.stop()

    def _request(self, message: Any, seconds: float | None) -> None:
        self._expect(seconds)
        # A dead child breaks the pipe here; the answer, which then is the end of the file, tells how it died.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.connection.send(message)

    def _expect(self, seconds: float | None) -> None:
        self._waits_for = seconds or 0.0
        self.deadline = None if seconds is None else time.monotonic() + seconds

    def _output(self) -> str:
        tail = self._log.read_text(errors="replace").strip()[-_LOG_TAIL:] if self._log.exists() else ""
        return f"; the end of its output:\n{tail}" if tail else "; it printed nothing"


def poll(workers: Sequence[Worker]) -> list[tuple[Worker, Reply]]:
    """Wait until at least one of the asked `workers` has answered, died or run out of time."""
    while True:
        deadlines = [worker.deadline for worker in workers if worker.deadline is not None]
        remaining = max(0.0, min(deadlines) - time.monotonic()) if deadlines else None
        ready = wait([worker.connection for worker in workers], remaining)
        replies: list[tuple[Worker, Reply]] = []
        for worker in workers:
            if worker.connection in ready:
                reply = worker.receive()
                if isinstance(reply, Compiling):
                    compiling.report(reply)
                else:
                    replies.append((worker, reply))
            elif worker.deadline is not None and time.monotonic() > worker.deadline:
                replies.append((worker, worker.hung()))
        if replies:
            return replies


def _ending(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        return f"signal {signal.Signals(-exitcode).name}"
    return f"exit code {exitcode}"


def _serve(connection: Connection, log: str, parent: int) -> None:
    """Run as a child: make the environment, answer requests, leave when the parent closes the pipe or is gone."""
    output = open(log, "w", buffering=1, encoding="utf-8")  # noqa: SIM115 (lives as long as the process)
    os.dup2(output.fileno(), 1)
    os.dup2(output.fileno(), 2)
    faulthandler.enable(output)
    faulthandler.register(signal.SIGUSR1, output)
    end_with(parent)
    compiling.tell(connection.send)
    try:
        _answer(connection)
    except Exception as error:
        expected = isinstance(error, LFMError)
        connection.send(Failure(str(error) if expected else traceback.format_exc(), final=expected))
        sys.exit(1)


def _answer(connection: Connection) -> None:
    environment: Environment = connection.recv()()
    planner: Planner | None = None
    player: Player | None = None
    try:
        connection.send(Ready(environment.contract, environment.horizon))
        while (message := _next(connection)) is not None:
            match message:
                case ("reset", seed, frame):
                    connection.send(start(environment, seed, frame))
                case ("execute", actions, frame):
                    connection.send(execute(environment, actions, frame))
                case ("play", seed, frame, pickled):
                    if pickled is not None:  # by our own parent, over our own pipe
                        player = pickle.loads(pickled)
                    assert player is not None
                    planner = planner or Planner(player.policy)
                    for reply in play(environment, player, planner, seed, frame):
                        connection.send(reply)
    finally:
        environment.close()


def _next(connection: Connection) -> Any:
    """Receive the next request; None when the parent closes the pipe."""
    try:
        return connection.recv()
    except EOFError:
        return None
