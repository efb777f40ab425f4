"""Names, addresses and files of environments; which of them a contract may ask for."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

import lfm_envs
from lfm_envs import registry, tasks
from lfm_envs.point_mass import CONTRACT, PointMass
from lfm_envs.tasks import TASKS, Task, register_task, task
from lfm_policy.errors import ConfigError

STACK = Task("stack", "Stack", horizon=300, object_dim=23)
UR5E = Task("ur5e", "Door", horizon=300, object_dim=14, robots=("UR5e",), gripper_dim=6, control_hz=10)
MINE = "tests.envs.test_registry:Mine"


class Nothing:
    pass


class Mine(PointMass):
    contract = CONTRACT.model_copy(update={"suite": "mine", "made_by": MINE})

    def __init__(self, bonus: float = 0.0) -> None:
        super().__init__()
        self.bonus = bonus


@pytest.fixture
def clean(monkeypatch):
    monkeypatch.setattr(registry, "_REGISTERED", dict(registry._REGISTERED))
    monkeypatch.setattr(tasks, "TASKS", dict(TASKS))
    monkeypatch.setattr(registry, "TASKS", tasks.TASKS)


def test_a_registered_name_is_one_like_ours(clean):
    lfm_envs.register("mine", Mine, Mine.contract)
    lfm_envs.register("mine", Mine, Mine.contract)
    assert "mine" in lfm_envs.names()
    assert lfm_envs.make("mine", bonus=2.0).bonus == 2.0
    assert lfm_envs.contract_for("mine") is Mine.contract
    with pytest.raises(ConfigError, match=r"no option 'bonsu'.*'bonus'"):
        lfm_envs.make("mine", bonsu=2.0)
    with pytest.raises(ConfigError, match="did you mean 'mine'"):
        lfm_envs.make("mime")


@pytest.mark.parametrize("name", ["robosuite/lift", "point_mass", "a:b", "x.yaml", ""])
def test_names_are_not_taken_twice(clean, name):
    with pytest.raises(ConfigError):
        lfm_envs.register(name, Mine)


def test_an_address_makes_an_environment_and_a_checkpoint_needs_trust_for_it():
    assert lfm_envs.make(MINE, bonus=1.0).bonus == 1.0
    with pytest.raises(ConfigError, match=f"environment='{MINE}', or trust_code=true"):
        lfm_envs.name_for(Mine.contract)
    assert lfm_envs.name_for(Mine.contract, trust_code=True) == MINE


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tests.envs.test_registry:Mien", "did you mean 'Mine'"),
        ("tests.envs.nowhere:Mine", "cannot be imported"),
        ("tests.envs.test_registry:MINE", "expected a class or a function, found str"),
        ("tests.envs.test_registry:Nothing", "a Nothing has no contract, horizon, reset"),
    ],
)
def test_what_makes_no_environment_is_named(name, message):
    with pytest.raises(ConfigError, match=message):
        lfm_envs.make(name)


def test_the_working_directory_holds_modules_too(tmp_path):
    (tmp_path / "own_place.py").write_text("from lfm_envs.point_mass import PointMass as Place\n")
    code = "import lfm_envs; print(type(lfm_envs.make('own_place:Place')).__name__)"
    done = subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "PointMass\n"


def test_contracts_of_older_checkpoints_find_our_environments():
    for name, entry in TASKS.items():
        assert entry.contract.made_by is None
        assert lfm_envs.name_for(entry.contract) == f"robosuite/{name}"
    assert lfm_envs.name_for(CONTRACT) == "point_mass"
    with pytest.raises(ConfigError, match="unknown environment 'other/PointMass'"):
        lfm_envs.name_for(CONTRACT.model_copy(update={"suite": "other"}))


def test_a_task_of_ones_own_is_found_by_its_address():
    found = task("tests.envs.test_registry:STACK")
    assert found == dataclasses.replace(STACK, made_by="tests.envs.test_registry:STACK")
    assert found.contract.made_by == "tests.envs.test_registry:STACK"
    with pytest.raises(ConfigError, match=r"is no lfm_envs\.tasks\.Task, found type"):
        task(MINE)


def test_a_registered_task_has_a_name(clean):
    assert register_task(STACK).made_by == "robosuite/stack"
    assert register_task(STACK) == task("stack") == task("robosuite/stack")
    assert lfm_envs.name_for(task("stack").contract) == "robosuite/stack"
    with pytest.raises(ConfigError, match="already"):
        register_task(dataclasses.replace(STACK, horizon=1))


@pytest.mark.sim
@pytest.mark.slow
def test_another_task_steps_like_robosuite_itself():
    """In compiled code and in robosuite's own, bit for bit."""
    pytest.importorskip("robosuite")
    sides = [lfm_envs.make("tests.envs.test_registry:STACK", simulation=kind) for kind in ("compiled", "robosuite")]
    seen = [side.contract.flatten(side.reset(2)) for side in sides]
    position, matrix = sides[0].grip_poses()[0]
    action = np.concatenate([position + np.array([0.03, 0.02, -0.02]), matrix[:2].ravel(), [1.0]])
    for _ in range(5):
        assert np.array_equal(*seen)
        seen = [side.contract.flatten(side.step(action).observation) for side in sides]
    for side in sides:
        side.close()


@pytest.mark.sim
@pytest.mark.slow
def test_other_arms_and_grippers_are_left_to_robosuite():
    pytest.importorskip("robosuite")
    environment = lfm_envs.make("tests.envs.test_registry:UR5E")
    first = environment.contract.flatten(environment.reset(1))
    assert first.shape == (14 + 13,)
    position, matrix = environment.grip_poses()[0]
    target = position + np.array([0.0, 0.05, 0.02])
    for _ in range(15):
        environment.step(np.concatenate([target, matrix[:2].ravel(), [-1.0]]))
    assert np.linalg.norm(environment.grip_poses()[0][0] - target) < 0.01
    assert np.array_equal(environment.contract.flatten(environment.reset(1)), first)
    environment.close()
