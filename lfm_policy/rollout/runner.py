"""The receding-horizon runner: environments in worker processes, chunks from one policy or from a copy in each worker.

An episode is a function of its seed: start, policy noise and therefore every action are the same, bit for bit, whatever
the number of workers, the order of the seeds, the place of the policy, or a restart between.
"""

import contextlib
import sys
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from lfm_policy.chunks.delayed import Link
from lfm_policy.chunks.timeline import require_seam
from lfm_policy.errors import ConfigError, RolloutError
from lfm_policy.protocols import ChunkPolicy
from lfm_policy.rollout.crew import Crew
from lfm_policy.rollout.planner import require_row_independence
from lfm_policy.rollout.records import EpisodeResult, Failure, FrameSize, Ready, Segment
from lfm_policy.rollout.seats import PolicyIn, Seat, choose_seat
from lfm_policy.rollout.subscriber import Subscriber
from lfm_policy.rollout.workers import Factory, Reply, Worker, poll
from lfm_policy.settings import Frozen


class RunnerOptions(Frozen):
    """How to run. None of it changes an episode, except that `policy_batch` decides the last bits of the actions."""

    # Measured with ConditionalUnet1d on an x86 CPU (torch 2.13): rows depend on their batch at sizes 2 to 8, not at 16
    # and 32, where a call takes at least twice the time of one at size 1. So the rows' independence is tested first.
    workers: int = Field(default=2, ge=1, description="processes that hold an environment each")
    policy_in: PolicyIn = Field(
        default="auto",
        description="workers: a copy of the policy in each; parent: one for all; auto: one, until measurements "
        "say that copies end sooner",
    )
    policy_batch: int = Field(
        default=1,
        ge=1,
        description="histories per policy call, smaller groups padded to it; above 1 only where batched rows turn out "
        "bit-equal",
    )
    timeout_s: float = Field(default=60.0, gt=0, description="longest silence of a worker that steps [s]")
    start_timeout_s: float = Field(
        default=300.0, gt=0, description="longest start of a worker, imports and simulator included [s]"
    )
    retries: int = Field(default=2, ge=0, description="times that an episode is redone after its worker failed")

    def crew(self, factory: Factory) -> Crew:
        """Return a crew of such workers, none of them started, with environments that `factory` makes."""
        return Crew(factory, self.timeout_s, self.start_timeout_s)


class EpisodeRunner(ABC):
    """Runs episodes of one policy in environments of one kind.

    Args:
        policy: predicts chunks.
        factory: makes an environment, in each worker; picklable.
        options: how to run.
        subscribers: hear what happens, in this process.
        name: what the policy belongs to, for messages ("checkpoint outputs/lift").
        link: simulated delay and loss between robot and policy, and how chunks follow one another.

    Raises:
        ConfigError: the policy cannot continue chunks, but is asked to.
    """

    def __init__(
        self,
        policy: ChunkPolicy,
        factory: Factory,
        options: RunnerOptions | None = None,
        subscribers: Sequence[Subscriber] = (),
        name: str = "the policy",
        link: Link | None = None,
    ) -> None:
        self._policy, self._factory, self._subscribers, self._name = policy, factory, subscribers, name
        self._options, self._link = options or RunnerOptions(), link or Link()
        require_seam(policy, self._link.seam)
        self._prepare()

    @abstractmethod
    def _prepare(self) -> None:
        """Set up what this kind of runner needs beside."""

    @abstractmethod
    def run(self, seeds: Sequence[int]) -> list[EpisodeResult]:
        """Run the episodes of `seeds`, and return them in the order of `seeds`."""

    def _ended(self, result: EpisodeResult) -> None:
        for subscriber in self._subscribers:
            subscriber.on_end(result)


