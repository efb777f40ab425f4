"""Stand-ins for a model: a demonstration repeated, and no motion at all."""

from pathlib import Path

import numpy as np
import pytest

import lfm_envs
from lfm_envs.point_mass import CONTRACT, PointMass, expert
from lfm_policy.actions.poses import decode_absolute
from lfm_policy.bundles.open import open_policy
from lfm_policy.chunks.horizon import RecedingHorizon
from lfm_policy.contract import ArmController, Contract, ObservationKey
from lfm_policy.data.windows.store import Episode, write_store
from lfm_policy.errors import ConfigError, ContractError, DataError
from lfm_policy.server.served import ServeSettings, load
from lfm_policy.server.stand_ins import ReplayPolicy, ZeroPolicy, read_contract

ARM = Contract(
    suite_version="1.5.2",
    environment="Lift",
    robots=("Panda",),
    controllers=(ArmController(),),
    action_dim=10,
    observations=(
        ObservationKey(name="object", dim=10),
        ObservationKey(name="robot0_eef_pos", dim=3),
        ObservationKey(name="robot0_eef_quat", dim=4),
        ObservationKey(name="robot0_gripper_qpos", dim=2),
    ),
)


def demonstration(seed: int) -> Episode:
    """The point mass's expert, undisturbed."""
    environment, success = PointMass(), False
    observation, rows, actions = environment.reset(seed), [], []
    while not success:
        rows.append(CONTRACT.flatten(observation))
        actions.append(expert(observation))
        result = environment.step(actions[-1])
        observation, success = result.observation, result.success
    return Episode(np.stack(rows), np.stack(actions).astype(np.float32))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "demos.zarr"
    write_store(path, [demonstration(1), demonstration(2)], CONTRACT, {"train": [0, 1], "valid": []}, {})
    return path


def test_a_replayed_demonstration_succeeds_again(data: Path) -> None:
    served = load(ServeSettings(policy=f"replay:{data}", episode=1), open_policy)
    environment = PointMass()
    observation, success, actions = environment.reset(2), False, []
    horizon = RecedingHorizon(served.policy, seed=0)
    while not success:
        actions.append(horizon.act(CONTRACT.flatten(observation)))
        result = environment.step(actions[-1])
        observation, success = result.observation, result.success
    np.testing.assert_array_equal(actions, demonstration(2).action)
    assert served.name.endswith("demos.zarr episode 1")


def test_a_replay_waits_for_a_robot_that_lags() -> None:
    episode = demonstration(1)
    policy = ReplayPolicy(CONTRACT, episode.observation, episode.action, 8, 2, 4)
    still = np.stack([episode.observation[1]] * 2)[None]
    for _ in range(2):
        chunk = policy.predict(still, np.zeros((1, 8, 2), np.float32)).actions[0]
        np.testing.assert_array_equal(chunk, episode.action[:8])
    end = np.stack([episode.observation[-2:]])
    chunk = policy.predict(end, np.zeros((1, 8, 2), np.float32)).actions[0]
    np.testing.assert_array_equal(chunk[1:], np.stack([episode.action[-1]] * 7))


@pytest.mark.sim
def test_zero_holds_a_real_arm_where_it_is() -> None:
    environment = lfm_envs.make("robosuite/lift")
    try:
        first = observation = environment.reset(0)
        horizon = RecedingHorizon(ZeroPolicy(environment.contract), seed=0)
        for _ in range(40):
            observation = environment.step(horizon.act(environment.contract.flatten(observation))).observation
    finally:
        environment.close()
    assert np.linalg.norm(observation["robot0_eef_pos"] - first["robot0_eef_pos"]) < 0.02
    assert abs(np.dot(observation["robot0_eef_quat"], first["robot0_eef_quat"])) > np.cos(0.05 / 2)


def test_zero_is_a_proper_pose_in_absolute_form_and_zeros_in_delta_form() -> None:
    row = np.zeros((1, 2, 19), np.float32)
    row[..., 10:13], row[..., 13:17] = (0.1, 0.2, 0.9), (1, 0, 0, 0)
    noise = np.zeros((1, 16, 10), np.float32)
    position, matrix, gripper = decode_absolute(ZeroPolicy(ARM).predict(row, noise).actions)
    np.testing.assert_allclose(position, np.broadcast_to([0.1, 0.2, 0.9], (1, 16, 3)), atol=1e-6)
    np.testing.assert_allclose(np.linalg.det(matrix), 1)
    np.testing.assert_array_equal(gripper, -1)
    delta = ARM.model_copy(update={"action_form": "delta", "rotation": "axis_angle", "action_dim": 7})
    assert not ZeroPolicy(delta).predict(row, noise).actions.any()


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"policy": "zero"}, ConfigError, "zero needs a robot's contract: contract=FILE"),
        ({"policy": "zero", "contract": "nowhere"}, ConfigError, "no contract in nowhere"),
        ({"policy": "replay:nowhere.zarr"}, DataError, "nowhere.zarr"),
        ({"policy": "replay:DATA", "episode": 2}, ConfigError, "has the episodes 0 to 1, found episode 2"),
        ({"policy": "replay:DATA", "horizon": 8}, ConfigError, "8 actions from index 1 on do not fit a chunk of 8"),
        (
            {"policy": "replay:DATA", "contract": "OTHER"},
            ContractError,
            "environment: policy replay:.* has 'PointMass'",
        ),
    ],
)
def test_what_cannot_be_served(
    settings: dict[str, object], error: type[Exception], message: str, data: Path, tmp_path: Path
) -> None:
    (tmp_path / "contract.json").write_text(ARM.model_dump_json())
    places = {"replay:DATA": f"replay:{data}", "OTHER": tmp_path}
    with pytest.raises(error, match=message):
        load(
            ServeSettings.model_validate({key: places.get(str(value), value) for key, value in settings.items()}),
            open_policy,
        )


def test_a_contract_is_read_from_a_file_or_what_holds_one(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").mkdir()
    file = tmp_path / "checkpoint" / "contract.json"
    file.write_text(ARM.model_dump_json())
    assert read_contract(file) == read_contract(tmp_path) == read_contract(tmp_path / "checkpoint") == ARM
    file.write_text("{}")
    with pytest.raises(ConfigError, match="is not a contract: Field required"):
        read_contract(tmp_path)
