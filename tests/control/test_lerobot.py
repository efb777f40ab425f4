"""LeRobot's arms: its own classes and bus over a pseudo-terminal at whose other end servos are simulated."""

import json
import time

import numpy as np
import pytest

from lfm_policy.contract import ActionNumber, Contract, ObservationKey
from lfm_policy.control.lerobot import open_lerobot
from lfm_policy.control.limits import Limits, NumberLimits
from lfm_policy.control.robot import DryRun, Robot
from lfm_policy.control.session import SessionOptions, session
from lfm_policy.errors import ConfigError, ContractError, RolloutError
from lfm_policy.protocols import ChunkBatch
from tests.control.servos import GOAL, PRESENT, TORQUE, Servos

pytest.importorskip("lerobot", reason="LeRobot needs an environment of its own (Python 3.12, numpy < 2.3)")
pytest.importorskip("scservo_sdk", reason="LeRobot's Feetech motors need feetech-servo-sdk")

NAMES = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
NUMBERS = (*(ActionNumber(name=n, unit="deg") for n in NAMES[:5]), ActionNumber(name="gripper", unit="%", gripper=True))
CONTRACT = Contract(
    suite="lerobot",
    suite_version="3.0",
    environment="wave",
    robots=("so101_follower",),
    control_hz=30,
    space="joints",
    action_dim=6,
    actions=NUMBERS,
    observations=(ObservationKey(name="observation.state", dim=6),),
    measured="observation.state",
)
LIMITS = Limits(
    numbers=(
        *(NumberLimits(name=n, low=-60, high=60, step=4, speed=120, acceleration=1200, jerk=60_000) for n in NAMES[:5]),
        NumberLimits(name="gripper", low=0, high=100),
    )
)


class Goal:
    """A policy that asks for one pose."""

    contract, observation_steps, action_steps, noise_shape = CONTRACT, 2, 8, (16, 6)

    def __init__(self, *goal: float) -> None:
        self.goal = np.array(goal)

    def predict(self, histories, noise, frames=None):
        return ChunkBatch(np.tile(self.goal, (len(histories), 16, 1)), 1)


@pytest.fixture(autouse=True)
def _patient(monkeypatch):
    """Wait longer for servos that are simulated on a busy machine than LeRobot waits for real ones."""
    from lerobot.motors.feetech import feetech

    def wait(handler, length):
        handler.packet_start_time, handler.packet_timeout = handler.getCurrentTime(), 500

    monkeypatch.setattr(feetech, "patch_setPacketTimeout", wait)


@pytest.fixture
def bus():
    with Servos() as servos:
        yield servos


@pytest.fixture
def options(bus, tmp_path):
    """LeRobot's configuration of a calibrated arm."""
    motor = {"drive_mode": 0, "homing_offset": 0, "range_min": 0, "range_max": 4095}
    calibration = {name: {"id": number, **motor} for number, name in enumerate(NAMES, start=1)}
    (tmp_path / "mine.json").write_text(json.dumps(calibration))
    return {"port": bus.port, "id": "mine", "calibration_dir": str(tmp_path)}


def degrees(position):
    return (position - 2047.5) * 360 / 4095


def test_numbers_are_degrees_and_percent(bus, options):
    bus.servos[1].put(GOAL, 2048 + 512)
    robot = open_lerobot(CONTRACT, "so101_follower", options)
    assert isinstance(robot, Robot)
    assert all(servo.registers[TORQUE] for servo in bus.servos.values())
    time.sleep(0.3)
    row = robot.read().rows[0]
    assert row[0] == pytest.approx(45, abs=0.2)
    assert row[5] == pytest.approx(50, abs=0.1)
    robot.send(np.array([-45, 0, 0, 0, 0, 25.0]), 0.0)
    time.sleep(0.3)
    assert robot.read().rows[0] == pytest.approx([-45, 0, 0, 0, 0, 25], abs=0.2)
    robot.close()
    assert not any(servo.registers[TORQUE] for servo in bus.servos.values()), "LeRobot's default"


