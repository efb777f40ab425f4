"""Environments of Gymnasium, described by an address, a file, or the contract of a checkpoint."""

import json
from functools import partial

import numpy as np
import pytest

import lfm_envs
from lfm_envs.from_gymnasium import describe
from lfm_policy.contract import Contract
from lfm_policy.errors import ConfigError, RolloutError
from lfm_policy.protocols import Environment
from lfm_policy.rollout.runner import Runner, RunnerOptions
from lfm_policy.server.stand_ins import ZeroPolicy

pytest.importorskip("gymnasium")
CART = "gym:tests.envs.pushing:pushing/Cart-v0"
FILE = {
    "id": "tests.envs.pushing:pushing/Cart-v0",
    "options": {"far": 0.5, "named": True},
    "observations": {"place": 1, "speed": 1},
    "actions": [{"name": "push", "unit": "m/s"}],
    "action_form": "delta",
    "success": "reward >= 0.95",
    "score": "largest_reward",
    "horizon": 12,
}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "cart.json"
    path.write_text(json.dumps(FILE))
    return str(path)


def test_an_address_alone_says_enough_of_a_plain_environment():
    environment = lfm_envs.make(CART)
    assert isinstance(environment, Environment)
    contract = environment.contract
    assert (contract.suite, contract.environment) == ("gymnasium", "tests.envs.pushing:pushing/Cart-v0")
    assert (contract.control_hz, contract.action_dim, contract.observation_dim) == (10, 1, 2)
    assert (environment.horizon, contract.space) == (30, "vector")
    first = contract.flatten(environment.reset(3))
    environment.step(np.array([-1.0]))
    assert np.array_equal(contract.flatten(environment.reset(3)), first)
    assert environment.render(16, 8).shape == (8, 16, 3)


def test_a_file_names_what_the_numbers_mean(file):
    environment = lfm_envs.make(file)
    contract = environment.contract
    assert [key.name for key in contract.observations] == ["place", "speed"]
    assert (contract.actions[0].name, contract.unit, contract.score) == ("push", "m/s", "largest_reward")
    assert environment.horizon == 12
    place = environment.reset(0)["place"]
    assert 0.25 <= place[0] <= 0.5
    while not (result := environment.step(np.array([-0.5]))).success:
        pass
    assert result.reward >= 0.95


def test_yaml_is_read_too(tmp_path):
    yaml = pytest.importorskip("yaml")
    (tmp_path / "cart.yaml").write_text(yaml.safe_dump(FILE))
    assert lfm_envs.make(str(tmp_path / "cart.yaml")).contract.actions[0].name == "push"


def test_a_checkpoint_knows_its_environment_without_the_file(file):
    trained = Contract.model_validate_json(lfm_envs.contract_for(file).model_dump_json())
    with pytest.raises(ConfigError, match="trust_code=true"):
        lfm_envs.name_for(trained)
    address = lfm_envs.name_for(trained, trust_code=True)
    again = lfm_envs.make(address, **lfm_envs.view_for(trained))
    assert again.contract == trained
    assert again.horizon == 12
    assert describe(address, trained).success == "reward >= 0.95"


def test_an_episode_that_ends_without_success_rests_until_the_horizon():
    environment = lfm_envs.make(CART, fails=True)
    environment.reset(0)
    first, second = environment.step(np.zeros(1)), environment.step(np.ones(1))
    assert not first.success
    assert (second.reward, second.success) == (0.0, False)
    assert np.array_equal(second.observation["observation"], first.observation["observation"])


def test_the_runner_runs_it_in_processes_of_their_own(file):
    contract = lfm_envs.contract_for(file)
    results = Runner(ZeroPolicy(contract), partial(lfm_envs.make, file), RunnerOptions(workers=1)).run([0])
    assert [(result.steps, result.success) for result in results] == [(12, False)]
    assert results[0].largest_reward == pytest.approx(results[0].mean_reward), "it stands still"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"observations": {"plaice": 1}}, "did you mean 'place'"),
        ({"observations": {"place": 2}}, "it has 1 numbers"),
        ({"actions": ["a", "b"]}, "2 names of numbers for 1"),
        ({"success": "sometimes"}, "success"),
        ({"id": "pushing_nowhere/Cart-v0"}, "'pushing_nowhere' cannot be imported"),
        ({"id": "tests.envs.pushing:pushing/Crt-v0"}, "did you mean 'pushing/Cart-v0'"),
        ({"options": {"fast": True}}, "cannot be made with {'fast': True}"),
        ({"control_hz": 0}, "control_hz"),
        ({"rewards": 1}, "unknown key 'rewards'"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, changes, message):
    path = tmp_path / "cart.json"
    path.write_text(json.dumps(FILE | changes))
    with pytest.raises(ConfigError, match=message):
        lfm_envs.make(str(path))


def test_success_must_be_said_where_info_does_not():
    environment = lfm_envs.make("gym:Pendulum-v1")
    environment.reset(0)
    with pytest.raises(RolloutError, match="say in a file what counts as success"):
        environment.step(np.zeros(1))
    with pytest.raises(ConfigError, match="expected actions in a Box"):
        lfm_envs.make("gym:CartPole-v1")
