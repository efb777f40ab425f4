"""The receding-horizon runner: environments step in worker processes, this one batches the policy over those that wait.

An episode is a function of its seed: start, policy noise and therefore every action are the same, bit for bit, whatever
the number of workers, the order of the seeds, or a restart between.
"""

import hashlib
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from pydantic import Field

from lfm_policy.actions.motion import seam_jerk
from lfm_policy.chunks.delayed import Link
from lfm_policy.chunks.horizon import RecedingHorizon
from lfm_policy.chunks.timeline import require_seam
from lfm_policy.contract import Contract
from lfm_policy.errors import ConfigError, RolloutError
from lfm_policy.protocols import ChunkBatch, ChunkPolicy, WarmChunkPolicy
from lfm_policy.rollout.records import EpisodeResult, Failure, Ready, Segment
from lfm_policy.rollout.subscriber import Subscriber
from lfm_policy.rollout.workers import Factory, FrameSize, Worker, poll
from lfm_policy.settings import Frozen


class RunnerOptions(Frozen):
    """How to run. None of it changes an episode, except that `policy_batch` decides the last bits of the actions."""

    workers: int = Field(default=2, ge=1)
    policy_batch: int = Field(default=1, ge=1)
    """Histories per policy call; smaller groups are padded to it. Above 1 the rows' independence is tested first.

    Measured with ConditionalUnet1d on an x86 CPU (torch 2.13): rows depend on their batch at sizes 2 to 8, not at 16
    and 32, where a call takes at least twice the time of one at size 1.
    """
    timeout_s: float = Field(default=60.0, gt=0)
    """Longest silence of a worker that steps [s]."""
    start_timeout_s: float = Field(default=300.0, gt=0)
    """Longest start of a worker, imports and simulator included [s]."""
    retries: int = Field(default=2, ge=0)
    """Times that an episode is redone after its worker failed."""


