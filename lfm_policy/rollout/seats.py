"""Where the policy sits: in this process, answering all workers' episodes in batches, or as a copy in every worker.

One process for all is right for a GPU, and for a policy that cannot be copied. On a CPU it is full once its workers ask
for more chunks than one core computes, with 20 evaluations per chunk that is at 1.5 workers; copies have no such limit.
The episodes are the same, bit for bit.
"""

import io
import pickle
from collections.abc import Sequence
from typing import Any, Literal, Protocol, runtime_checkable

from lfm_policy.chunks.delayed import Link
from lfm_policy.errors import ConfigError
from lfm_policy.processes import usable_cores
from lfm_policy.protocols import ChunkPolicy, PortablePolicy
from lfm_policy.rollout.episode import Episode
from lfm_policy.rollout.planner import Planner
from lfm_policy.rollout.play import Player
from lfm_policy.rollout.records import EpisodeResult, FrameSize, Segment
from lfm_policy.rollout.workers import Worker

PolicyIn = Literal["auto", "workers", "parent"]
LARGEST_COPY = 100_000_000
"""Bytes of a policy that is copied without being asked to: every worker's memory holds them."""
COPY_S = 2.0
"""What a worker takes to import torch and to load its copy [s], on one core."""


@runtime_checkable
class Seat(Protocol):
    """Plays episodes with workers, from the side of the process that holds the workers."""

    def begin(self, worker: Worker, seed: int, frame: FrameSize) -> None:
        """Have `worker` begin the episode of `seed`."""
        ...

    def absorb(self, worker: Worker, reply: Segment | EpisodeResult) -> EpisodeResult | None:
        """Take in what a worker says; return the result once its episode is over."""
        ...

    def act(self, frame: FrameSize) -> None:
        """Answer the workers that wait."""
        ...


class ParentSeat:
    """The policy sits in this process, and answers the episodes that wait together.

    Args:
        policy: makes the chunks.
        link: delay and loss between robot and policy.
        size: histories per call.
    """

    def __init__(self, policy: ChunkPolicy, link: Link, size: int) -> None:
        self._policy, self._link, self._planner = policy, link, Planner(policy, size)
        self._episodes: dict[Worker, Episode] = {}
        self._waiting: list[Worker] = []

    def begin(self, worker: Worker, seed: int, frame: FrameSize) -> None:
        """See `Seat`."""
        assert worker.ready is not None
        horizon = self._link.horizon(self._policy, seed)
        self._episodes[worker] = Episode(seed, horizon, self._policy.contract, worker.ready.horizon)
        worker.reset(seed, frame)

    def absorb(self, worker: Worker, reply: Segment | EpisodeResult) -> EpisodeResult | None:
        """See `Seat`."""
        assert isinstance(reply, Segment)
        episode = self._episodes[worker]
        episode.absorb(reply)
        if episode.over:
            return episode.result()
        self._waiting.append(worker)
        return None

    def act(self, frame: FrameSize) -> None:
        """See `Seat`: chunks from noise and chunks that continue others are predicted in calls of their own."""
        fresh: list[Worker] = []
        resumed: list[Worker] = []
        for worker in self._waiting:
            horizon = self._episodes[worker].horizon
            if horizon.lost:
                worker.execute(self._episodes[worker].go_on(), frame)
            else:
                (fresh if horizon.running is None else resumed).append(worker)
        self._waiting.clear()
        for workers in (fresh, resumed):
            for first in range(0, len(workers), self._planner.size):
                self._plan(workers[first : first + self._planner.size], frame)

    def _plan(self, group: Sequence[Worker], frame: FrameSize) -> None:
        batch, seconds = self._planner.chunks([self._episodes[worker].horizon for worker in group])
        for row, worker in enumerate(group):
            worker.execute(self._episodes[worker].plan(batch.actions[row], batch.nfe, seconds), frame)


class WorkerSeat:
    """Every worker holds a copy of the policy, and plays its episodes by itself; this process listens.

    Args:
        player: what the workers get, pickled.
    """

    def __init__(self, player: bytes) -> None:
        self._player = player

    def begin(self, worker: Worker, seed: int, frame: FrameSize) -> None:
        """See `Seat`."""
        worker.play(seed, self._player, frame)

    def absorb(self, worker: Worker, reply: Segment | EpisodeResult) -> EpisodeResult | None:
        """See `Seat`."""
        return reply if isinstance(reply, EpisodeResult) else None

    def act(self, frame: FrameSize) -> None:
        """See `Seat`: nobody waits."""


