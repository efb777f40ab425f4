"""Rollouts on a cluster by Ray: tasks of a few episodes each, on whatever CPUs are free.

A task is the local runner with one worker, so its episodes are those of a local run, seed by seed. Ray runs the tasks
of a lost machine again elsewhere. The cluster is the one of RAY_ADDRESS, or one already running here, or this machine.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from lfm_policy.errors import ConfigError, LFMError, RolloutError
from lfm_policy.rollout.records import EpisodeResult
from lfm_policy.rollout.runner import EpisodeRunner, Runner

LARGEST_TASK = 10
"""Episodes in a task: their environment is started once, and as many are lost with a machine."""
TASKS_PER_CPU = 4
"""At least, so that CPUs finish together."""


class ClusterRunner(EpisodeRunner):
    """Runs episodes as `Runner` does, on a Ray cluster.

    The policy goes to every machine: it must be picklable, and on a CPU. A task takes one CPU, whatever `workers` says;
    subscribers hear the end of each episode only.

    Raises:
        ConfigError: Ray is not installed.
    """

    def _prepare(self) -> None:
        self._ray, self._retries = _ray(), self._options.retries
        alone = self._options.model_copy(update={"workers": 1, "policy_in": "parent"})
        self._parts = (self._policy, self._factory, alone, self._name, self._link)

    def run(self, seeds: Sequence[int]) -> list[EpisodeResult]:
        """Run the episodes of `seeds`, and return them in the order of `seeds`.

        Raises:
            ContractError: the environment's contract is not the policy's.
            RolloutError: an episode failed more often than `retries`, or was lost with machines more often than that.
        """
        results = {}
        with self._connected():
            for part in self._finished(list(seeds)):
                for result in part:
                    results[result.seed] = result
                    self._ended(result)
        return [results[seed] for seed in seeds]

    @contextmanager
    def _connected(self) -> Iterator[None]:
        if self._ray.is_initialized():
            yield
            return
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray would tell its makers
        self._ray.init(log_to_driver=False, logging_level="error", include_dashboard=False)
        try:
            yield
        finally:
            self._ray.shutdown()

    def _finished(self, seeds: list[int]) -> Iterator[list[EpisodeResult]]:
        """Yield the results of each task, as it ends."""
        task = self._ray.remote(num_cpus=1, max_retries=self._retries)(_episodes)
        parts = self._ray.put(self._parts)
        size = task_size(len(seeds), int(self._ray.cluster_resources().get("CPU", 1)))
        waiting = [task.remote(parts, seeds[first : first + size]) for first in range(0, len(seeds), size)]
        while waiting:
            done, waiting = self._ray.wait(waiting)
            yield self._result(done[0])

    def _result(self, reference: Any) -> list[EpisodeResult]:
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, LFMError):
                raise error.cause from None
            raise RolloutError(f"a task on the cluster failed: {error}") from None
        except self._ray.exceptions.RayError as error:
            raise RolloutError(
                f"episodes were lost more than {self._retries} times, the last time with: {error}; "
                "run the same command again to continue"
            ) from None


def task_size(episodes: int, cpus: int) -> int:
    """Return the number of episodes of one task."""
    return max(1, min(LARGEST_TASK, episodes // (TASKS_PER_CPU * cpus)))


def _episodes(parts: Any, seeds: list[int]) -> list[EpisodeResult]:
    """Play the episodes of a task."""
    policy, factory, options, name, link = parts
    return Runner(policy, factory, options, name=name, link=link).run(seeds)


def _ray() -> Any:
    try:
        import ray
        import ray.exceptions
    except ModuleNotFoundError:
        raise ConfigError("backend=ray needs Ray, which is not installed: pip install 'lfm-policy[scale]'") from None
    return ray
