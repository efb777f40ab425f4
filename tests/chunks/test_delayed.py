"""Simulated delay and loss: functions of the seed, and the plain receding horizon where there is none."""

import numpy as np
import pytest

from lfm_envs.point_mass import CONTRACT, PointMass
from lfm_policy.chunks.delayed import Link, LinkedHorizon
from lfm_policy.errors import ConfigError
from lfm_policy.rollout.records import EpisodeResult
from lfm_policy.rollout.report import summarize
from lfm_policy.rollout.runner import Runner, RunnerOptions
from tests.chunks.test_horizon import Counting
from tests.rollout.scripted import Straight

SEEDS = list(range(100, 108))


def episodes(link: Link, workers: int = 1, policy: Straight | None = None) -> list[EpisodeResult]:
    return Runner(policy or Straight(), PointMass, RunnerOptions(workers=workers), link=link).run(SEEDS)


def digests(results: list[EpisodeResult]) -> list[str]:
    return [result.digest for result in results]


def executed(link: Link, segments: int, seed: int = 0) -> list[list[float]]:
    """The segments of an episode: numbers that name chunk (hundreds) and index."""
    policy = Counting()
    horizon = LinkedHorizon(policy, seed, link)
    found = []
    horizon.observe(np.zeros((1, 4), np.float32))
    for _ in range(segments):
        given = (horizon.history[None], horizon.noise[None])
        actions = horizon.advance(None if horizon.lost else policy.predict(*given).actions[0]).actions
        horizon.observe(np.zeros((len(actions), 4), np.float32))
        found.append(actions[:, 0].tolist())
    return found


@pytest.fixture(scope="module")
def plain() -> list[EpisodeResult]:
    return episodes(Link())


class TestWithoutDelay:
    def test_async_equals_sync_equals_the_plain_runner(self, plain):
        assert digests(episodes(Link(inference="async"))) == digests(plain)
        lossless = LinkedHorizon(Counting(), 0, Link())
        lossless.observe(np.zeros((1, 4), np.float32))
        chunk = Counting().predict(np.zeros(1), np.zeros(1)).actions[0]
        assert lossless.advance(chunk).actions[:, 0].tolist() == [*range(1, 9)]

    def test_the_default_leaves_no_trace_in_the_identity(self):
        assert Link().identity == {}
        assert Link(latency_steps=1).identity["latency_steps"] == 1


class TestDelay:
    def test_async_drops_the_late_actions_by_their_step(self):
        first, second, third = executed(Link(inference="async", latency_steps=3), 3)
        assert first == [*range(1, 9)], "the robot starts with its first chunk"
        assert second == [9, 10, 11, 104, 105, 106, 107, 108], "the old chunk goes on, then the new one in its place"
        assert third == [109, 110, 111, 204, 205, 206, 207, 208]

    def test_sync_stands_still_meanwhile(self):
        _, second, third = executed(Link(latency_steps=3), 3)
        assert second == [8, 8, 8, *range(101, 109)]
        assert third == [108] * 3 + [*range(201, 209)]

    def test_async_holds_where_no_chunk_reaches(self):
        _, second, third = executed(Link(inference="async", latency_steps=10), 3)
        assert second == [*range(9, 16), 15, 15, 15], "one exchange at a time; then the last command"
        assert third[:5] == [111, 112, 113, 114, 115]

    def test_ensemble_fades_from_one_chunk_to_the_next(self):
        _, second = executed(Link(inference="async", latency_steps=2, seam="ensemble"), 2)
        assert second[:2] == [9, 10]
        weights = (np.array(second[2:7]) - np.arange(11, 16)) / (np.arange(103, 108) - np.arange(11, 16))
        assert 0 < weights[0] < 0.25
        assert (np.diff(weights) > 0).all()
        assert second[7] == 108


class TestLoss:
    LINK = Link(inference="async", latency_steps=2, packet_loss=0.4)

    def test_is_a_function_of_the_seed(self):
        assert executed(self.LINK, 12, seed=3) == executed(self.LINK, 12, seed=3)
        assert executed(self.LINK, 12, seed=3) != executed(self.LINK, 12, seed=4)
        assert digests(episodes(self.LINK)) == digests(episodes(self.LINK, workers=2))

    def test_the_robot_asks_again_when_the_answer_is_due(self):
        lengths = [len(segment) for segment in executed(self.LINK, 40, seed=1)]
        assert set(lengths) == {2, 8}
        assert 0.2 < lengths.count(2) / 40 < 0.6

    def test_costs_what_the_plain_episode_has(self, plain):
        lossy = episodes(Link(packet_loss=0.6))
        assert sum(r.steps for r in lossy) > sum(r.steps for r in plain)


class TestSeams:
    def test_warm_needs_a_policy_that_can(self):
        with pytest.raises(ConfigError, match="seam=warm needs a policy"):
            episodes(Link(seam="warm"))

    def test_resumes_the_running_chunk(self):
        class Warm(Straight):
            runs: list = []  # noqa: RUF012

            def resume(self, histories, noise, running):
                self.runs.append(running[0].copy())
                return self.predict(histories, 0 * noise)

        policy = Warm()
        results = episodes(Link(seam="warm"), policy=policy)
        rehearsed = 1  # before the first episode, so that no measured chunk waits for a compilation
        assert len(policy.runs) == rehearsed + sum(result.chunks - 1 for result in results)
        assert all(run.shape == (8, 2) for run in policy.runs)

    def test_jerk_is_reported_and_smaller_for_the_ensemble(self, plain):
        smooth = episodes(Link(inference="async", seam="ensemble"))
        rough, fine = summarize(plain), summarize(smooth)
        assert fine.seam_jerk < rough.seam_jerk
        still = summarize(episodes(Link(), policy=Straight(noise_m=0.0)))
        assert still.seam_jerk < 0.1 * rough.seam_jerk
        assert CONTRACT.control_hz == 20
