"""What a contract accepts, what it leaves to be understood, and that older files keep their meaning."""

import numpy as np
import pytest
from pydantic import ValidationError

import lfm_pretrained
from lfm_envs.point_mass import CONTRACT as POINT
from lfm_envs.tasks import TASKS
from lfm_policy.contract import Camera, Contract, ObservationKey
from lfm_policy.errors import ContractError
from tests.contracts import JOINTS

LIFT = TASKS["lift"].contract


@pytest.mark.parametrize("task", ["lift", "can"])
def test_older_files_load_equal_and_are_written_as_they_were(task):
    text = (lfm_pretrained.FOLDER / task / "contract.json").read_text()
    contract = Contract.model_validate_json(text)
    assert contract == TASKS[task].contract
    assert contract.model_dump_json(indent=2) + "\n" == text


def test_an_older_contract_without_rotation_is_a_position():
    older = POINT.model_dump(mode="json")
    assert not {"space", "actions", "measured", "made_by", "score", "modes"} & set(older)
    contract = Contract.model_validate(older)
    assert contract == POINT
    assert (contract.space, contract.poses, contract.unit, contract.grippers) == ("position", False, "m", [])


@pytest.mark.parametrize("contract", [LIFT, POINT, JOINTS], ids=["poses", "position", "joints"])
def test_round_trip(contract):
    again = Contract.model_validate_json(contract.model_dump_json())
    assert again == contract
    assert contract.differences(again) == []


def test_joints_say_what_they_are():
    assert (JOINTS.space, JOINTS.poses, JOINTS.unit, JOINTS.grippers, JOINTS.arms) == ("joints", False, "deg", [2], 0)
    assert (LIFT.space, LIFT.unit, LIFT.grippers, LIFT.arms) == ("poses", "m", [9], 1)


@pytest.mark.parametrize(
    "changes",
    [
        {"control_hz": 0},
        {"control_hz": float("nan")},
        {"control_hz": float("inf")},
        {"control_hz": -20},
        {"control_hz": 1e9},
        {"observations": []},
        {"observations": [{"name": "x", "dim": 0}]},
        {"observations": [{"name": "x", "dim": 10**9}]},
        {"observations": [{"name": "x\x1b[31m", "dim": 1}]},
        {"observations": [{"name": "x", "dim": 1}, {"name": "x", "dim": 1}]},
        {"environment": "Lift\n13:00 forged"},
        {"space": "joints", "measured": "nothing"},
        {"space": "joints", "actions": [{"name": "one"}]},
        {"space": "poses"},
        {"space": "joints", "rotation": "rot6d_rows"},
        {"action_dim": 0},
    ],
)
def test_nonsense_is_refused(changes):
    with pytest.raises(ValidationError):
        Contract.model_validate(POINT.model_dump() | changes)


def test_where_an_environment_is_found_is_never_compared():
    moved = JOINTS.model_copy(update={"made_by": "a.place:make", "score": "largest_reward", "modes": ("left", "right")})
    JOINTS.require_match(moved, "the policy", "the robot")
    with pytest.raises(ContractError, match="space: the policy has 'joints', the robot has 'vector'"):
        JOINTS.require_match(JOINTS.model_copy(update={"space": "vector"}), "the policy", "the robot")


def test_flatten_follows_the_order_of_the_observations():
    parts = {name: np.full(4 if name.endswith("environment_state") else 3, i) for i, name in enumerate(JOINTS.columns)}
    assert JOINTS.flatten(dict(reversed(parts.items()))).tolist() == [0] * 4 + [1] * 3
    assert JOINTS.columns["observation.state"] == slice(4, 7)


PLAIN = Contract(
    suite="test",
    suite_version="1",
    environment="Two",
    robots=(),
    controllers=(),
    rotation="none",
    action_dim=2,
    observations=(ObservationKey(name="position", dim=2),),
)
SEEING = PLAIN.model_copy(
    update={"cameras": tuple(Camera(name=name, height=4, width=6) for name in ("front", "wrist"))}
)


def pictures(**changes):
    return {f"{name}_image": np.full((4, 6, 3), n, np.uint8) for n, name in enumerate(("front", "wrist"))} | changes


def test_contracts_without_cameras_are_written_as_before():
    assert "cameras" not in PLAIN.model_dump(mode="json")
    assert "cameras" not in PLAIN.model_dump_json()
    assert Contract.model_validate_json(SEEING.model_dump_json()) == SEEING


def test_pictures_are_stacked_in_the_contracts_order():
    stacked = SEEING.stack(pictures(another=np.zeros(3)))
    assert stacked.shape == SEEING.frames_shape == (2, 4, 6, 3)
    assert stacked[0].max() == 0
    assert stacked[1].min() == 1


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"wrist_image": np.zeros((4, 6, 3), np.float32)}, "wrist_image.*uint8.*float32"),
        ({"wrist_image": np.zeros((3, 4, 6), np.uint8)}, r"\(4, 6, 3\), found uint8 \(3, 4, 6\)"),
        ({"front_image": np.zeros((6, 4, 3), np.uint8)}, "front_image"),
    ],
)
def test_pictures_of_another_form_are_named(bad, message):
    with pytest.raises(ContractError, match=message):
        SEEING.stack(pictures(**bad))
    with pytest.raises(ContractError, match="'wrist_image' is missing"):
        SEEING.stack({"front_image": np.zeros((4, 6, 3), np.uint8)})


def test_another_drawing_is_another_contract():
    full = SEEING.model_copy(
        update={"cameras": tuple(c.model_copy(update={"drawing": "full"}) for c in SEEING.cameras)}
    )
    with pytest.raises(ContractError, match="cameras"):
        SEEING.require_match(full, "the policy", "the robot")
    with pytest.raises(ContractError, match="cameras"):
        PLAIN.require_match(SEEING, "the policy", "the robot")


def test_cameras_have_one_size_and_names_of_their_own():
    for second in ({"name": "front", "height": 4, "width": 6}, {"name": "wrist", "height": 5, "width": 6}):
        with pytest.raises(ValidationError, match="one size and different names"):
            Contract(**dict(PLAIN) | {"cameras": [{"name": "front", "height": 4, "width": 6}, second]})
