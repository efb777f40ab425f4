"""What LeRobot's robots are asked by: names, pictures and speeds, with a stand-in that has LeRobot's methods."""

import numpy as np
import pytest

from lfm_policy.contract import ActionNumber, Camera, Contract, ObservationKey
from lfm_policy.control.lerobot import LeRobotArm
from lfm_policy.errors import ConfigError, ContractError, RolloutError

CONTRACT = Contract(
    suite="lerobot",
    suite_version="v3.0",
    environment="drive",
    robots=("base",),
    control_hz=30,
    space="vector",
    action_dim=3,
    actions=(ActionNumber(name="lift.pos"), ActionNumber(name="x.vel"), ActionNumber(name="gripper", gripper=True)),
    observations=(ObservationKey(name="lift", dim=1), ObservationKey(name="x.vel", dim=1)),
    cameras=(Camera(name="observation.images.front", height=24, width=32),),
)


class Base:
    """A robot on wheels with a lift, a gripper and a camera."""

    def __init__(self, calibrated=True):
        self.action_features = dict.fromkeys(("x.vel", "lift.pos", "gripper.pos"), float)
        self.observation_features = self.action_features | {"front": (48, 64, 3)}
        self.is_calibrated, self.is_connected, self.sent, self.broken = calibrated, False, [], False

    def connect(self, calibrate):
        assert calibrate is False, "that would ask questions"
        self.is_connected = True

    def disconnect(self):
        self.is_connected = False

    def get_observation(self):
        if self.broken:
            raise ConnectionError("no status packet")
        rows = np.repeat(np.arange(48, dtype=np.uint8)[:, None, None], 64, axis=1)
        return {"x.vel": 0.5, "lift.pos": 12.0, "gripper.pos": 40.0, "front": np.tile(rows, (1, 1, 3))}

    def send_action(self, action):
        self.sent.append(action)


def test_entries_and_pictures_are_found_by_their_names():
    pytest.importorskip("cv2", reason="LeRobot brings OpenCV along")
    reading = LeRobotArm(CONTRACT, Base()).read()
    assert reading.rows.tolist() == [[12.0, 0.5]]
    assert reading.frames.shape == (1, 24, 32, 3)
    assert np.abs(reading.frames[0, :, 0, 0] - (2 * np.arange(24) + 0.5)).max() <= 0.5, "the mean of two rows each"


def test_a_stop_keeps_joints_and_grippers_and_ends_speeds():
    base = Base()
    robot = LeRobotArm(CONTRACT, base)
    robot.send(np.array([20.0, 1.5, 90.0]), 0.0)
    robot.stop()
    assert base.sent[0] == {"lift.pos": 20.0, "x.vel": 1.5, "gripper.pos": 90.0}
    assert base.sent[1] == {"lift.pos": 12.0, "x.vel": 0.0, "gripper.pos": 90.0}
    robot.close()
    assert not base.is_connected


def test_a_robot_that_does_not_answer_is_named():
    base = Base()
    robot = LeRobotArm(CONTRACT, base)
    base.broken = True
    with pytest.raises(RolloutError, match="LeRobot's get_observation: no status packet"):
        robot.read()


def test_a_robot_that_is_not_calibrated_is_left_again():
    base = Base(calibrated=False)
    with pytest.raises(ConfigError, match="not calibrated"):
        LeRobotArm(CONTRACT, base)
    assert not base.is_connected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cameras": (Camera(name="wrist", height=24, width=32),)}, "no camera 'wrist'"),
        ({"observations": (ObservationKey(name="lift", dim=2),)}, "has 2 numbers"),
        ({"observations": (ObservationKey(name="lfit", dim=1),)}, "no 'lfit': did you mean 'lift.pos'"),
        ({"actions": (), "space": "joints"}, "numbers without names"),
        ({"actions": CONTRACT.actions[:2], "action_dim": 2}, "the robot takes"),
    ],
)
def test_other_things_than_the_robots(change, message):
    base = Base()
    with pytest.raises(ContractError, match=message):
        LeRobotArm(CONTRACT.model_copy(update=change), base)
    assert not base.is_connected, "and it was not touched"
