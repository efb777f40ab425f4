"""Episodes on a Ray cluster are those of a local run; a machine that is lost costs time only."""

import functools
import sys

import pytest

from lfm_envs.point_mass import PointMass
from lfm_policy.errors import ConfigError, RolloutError
from lfm_policy.rollout.cluster import ClusterRunner, task_size
from lfm_policy.rollout.records import EpisodeResult
from lfm_policy.rollout.runner import Runner, RunnerOptions
from lfm_policy.rollout.subscriber import Subscriber
from tests.rollout.scripted import Breaking, Slow, Straight

SEEDS = range(100, 116)
RAY = ("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning", "ignore::UserWarning")
UNRAISABLE = "ignore::pytest.PytestUnraisableExceptionWarning"


def _plain(results: list[EpisodeResult]) -> list[dict]:
    timing = {"chunk_ms", "policy_seconds", "wall_seconds", "workers", "attempts"}
    return [result.model_dump(exclude=timing) for result in results]


@pytest.mark.slow
@pytest.mark.filterwarnings(*RAY, UNRAISABLE)
def test_a_node_that_is_lost_in_the_middle_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two nodes with a CPU each; one is killed after the first results, while it works."""
    ray = pytest.importorskip("ray", reason="the extra 'scale' is not installed")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    node = {"num_cpus": 1, "object_store_memory": 80 << 20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    doomed = cluster.add_node(**node)
    try:
        cluster.wait_for_nodes(300)
        ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
        nodes: list[int] = []

        class Reaper(Subscriber):
            def on_end(self, result: EpisodeResult) -> None:
                alive = sum(node["Alive"] for node in ray.nodes())
                if not nodes:
                    cluster.remove_node(doomed, allow_graceful=False)
                nodes.append(alive)

        results = ClusterRunner(Straight(), Slow, subscribers=[Reaper()]).run(SEEDS)
        lost = sum(node["Alive"] for node in ray.nodes())
        broken = functools.partial(Breaking, "raise", seed=SEEDS[0])
        failing = ClusterRunner(Straight(), broken, RunnerOptions(retries=0))
        with pytest.raises(RolloutError, match="the simulator lost the cube"):
            failing.run(SEEDS[:1])
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert nodes[0] == 2
    assert lost == 1
    assert len(nodes) == len(SEEDS)
    assert _plain(results) == _plain(Runner(Straight(), PointMass).run(SEEDS))


@pytest.mark.parametrize(("episodes", "cpus", "size"), [(10000, 8, 10), (100, 8, 3), (16, 2, 2), (5, 64, 1)])
def test_tasks_are_small_enough_for_cpus_to_finish_together(episodes: int, cpus: int, size: int) -> None:
    assert task_size(episodes, cpus) == size


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"lfm-policy\[scale\]"):
        ClusterRunner(Straight(), PointMass)