def test_an_episode_through_the_gate_keeps_its_limits_and_stops_when_asked(bus, options, tmp_path):
    robot = open_lerobot(CONTRACT, "so101_follower", options | {"disable_torque_on_disconnect": False})
    asked = SessionOptions(rate_hz=30, episodes=1, episode_s=30, out=tmp_path / "out")
    sent_before_stop = []

    def somebody():
        if bus.goals and abs(degrees(bus.goals[-1][1]) - 50) < 0.2 and not sent_before_stop:
            sent_before_stop.append(len(bus.goals))
        return bool(sent_before_stop)

    said = session(Goal(50, -20, 10, 0, 0, 80), robot, asked, limits=LIMITS, asked=somebody)
    assert said["each"][0]["stopped"] == "asked for"
    assert said["limits"]["ramp_s"] == 1.0, "a robot begins slowly unless it is told otherwise"
    assert len(bus.goals) == sent_before_stop[0] + 1, "the stop's own command, and none after it"
    path = np.array([[degrees(goals[number]) for number in range(1, 6)] for goals in bus.goals[:-1]])
    path = np.concatenate([np.zeros((1, 5)), path])
    assert np.abs(np.diff(path, axis=0)).max() <= 0.5 * 4 + 0.2, "half of the limits, and the encoder's grain"
    assert path[-1] == pytest.approx([50, -20, 10, 0, 0], abs=0.3)
    held = bus.goals[-1]
    for number in range(1, 6):
        assert held[number] == pytest.approx(bus.servos[number].get(PRESENT), abs=20)
    assert all(servo.registers[TORQUE] for servo in bus.servos.values()), "as its configuration asks for"


def test_a_dry_run_sends_no_goal(bus, options, tmp_path):
    robot = open_lerobot(CONTRACT, "so101_follower", options)
    asked = SessionOptions(rate_hz=30, episodes=1, dry_run=True, dry_ticks=10, out=tmp_path / "out")
    session(Goal(50, 0, 0, 0, 0, 80), robot, asked, limits=LIMITS)
    assert bus.goals == []
    assert isinstance(DryRun(robot, 1), Robot)


def test_a_bus_that_goes_silent_is_named(bus, options):
    robot = open_lerobot(CONTRACT, "so101_follower", options)
    bus.silent = True
    with pytest.raises(RolloutError, match="failed in LeRobot's get_observation"):
        robot.read()
    bus.silent = False
    robot.close()


def test_an_arm_that_is_not_calibrated(bus, options):
    with pytest.raises(ConfigError, match="run lerobot-calibrate"):
        open_lerobot(CONTRACT, "so101_follower", options | {"id": "another"})


@pytest.mark.parametrize(
    ("change", "options_too", "error", "message"),
    [
        ({"actions": (NUMBERS[1], NUMBERS[0], *NUMBERS[2:])}, {}, ContractError, "in another order"),
        ({"actions": (NUMBERS[0].model_copy(update={"unit": "rad"}), *NUMBERS[1:])}, {}, ContractError, "in 'rad'"),
        ({}, {"use_degrees": False}, ContractError, "the robot takes '%'"),
        ({"actions": (NUMBERS[0].model_copy(update={"name": "pan"}), *NUMBERS[1:])}, {}, ContractError, "no 'pan'"),
        ({}, {"prot": "/dev/null"}, ConfigError, "do not fit LeRobot's 'so101_follower'"),
    ],
)
def test_other_numbers_than_the_robots(bus, options, change, options_too, error, message):
    contract = CONTRACT.model_copy(update=change)
    with pytest.raises(error, match=message):
        open_lerobot(contract, "so101_follower", options | options_too)
    assert bus.goals == []


def test_a_type_that_lerobot_does_not_know():
    with pytest.raises(ConfigError, match=r"knows no robot 'so102_folower': did you mean 'so10[01]_follower'"):
        open_lerobot(CONTRACT, "so102_folower", {})
