"""A copy of the policy in every worker plays the episodes of the one in the parent, and is taken where it pays."""

import functools
import pickle
import time

import numpy as np
import pytest

from lfm_envs.point_mass import CONTRACT, PointMass
from lfm_policy.chunks.delayed import Link
from lfm_policy.chunks.warm import WarmStart
from lfm_policy.errors import ConfigError, ContractError, RolloutError
from lfm_policy.models.policy import LFMPolicy
from lfm_policy.protocols import PortablePolicy
from lfm_policy.rollout import seats
from lfm_policy.rollout.planner import Planner
from lfm_policy.rollout.play import Player, play
from lfm_policy.rollout.records import EpisodeResult
from lfm_policy.rollout.runner import Runner, RunnerOptions
from lfm_policy.rollout.seats import AutoSeat, ParentSeat, WorkerSeat, choose_seat, copies_pay
from tests.bundles.policies import plain
from tests.rollout.scripted import OBSERVATION_STEPS, Breaking, Counted, Failing, Pondering, Portable, Straight
from tests.rollout.test_runner import Listener, outcomes

SEEDS, PLAIN = list(range(100, 110)), Link()
COPIES = RunnerOptions(workers=2, policy_in="workers")
PARENT = RunnerOptions(workers=1, policy_in="parent")


class Bound(Portable):
    """Holds what cannot go to another process."""

    def __init__(self):
        super().__init__()
        self.secret = lambda: None


class PonderingBound(Pondering, Bound):
    """Takes long, and holds what cannot go to another process."""


def tiny() -> LFMPolicy:
    network = {"_target_": "lfm_policy.networks.unet1d.ConditionalUnet1d", "dims": [8, 16], "time_dim": 8}
    return plain(CONTRACT, network, (0.1,), horizon=8, action_steps=4)


def here(policy, link=PLAIN, seeds=SEEDS) -> list[EpisodeResult]:
    """The episodes, played in this process."""
    environment, player, planner = PointMass(), Player(policy, link), Planner(policy)
    return [list(play(environment, player, planner, seed, None))[-1] for seed in seeds]


class TestSameEpisodes:
    @pytest.mark.parametrize(
        "link", [Link(), Link(inference="async", latency_steps=2, packet_loss=0.3), Link(seam="warm", latency_steps=1)]
    )
    def test_of_a_scripted_policy(self, link):
        copies = Runner(Portable(), PointMass, COPIES, link=link).run(SEEDS)
        assert outcomes(copies) == outcomes(here(Portable(), link))
        assert sum(result.success for result in copies) > 0
        assert {result.workers for result in copies} == {2}

    def test_of_a_network_to_the_last_bit(self):
        copies = Runner(tiny(), PointMass, COPIES.model_copy(update={"workers": 1})).run(SEEDS[:3])
        assert outcomes(copies) == outcomes(here(tiny(), seeds=SEEDS[:3]))

    def test_events_are_those_of_the_parent(self):
        heard = []
        for options in (PARENT, COPIES.model_copy(update={"workers": 1})):
            listener = Listener()
            Runner(Portable(), PointMass, options, [listener]).run(SEEDS[:3], frame=(16, 16))
            heard.append(listener.events)
        assert heard[0] == heard[1]


class TestBrokenWorkers:
    def test_are_restarted_with_a_fresh_copy(self, tmp_path):
        factory = functools.partial(Breaking, "hang", seed=103, once=str(tmp_path / "once"))
        options = COPIES.model_copy(update={"timeout_s": 1.5})
        listener = Listener()
        results = Runner(Straight(), factory, options, [listener]).run(SEEDS)
        assert outcomes(results) == outcomes(here(Straight()))
        assert [r.attempts for r in results] == [2 if seed == 103 else 1 for seed in SEEDS]

    def test_a_policy_that_fails_says_why(self):
        with pytest.raises(RolloutError, match=r"(?s)Traceback.*the weights are gone"):
            Runner(Failing(), PointMass, COPIES.model_copy(update={"retries": 0})).run(SEEDS[:2])


