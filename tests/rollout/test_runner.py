import functools
import itertools
import time

import numpy as np
import pytest

from lfm_envs.point_mass import CONTRACT, PointMass
from lfm_envs.tasks import TASKS
from lfm_policy.chunks.horizon import RecedingHorizon
from lfm_policy.errors import ConfigError, ContractError, RolloutError
from lfm_policy.protocols import ChunkBatch
from lfm_policy.rollout.planner import require_row_independence
from lfm_policy.rollout.records import EpisodeResult
from lfm_policy.rollout.runner import Runner, RunnerOptions
from lfm_policy.rollout.subscriber import Subscriber
from tests.rollout.scripted import Breaking, Straight, needs_a_licence, short_lift

SEEDS = list(range(100, 112))
TIMING = {"chunk_ms", "policy_seconds", "wall_seconds", "workers", "attempts"}


def outcomes(results: list[EpisodeResult]) -> list[dict]:
    return sorted((r.model_dump(exclude=TIMING) for r in results), key=lambda row: row["seed"])


def in_one_process(policy: Straight, seed: int) -> tuple[bool, int, np.ndarray]:
    """The runner's specification in ten lines: success, steps and the last observation."""
    environment, horizon = PointMass(), RecedingHorizon(policy, seed)
    observation = environment.reset(seed)
    for step in range(1, environment.horizon + 1):
        result = environment.step(horizon.act(CONTRACT.flatten(observation)))
        observation = result.observation
        if result.success:
            return True, step, CONTRACT.flatten(observation)
    return False, environment.horizon, CONTRACT.flatten(observation)


@pytest.fixture(scope="module")
def reference() -> list[EpisodeResult]:
    return Runner(Straight(), PointMass, RunnerOptions(workers=1)).run(SEEDS)


class TestSameEpisodes:
    def test_match_a_plain_loop(self, reference):
        plain = [in_one_process(Straight(), seed)[:2] for seed in SEEDS]
        assert [(r.success, r.steps) for r in reference] == plain
        assert 0 < sum(r.success for r in reference) < len(SEEDS), "the reference should hold both outcomes"

    @pytest.mark.parametrize("workers", [2, 3])
    def test_whatever_the_number_of_workers_and_the_order(self, reference, workers):
        shuffled = [int(seed) for seed in np.random.default_rng(workers).permutation(SEEDS)]
        results = Runner(Straight(), PointMass, RunnerOptions(workers=workers)).run(shuffled)
        assert [r.seed for r in results] == shuffled
        assert outcomes(results) == outcomes(reference)

    def test_in_padded_batches(self, reference):
        policy = Straight()
        results = Runner(policy, PointMass, RunnerOptions(workers=3, policy_batch=4)).run(SEEDS)
        assert set(policy.batches) == {4}
        assert outcomes(results) == outcomes(reference)

    def test_digests_tell_episodes_apart(self, reference):
        assert len({r.digest for r in reference}) == len(SEEDS)
        other = Runner(Straight(noise_m=0.0999), PointMass, RunnerOptions(workers=1)).run(SEEDS[:1])
        assert other[0].digest != reference[0].digest


class Listener(Subscriber):
    def __init__(self):
        self.events, self.reasons = [], []

    def on_start(self, seed):
        self.events.append(("start", seed))

    def on_segment(self, seed, segment):
        self.events.append(("segment", seed, len(segment.rewards), segment.frames is not None))

    def on_end(self, result):
        self.events.append(("end", result.seed))

    def on_failure(self, seed, attempt, reason):
        self.events.append(("failure", seed, attempt))
        self.reasons.append(reason)


class TestBrokenWorkers:
    @pytest.mark.parametrize(
        ("how", "said"),
        [
            ("raise", ["Traceback", "_break", "ValueError: the simulator lost the cube"]),
            ("kill", ["SIGKILL", "about to die"]),
            ("hang", ["did not answer within 1.5 s", "_hang_in_contact_solver"]),
        ],
    )
    def test_are_restarted_and_their_episode_redone(self, reference, tmp_path, how, said):
        factory = functools.partial(Breaking, how, seed=103, once=str(tmp_path / "once"))
        listener = Listener()
        results = Runner(Straight(), factory, RunnerOptions(workers=2, timeout_s=1.5), [listener]).run(SEEDS)
        assert outcomes(results) == outcomes(reference)
        assert [r.attempts for r in results] == [2 if seed == 103 else 1 for seed in SEEDS]
        assert [event for event in listener.events if event[0] == "failure"] == [("failure", 103, 1)]
        assert all(text in listener.reasons[0] for text in said), listener.reasons[0]

    def test_give_up_with_the_childs_traceback(self):
        factory = functools.partial(Breaking, "raise", seed=101)
        with pytest.raises(RolloutError, match=r"seed 101 failed in 2 attempts") as caught:
            Runner(Straight(), factory, RunnerOptions(workers=1, retries=1)).run(SEEDS[:3])
        assert "ValueError: the simulator lost the cube" in str(caught.value)
        assert "in _break" in str(caught.value)

    def test_an_environment_that_cannot_be_made(self):
        with pytest.raises(RolloutError, match=r"(?s)Traceback.*needs_a_licence.*no licence file found"):
            Runner(Straight(), needs_a_licence, RunnerOptions(workers=1, retries=0)).run(SEEDS[:1])