class AutoSeat:
    """Begins in this process, measures, and copies the policy into the workers once that will pay.

    Args:
        policy: makes the chunks.
        link: delay and loss between robot and policy.
        workers: how many there are.
        episodes: how many they will play.
    """

    def __init__(self, policy: PortablePolicy, link: Link, workers: int, episodes: int) -> None:
        self._policy, self._link = policy, link
        self._workers, self._left, self._done = min(workers, usable_cores()), episodes, 0
        self._policy_s = self._steps_s = 0.0
        self._parent = ParentSeat(policy, link, 1)
        self._copies: WorkerSeat | None = None
        self._may = workers > 1
        self._where: dict[Worker, Seat] = {}

    def begin(self, worker: Worker, seed: int, frame: FrameSize) -> None:
        """See `Seat`."""
        self._where[worker] = self._copies or self._parent
        self._where[worker].begin(worker, seed, frame)

    def absorb(self, worker: Worker, reply: Segment | EpisodeResult) -> EpisodeResult | None:
        """See `Seat`."""
        result = self._where[worker].absorb(worker, reply)
        if self._copies is None and self._may:
            self._steps_s += reply.seconds if isinstance(reply, Segment) else 0.0
            if result is not None:
                self._done, self._left = self._done + 1, self._left - 1
                self._policy_s += result.policy_seconds
                self._consider()
        return result

    def act(self, frame: FrameSize) -> None:
        """See `Seat`."""
        self._parent.act(frame)

    def _consider(self) -> None:
        means = self._policy_s / self._done, self._steps_s / self._done
        if self._done < self._workers or not copies_pay(*means, self._workers, self._left):
            return
        try:
            player = _copied(self._policy, self._link)
        except ConfigError:  # nobody asked for copies: what cannot be copied stays here
            self._may = False
            return
        self._may = len(player) <= LARGEST_COPY
        self._copies = WorkerSeat(player) if self._may else None


def copies_pay(policy_s: float, steps_s: float, workers: int, episodes: int) -> bool:
    """Say whether copies of a policy end sooner, the time for making them included.

    One process for all takes max(p, (p + s) / W) per episode, W processes with one copy each (p + s) / W.

    Args:
        policy_s: p, time of an episode that the policy takes [s].
        steps_s: s, time that the environment takes [s].
        workers: W, those that have a core.
        episodes: still to be played.
    """
    return episodes * (policy_s - (policy_s + steps_s) / workers) > COPY_S


def choose_seat(
    policy: ChunkPolicy, link: Link, policy_in: PolicyIn, *, size: int, workers: int, episodes: int
) -> Seat:
    """Find the policy's place; with "auto" it is found while the first episodes are played, if there is a choice.

    Args:
        policy: makes the chunks.
        link: delay and loss between robot and policy.
        policy_in: what was asked for.
        size: histories per call of a policy in this process.
        workers: how many there will be.
        episodes: how many they will play.

    Raises:
        ConfigError: policy_in=workers, and the policy cannot be copied or is to answer in batches.
    """
    if policy_in == "workers":
        if size > 1:
            raise ConfigError(f"policy_batch={size} needs the policy in one place: use policy_in=parent")
        return WorkerSeat(_copied(policy, link))
    if policy_in == "auto" and size == 1 and isinstance(policy, PortablePolicy) and policy.portable:
        return AutoSeat(policy, link, workers, episodes)
    return ParentSeat(policy, link, size)


def _copied(policy: ChunkPolicy, link: Link) -> bytes:
    buffer = io.BytesIO()
    try:
        _ForOthers(buffer, pickle.HIGHEST_PROTOCOL).dump(Player(policy, link))
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"policy_in=workers: {type(policy).__name__} cannot be copied to other processes ({error}); "
            "use policy_in=parent"
        ) from None
    return buffer.getvalue()


class _ForOthers(pickle.Pickler):
    """Refuses what another process would not find."""

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, type) and value.__module__ == "__main__":
            raise pickle.PicklingError(f"class {value.__name__} is in the main program, put it in a module of its own")
        return NotImplemented