class TestChoice:
    def choose(self, policy, policy_in="auto", size=1, workers=2, episodes=100):
        return type(choose_seat(policy, Link(), policy_in, size=size, workers=workers, episodes=episodes))

    def test_what_was_asked_for(self):
        assert self.choose(Portable(), policy_in="parent") is ParentSeat
        assert self.choose(Straight(), policy_in="workers") is WorkerSeat

    def test_where_there_is_a_choice_it_is_left_to_measurements(self):
        assert self.choose(Portable()) is AutoSeat
        assert self.choose(Portable(), size=4) is ParentSeat
        assert self.choose(Straight()) is ParentSeat, "it does not say that it is portable"

    def test_copies_pay_for_slow_policies_many_workers_and_many_episodes(self):
        student, teacher = (0.02, 0.09), (0.4, 0.09)
        assert not copies_pay(*student, workers=2, episodes=10_000), "the environments are slower than the policy"
        assert copies_pay(*student, workers=16, episodes=1000)
        assert copies_pay(*teacher, workers=2, episodes=100)
        assert not copies_pay(*teacher, workers=2, episodes=10), "over before the copies are there"
        assert not copies_pay(*teacher, workers=1, episodes=10_000)

    @pytest.mark.parametrize("policy", ["Pondering", "PonderingBound"])
    def test_auto_moves_where_it_can_and_changes_nothing(self, policy, monkeypatch):
        monkeypatch.setattr(seats, "COPY_S", 0.0)
        monkeypatch.setattr(seats, "usable_cores", lambda: 2)
        made = Pondering() if policy == "Pondering" else PonderingBound()
        results = Runner(made, PointMass, RunnerOptions(workers=2)).run(SEEDS)
        assert outcomes(results) == outcomes(here(Straight()))
        here_only = len(made.batches) >= sum(result.chunks for result in results)
        assert here_only == (policy == "PonderingBound")

    def test_large_policies_stay(self, monkeypatch):
        monkeypatch.setattr(seats, "COPY_S", 0.0)
        monkeypatch.setattr(seats, "usable_cores", lambda: 2)
        monkeypatch.setattr(seats, "LARGEST_COPY", 10)
        policy = Pondering()
        results = Runner(policy, PointMass, RunnerOptions(workers=2)).run(SEEDS[:4])
        assert len(policy.batches) >= sum(result.chunks for result in results)

    def test_asking_for_the_impossible(self):
        with pytest.raises(ConfigError, match="Bound cannot be copied to other processes"):
            self.choose(Bound(), policy_in="workers")
        with pytest.raises(ConfigError, match="policy_batch=4 needs the policy in one place"):
            self.choose(Portable(), policy_in="workers", size=4)

    def test_a_class_of_the_main_program_is_refused_by_name(self, monkeypatch):
        monkeypatch.setattr(Portable, "__module__", "__main__")
        with pytest.raises(ConfigError, match="class Portable is in the main program"):
            self.choose(Portable(), policy_in="workers")

    def test_which_policies_are_portable(self):
        policy = tiny()
        assert isinstance(policy, PortablePolicy)
        assert policy.portable
        assert WarmStart(policy, 1).portable
        policy.threads = None
        assert not policy.portable, "it takes cores that other copies need"


class Compiling(Straight):
    """Takes long at its first call."""

    def predict(self, histories, noise):
        if not self.batches:
            time.sleep(0.2)
        return super().predict(histories, noise)


def test_the_first_chunk_is_measured_without_what_is_compiled_for_it():
    planner = Planner(Compiling())
    horizon = Link().horizon(planner.policy, 0)
    horizon.observe(np.ones((1, 4), np.float32))
    batch, seconds = planner.chunks([horizon])
    assert seconds < 0.1
    assert batch.actions.shape == (1, 8, 2)
    planner.chunks([horizon])
    assert len(planner.policy.batches) == 3, "only the first chunk is predicted twice"


class TestKeptWorkers:
    def test_are_started_once(self, tmp_path):
        factory = functools.partial(Counted, str(tmp_path))
        with Runner(Straight(), factory, RunnerOptions(workers=2)) as runner:
            parts = [runner.run(SEEDS[:1]), runner.run(SEEDS[1:7]), runner.run(SEEDS[7:])]
        assert len(list(tmp_path.iterdir())) == 2
        assert outcomes([result for part in parts for result in part]) == outcomes(here(Straight()))

    def test_another_contract_is_refused_before_the_first_step(self):
        strict = Straight()
        strict.contract = CONTRACT.model_copy(update={"control_hz": 10.0})
        with pytest.raises(ContractError, match="control_hz"), Runner(strict, PointMass, COPIES) as runner:
            runner.run(SEEDS)


def test_a_copy_is_made_of_what_the_policy_is_now():
    """Solver and temperature that were changed after loading go along."""
    policy = tiny()
    policy.set_temperature(0.25)
    copy = pickle.loads(pickle.dumps(policy))
    given = (np.ones((1, OBSERVATION_STEPS, 4), np.float32), np.ones((1, 8, 2), np.float32))
    np.testing.assert_array_equal(copy.predict(*given).actions, policy.predict(*given).actions)
    assert copy.digest() == policy.digest()
