import numpy as np
import pytest
from pydantic import ValidationError

from lfm_policy.contract import Camera, Contract, ObservationKey
from lfm_policy.errors import ContractError

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