class Runner(EpisodeRunner):
    """Runs episodes on this machine. As a context manager it keeps its workers from one `run` to the next.

    Args:
        policy: see `EpisodeRunner`, and so for the others.
        factory: see there.
        options: see there.
        subscribers: see there.
        name: see there.
        link: see there.
        crew: workers that other runners of this policy use, too; workers of its own if None.

    Raises:
        ConfigError: `policy_batch` is above 1, and the policy's rows depend on each other.
    """

    def __init__(
        self,
        policy: ChunkPolicy,
        factory: Factory,
        options: RunnerOptions | None = None,
        subscribers: Sequence[Subscriber] = (),
        name: str = "the policy",
        link: Link | None = None,
        crew: Crew | None = None,
    ) -> None:
        super().__init__(policy, factory, options, subscribers, name, link)
        self._crew = crew

    def _prepare(self) -> None:
        if self._options.policy_batch > 1:
            require_row_independence(self._policy, self._options.policy_batch)
        self._seat: Seat | None = None
        self._own: Crew | None = None

    def __enter__(self) -> "Runner":
        self._own = self._options.crew(self._factory).__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        own, self._own = self._own, None
        assert own is not None
        own.__exit__(*error)

    def run(self, seeds: Sequence[int], frame: FrameSize = None) -> list[EpisodeResult]:
        """Run the episodes of `seeds`, and return them in the order of `seeds`.

        Args:
            seeds: distinct and not negative.
            frame: width and height to render [pixels]; the segments that subscribers hear then hold frames.

        Raises:
            ContractError: the environment's contract is not the policy's; no step has been made.
            RolloutError: an episode's worker failed more often than `retries`; the message holds its traceback.
        """
        if len(set(seeds)) != len(seeds) or min(seeds, default=0) < 0:
            raise ConfigError(f"expected distinct seeds that are not negative, found {list(seeds)}")
        with contextlib.ExitStack() as stack:
            crew = self._crew or self._own or stack.enter_context(self._options.crew(self._factory))
            count = min(self._options.workers, len(seeds))
            if self._seat is None:
                place, size = self._options.policy_in, self._options.policy_batch
                episodes = len(seeds) if self._own is None else sys.maxsize  # workers that stay will get more
                counts = {"workers": count, "episodes": episodes}
                self._seat = choose_seat(self._policy, self._link, place, size=size, **counts)
            try:
                return self._play(deque(seeds), crew.members(count), self._seat, frame)
            except BaseException:
                crew.dismiss()  # some are in the middle of an episode
                raise

    def _play(self, waiting: deque[int], crew: list[Worker], seat: Seat, frame: FrameSize) -> list[EpisodeResult]:
        order, results = list(waiting), {}
        running: dict[Worker, _Turn] = {}
        free = list(crew)
        while waiting or running:
            while free and waiting:
                worker = free.pop(0)
                running[worker] = _Turn(waiting.popleft())
                if worker.ready is not None:  # else it begins when it is
                    self._begin(worker, running[worker], seat, frame)
            for worker, reply in poll(list(running)):
                result = self._absorb(worker, running[worker], reply, seat, frame)
                if result is not None:
                    turn = running.pop(worker)
                    results[turn.seed] = result.model_copy(update={"workers": len(crew), "attempts": turn.attempts})
                    self._ended(results[turn.seed])
                    free.append(worker)
            seat.act(frame)
        return [results[seed] for seed in order]

    def _begin(self, worker: Worker, turn: "_Turn", seat: Seat, frame: FrameSize) -> None:
        for subscriber in self._subscribers:
            subscriber.on_start(turn.seed)
        seat.begin(worker, turn.seed, frame)

    def _absorb(
        self, worker: Worker, turn: "_Turn", reply: Reply, seat: Seat, frame: FrameSize
    ) -> EpisodeResult | None:
        """Take in what a worker says; return the result once its episode is over."""
        if isinstance(reply, Failure):
            self._redo(worker, turn, reply)
            return None
        if isinstance(reply, Ready):
            environment = f"environment {reply.contract.suite}/{reply.contract.environment}"
            self._policy.contract.require_match(reply.contract, self._name, environment)
            self._begin(worker, turn, seat, frame)
            return None
        if isinstance(reply, Segment):
            for subscriber in self._subscribers:
                subscriber.on_segment(turn.seed, reply)
        return seat.absorb(worker, reply)

    def _redo(self, worker: Worker, turn: "_Turn", failure: Failure) -> None:
        if failure.final or turn.attempts > self._options.retries:
            attempts = f" in {turn.attempts} attempts" if turn.attempts > 1 else ""
            raise RolloutError(f"the episode of seed {turn.seed} failed{attempts}: {failure.reason}")
        for subscriber in self._subscribers:
            subscriber.on_failure(turn.seed, turn.attempts, failure.reason)
        worker.stop()
        worker.start()
        turn.attempts += 1


@dataclass
class _Turn:
    """One worker's episode."""

    seed: int
    attempts: int = 1