class Runner:
    """Runs episodes of one policy in environments of one kind.

    Args:
        policy: predicts chunks, in this process.
        factory: makes an environment, in each worker; picklable.
        options: how to run.
        subscribers: hear every event, in this process.
        name: what the policy belongs to, for messages ("checkpoint outputs/lift").
        link: simulated delay and loss between robot and policy, and how chunks follow one another.
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
        self._link = link or Link()
        require_seam(policy, self._link.seam)
        self._policy, self._factory, self._subscribers, self._name = policy, factory, subscribers, name
        self._options = options or RunnerOptions()
        if self._options.policy_batch > 1:
            require_row_independence(policy, self._options.policy_batch)

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
        waiting, results = deque(seeds), {}
        with self._workers(min(self._options.workers, len(seeds))) as workers:
            running = {worker: self._episode(waiting.popleft(), len(workers)) for worker in workers}
            while running:
                ready = []
                for worker, reply in poll(list(running)):
                    episode = running[worker]
                    self._absorb(worker, episode, reply, frame)
                    if episode.over:
                        results[episode.seed] = self._finish(episode)
                        del running[worker]
                        if waiting:
                            running[worker] = self._episode(waiting.popleft(), len(workers))
                            self._begin(worker, running[worker], frame)
                    elif isinstance(reply, Segment):
                        ready.append((worker, episode))
                self._act(ready, frame)
        return [results[seed] for seed in seeds]

    @contextmanager
    def _workers(self, count: int) -> Iterator[list[Worker]]:
        workers: list[Worker] = []
        with tempfile.TemporaryDirectory(prefix="lfm-workers-") as logs:
            try:
                for number in range(count):
                    log = Path(logs) / f"worker-{number}.log"
                    workers.append(Worker(self._factory, log, self._options.timeout_s, self._options.start_timeout_s))
                yield workers
                for worker in workers:
                    worker.close()
            finally:
                for worker in workers:
                    worker.stop()

    def _episode(self, seed: int, workers: int) -> "_Episode":
        return _Episode(seed, self._link.horizon(self._policy, seed), workers, self._policy.contract)

    def _begin(self, worker: Worker, episode: "_Episode", frame: FrameSize) -> None:
        for subscriber in self._subscribers:
            subscriber.on_start(episode.seed)
        episode.begin()
        worker.reset(episode.seed, frame)

    def _absorb(self, worker: Worker, episode: "_Episode", reply: Ready | Segment | Failure, frame: FrameSize) -> None:
        match reply:
            case Failure():
                self._redo(worker, episode, reply)
            case Ready():
                self._policy.contract.require_match(
                    reply.contract, self._name, f"environment {reply.contract.suite}/{reply.contract.environment}"
                )
                self._begin(worker, episode, frame)
            case Segment():
                episode.absorb(reply, worker.horizon)
                for subscriber in self._subscribers:
                    subscriber.on_segment(episode.seed, reply)

    def _redo(self, worker: Worker, episode: "_Episode", failure: Failure) -> None:
        if failure.final or episode.attempts > self._options.retries:
            attempts = f" in {episode.attempts} attempts" if episode.attempts > 1 else ""
            raise RolloutError(f"the episode of seed {episode.seed} failed{attempts}: {failure.reason}")
        for subscriber in self._subscribers:
            subscriber.on_failure(episode.seed, episode.attempts, failure.reason)
        worker.stop()
        worker.start()
        episode.attempts += 1

    def _act(self, ready: list[tuple[Worker, "_Episode"]], frame: FrameSize) -> None:
        fresh, resumed = [], []
        for worker, episode in ready:
            if episode.horizon.lost:
                worker.execute(episode.go_on(None, worker.horizon), frame)
            else:
                (fresh if episode.horizon.running is None else resumed).append((worker, episode))
        size = self._options.policy_batch
        for episodes in (fresh, resumed):
            for first in range(0, len(episodes), size):
                self._plan(episodes[first : first + size], frame)

    def _plan(self, group: list[tuple[Worker, "_Episode"]], frame: FrameSize) -> None:
        started = time.perf_counter()
        batch = self._predict([episode.horizon for _, episode in group])
        seconds = time.perf_counter() - started
        for row, (worker, episode) in enumerate(group):
            worker.execute(episode.plan(batch.actions[row], batch.nfe, seconds, worker.horizon), frame)

    def _predict(self, horizons: list[RecedingHorizon]) -> ChunkBatch:
        padded = horizons + [horizons[0]] * (self._options.policy_batch - len(horizons))
        histories, noise = np.stack([h.history for h in padded]), np.stack([h.noise for h in padded])
        running = [h.running for h in padded if h.running is not None]
        if not running:
            return self._policy.predict(histories, noise)
        assert isinstance(self._policy, WarmChunkPolicy)  # Link.horizon has made sure
        return self._policy.resume(histories, noise, np.stack(running))

    def _finish(self, episode: "_Episode") -> EpisodeResult:
        result = episode.result()
        for subscriber in self._subscribers:
            subscriber.on_end(result)
        return result


class _Episode:
    """What is known of an episode under way."""

    def __init__(self, seed: int, horizon: RecedingHorizon, workers: int, contract: Contract) -> None:
        self.seed, self.horizon, self._workers, self._contract = seed, horizon, workers, contract
        self.attempts = 1
        self.begin()

    def begin(self) -> None:
        """Begin, or begin again, from the seed."""
        self.horizon.reset(self.seed)
        self._hash = hashlib.sha256()
        self._started = time.perf_counter()
        self._seconds: list[float] = []
        self._commands: list[np.ndarray] = []
        self._seams: list[int] = []
        self._steps = self._nfe = 0
        self._rewards: list[np.ndarray] = []
        self._success = self.over = False

    def absorb(self, segment: Segment, limit: int) -> None:
        """Take in what the environment did; the episode is over at success or after `limit` steps."""
        self._hash.update(segment.observations.tobytes())
        self.horizon.observe(segment.observations)
        self._steps += len(segment.rewards)
        self._rewards.append(segment.rewards)
        self._success = segment.success
        self.over = segment.success or self._steps >= limit

    def plan(self, chunk: np.ndarray, nfe: int, seconds: float, limit: int) -> np.ndarray:
        """The actions to execute now, (k, action_dim); fewer than Ta where the episode ends before."""
        self._nfe += nfe
        self._seconds.append(seconds)
        return self.go_on(chunk, limit)

    def go_on(self, chunk: np.ndarray | None, limit: int) -> np.ndarray:
        """The actions to execute now, with a new chunk or without."""
        executed = self.horizon.advance(chunk)
        if executed.seam is not None:
            self._seams.append(self._steps + executed.seam)
        actions = executed.actions[: limit - self._steps]
        self._hash.update(actions.tobytes())
        self._commands.append(actions)
        return actions

    def result(self) -> EpisodeResult:
        commands = np.concatenate(self._commands)[: self._steps]
        rewards = np.concatenate(self._rewards)
        seam, inner = (jerk and round(jerk, 3) for jerk in seam_jerk(self._contract, commands, self._seams))
        return EpisodeResult(
            seed=self.seed,
            success=self._success,
            steps=self._steps,
            steps_to_success=self._steps if self._success else None,
            chunks=self.horizon.chunks,
            nfe=self._nfe,
            final_reward=float(rewards[-1]) if len(rewards) else 0.0,
            largest_reward=float(rewards.max()) if len(rewards) else None,
            mean_reward=float(rewards.mean()) if len(rewards) else None,
            digest=self._hash.hexdigest()[:16],
            chunk_ms=tuple(round(1000 * seconds, 3) for seconds in self._seconds),
            policy_seconds=round(sum(self._seconds), 6),
            wall_seconds=round(time.perf_counter() - self._started, 6),
            workers=self._workers,
            attempts=self.attempts,
            seam_jerk=seam,
            inner_jerk=inner,
        )


def require_row_independence(policy: ChunkPolicy, size: int) -> None:
    """Make sure that a row's chunk depends neither on its place in a batch of `size` nor on other rows, bit for bit.

    Raises:
        ConfigError: it does, as with many CPU kernels; episodes would then depend on which workers wait together.
    """
    generator = np.random.default_rng(0)
    shape = (size, policy.observation_steps, policy.contract.observation_dim)
    histories = generator.standard_normal(shape).astype(np.float32)
    noise = generator.standard_normal((size, *policy.noise_shape)).astype(np.float32)
    reference = policy.predict(histories, noise).actions
    for shift in range(size):
        rolled = policy.predict(np.roll(histories, shift, 0), np.roll(noise, shift, 0)).actions
        alone = policy.predict(*(np.repeat(rows[shift : shift + 1], size, 0) for rows in (histories, noise))).actions
        same = np.array_equal(rolled, np.roll(reference, shift, 0)) and (alone == reference[shift]).all()
        if not same:
            raise ConfigError(
                f"policy_batch={size}: on this machine a chunk's bits depend on the rest of its batch, so an episode "
                "would not be a function of its seed alone; expected equal rows, use policy_batch=1"
            )
