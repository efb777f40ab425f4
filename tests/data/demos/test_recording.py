import json

import pytest

from lfm_policy.contract import ArmController, Contract, ObservationKey
from lfm_policy.data.demos.recording import parse_recording
from lfm_policy.errors import DataError
from tests.data.demos.recordings import RAW, V14_CONTROLLER, V15, V15_PART, V141, composite, env_args


def test_v15_says_everything_itself():
    recording = parse_recording(V15, None, "file")
    assert (recording.environment, recording.suite_version, recording.robots) == ("Lift", "1.5.1", ("Panda",))
    assert recording.controllers == (ArmController(frame="world"),)
    assert recording.lite_physics is False
    assert recording.notes == ()


@pytest.mark.parametrize(("text", "version"), [(V141, None), (RAW, "1.4.1")])
def test_flat_controllers_are_world_frame_and_said_so(text, version):
    recording = parse_recording(text, version, "file")
    assert recording.controllers == (ArmController(frame="world"),)
    assert (recording.suite_version, recording.lite_physics) == ("1.4.1", False)
    assert "1.4.1" in recording.notes[0]
    assert "world frame" in recording.notes[0]


def test_unsaid_frame_of_v15_is_its_default():
    part = {key: value for key, value in V15_PART.items() if key != "input_ref_frame"}
    recording = parse_recording(env_args({"type": "BASIC", "body_parts": {"arms": {"right": part}}}), None, "file")
    assert recording.controllers[0].frame == "base"
    assert "input_ref_frame" in recording.notes[0]
    assert recording.lite_physics is True


@pytest.mark.parametrize(
    ("text", "ignored"),
    [
        (env_args(V14_CONTROLLER | {"control_delta": False}, "1.4.1"), False),
        (env_args(V14_CONTROLLER | {"control_delta": False}, "1.5.1"), True),
        (env_args(composite(V15_PART | {"control_delta": False})), True),
        (env_args(composite(V15_PART | {"input_type": "absolute"})), False),
        (env_args(composite(V15_PART | {"input_type": "absolute", "control_delta": False})), False),
    ],
)
def test_absolute_actions_are_told_and_refused(text, ignored):
    recording = parse_recording(text, None, "file")
    assert recording.forms == ("absolute",)
    assert recording.ignored_control_delta == ignored
    with pytest.raises(DataError, match=r"^file: expected delta actions.*say absolute"):
        recording.require_deltas("file")


def test_a_flat_controller_given_to_v15_is_in_its_frame():
    recording = parse_recording(env_args(V14_CONTROLLER, "1.5.1"), None, "file")
    assert recording.controllers[0].frame == "base"
    assert (recording.forms, recording.lite_physics) == (("delta",), True)
    assert "flat" in recording.notes[0]
    recording.require_deltas("file")


def test_two_robots_share_or_have_their_own_controllers():
    robots = ("Panda", "Panda")
    shared = parse_recording(env_args(composite(V15_PART), robots=robots), None, "file")
    assert len(shared.controllers) == 2
    base = composite(V15_PART | {"input_ref_frame": "base"})
    own = parse_recording(env_args([composite(V15_PART), base], robots=robots), None, "file")
    assert [arm.frame for arm in own.controllers] == ["world", "base"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{not json", "as JSON"),
        ("[1, 2]", "as JSON"),
        (json.dumps({"env_name": "Lift", "env_kwargs": {"robots": ["Panda"]}}), "controller_configs"),
        (env_args({"type": "JOINT_POSITION"}), "OSC_POSE, found 'JOINT_POSITION'"),
        (env_args(composite(V15_PART | {"kp": [150, 150, 50, 150, 150, 150]})), "one controller setting"),
    ],
)
def test_what_cannot_be_read_is_named(text, message):
    with pytest.raises(DataError, match=f"^file.*{message}"):
        parse_recording(text, None, "file")


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        (env_args(composite(V15_PART | {"kp": 300})), ["arm 0 kp: file 300.0, expected 150.0"]),
        (env_args(composite(V15_PART), control_freq=10), ["control_hz: file 10.0, expected 20.0"]),
        (env_args(composite(V15_PART), robots=("Sawyer",)), ["robots: file .*Sawyer"]),
        (env_args(composite(V15_PART | {"output_max": 0.1})), ["delta_position_m: file 0.1", "delta_rotation_rad"]),
    ],
)
def test_other_controllers_are_refused_by_name(text, rows):
    contract = Contract(
        suite_version="1.5.2",
        environment="Lift",
        robots=("Panda",),
        controllers=(ArmController(),),
        action_dim=10,
        observations=(ObservationKey(name="object", dim=10),),
    )
    with pytest.raises(DataError, match="(?s)" + ".*".join(rows)):
        parse_recording(text, None, "file").require_controllers(contract, "file")
    parse_recording(V15, None, "file").require_controllers(contract, "file")