class Counting(Subscriber):
    def __init__(self):
        self.heard = 0

    def on_start(self, seed):
        self.heard += 1


class Strict(Straight):
    contract = CONTRACT.model_copy(update={"control_hz": 10.0})


class TestRefusals:
    def test_another_contract_before_the_first_step(self):
        counting = Counting()
        runner = Runner(Strict(), PointMass, RunnerOptions(workers=1), [counting], name="checkpoint X")
        with pytest.raises(ContractError, match=r"control_hz: checkpoint X has 10\.0, .*PointMass has 20"):
            runner.run(SEEDS)
        assert counting.heard == 0

    @pytest.mark.parametrize("seeds", [[1, 1], [-1]])
    def test_seeds(self, seeds):
        with pytest.raises(ConfigError, match="distinct seeds"):
            Runner(Straight(), PointMass).run(seeds)

    def test_an_action_that_the_environment_refuses_is_not_retried(self):
        class Wide(Straight):
            def predict(self, histories, noise):
                batch = super().predict(histories, noise)
                return ChunkBatch(np.concatenate([batch.actions] * 2, -1), 1)

        listener = Listener()
        with pytest.raises(RolloutError, match="expected a finite action of shape"):
            Runner(Wide(), PointMass, RunnerOptions(workers=1), [listener]).run(SEEDS)
        assert not listener.reasons

    def test_rows_that_depend_on_their_batch(self):
        class Mixing(Straight):
            def predict(self, histories, noise):
                batch = super().predict(histories, noise)
                return ChunkBatch(batch.actions + 1e-7 * histories.mean(), 1)

        require_row_independence(Straight(), 5)
        with pytest.raises(ConfigError, match="policy_batch=5"):
            Runner(Mixing(), PointMass, RunnerOptions(policy_batch=5))


def test_stops_at_success_and_hears_everything(reference):
    listener = Listener()
    Runner(Straight(), PointMass, RunnerOptions(workers=1), [listener]).run(SEEDS[:4], frame=(16, 16))
    for result in reference[:4]:
        mine = [event for event in listener.events if event[1] == result.seed]
        assert mine[0] == ("start", result.seed)
        assert mine[-1] == ("end", result.seed)
        lengths = [event[2] for event in mine if event[0] == "segment"]
        assert lengths[0] == 0
        assert sum(lengths) == result.steps
        assert result.chunks == len(lengths) - 1 == -(-result.steps // Straight.action_steps)
        assert result.nfe == 3 * result.chunks
        assert result.final_reward == result.largest_reward == float(result.success)
        assert result.mean_reward == pytest.approx(result.success / result.steps)
        assert all(event[3] for event in mine if event[0] == "segment")


def test_workers_do_not_wait_for_stragglers():
    """With one worker stuck until its time is out, the other finishes all the other episodes meanwhile."""
    ended = []

    class Clock(Subscriber):
        def on_end(self, result):
            ended.append((time.perf_counter(), result.seed))

        def on_failure(self, seed, attempt, reason):
            ended.append((time.perf_counter(), None))

    factory = functools.partial(Breaking, "hang", seed=100)
    with pytest.raises(RolloutError, match="did not answer"):
        Runner(Straight(), factory, RunnerOptions(workers=2, timeout_s=2, retries=0), [Clock()]).run(SEEDS)
    assert {seed for _, seed in ended} == set(SEEDS[1:])
    gaps = [later[0] - earlier[0] for earlier, later in itertools.pairwise(ended)]
    assert max(gaps) < 1.5


class Wander:
    """Wanders about above the table, closing the gripper; for Lift."""

    observation_steps, action_steps, noise_shape = 2, 8, (16, 10)

    def __init__(self):
        self.contract = TASKS["lift"].contract

    def predict(self, histories: np.ndarray, noise: np.ndarray) -> ChunkBatch:
        down_and_closed = np.broadcast_to([1.0, 0, 0, 0, -1, 0, 1], (*noise.shape[:2], 7))
        cube = histories[:, -1, None, :3] + [0, 0, 0.1]
        return ChunkBatch(np.concatenate([cube + 0.1 * noise[..., :3], down_and_closed], -1), nfe=1)


@pytest.mark.sim
def test_same_episodes_on_real_physics():
    pytest.importorskip("robosuite")
    seeds = [100000, 100001, 100002, 100003]
    alone = Runner(Wander(), short_lift, RunnerOptions(workers=1)).run(seeds)
    beside = Runner(Wander(), short_lift, RunnerOptions(workers=2)).run(seeds[::-1])
    assert outcomes(alone) == outcomes(beside)
    assert len({result.digest for result in alone}) == 4
    assert {result.chunks for result in alone} == {3}
