"""Robots by their names on the command line: one behind a socket, one of the user's, one of LeRobot's."""

import json
import sys

import pytest

from lfm_cli import command_line, control
from lfm_cli.control import robot_of
from lfm_envs.point_mass import CONTRACT
from lfm_policy.errors import ConfigError
from tests.control.robots import Lockstep
from tests.envs.going import going

OURS = """
from tests.control.robots import Lockstep

class Mine(Lockstep):
    def __init__(self, contract, colour="red"):
        super().__init__()
        self.colour = colour

class Half:
    def __init__(self, contract):
        pass

def tired():
    tired.asked = getattr(tired, "asked", 0) + 1
    return tired.asked > 6 and "tired"
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "robots_of_mine.py").write_text(OURS)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "robots_of_mine"


def test_a_robot_behind_a_socket_is_controlled_until_a_function_stops_it(module, tmp_path):
    pytest.importorskip("zmq", reason="pyzmq is an optional package (extra: bridge)")
    from tests.control.test_bridge import Node

    going().save_pretrained(tmp_path / "going")
    free = ["limits.speed_m_s=null", "limits.acceleration_m_s2=null", "limits.jerk_m_s3=null"]
    words = [f"policy={tmp_path / 'going'}", "trust_code=true", f"robot=ipc://{tmp_path}/robot", *free]
    words += ["robot_options.patience_s=20.0", f"stop_if={module}:tired", f"out={tmp_path / 'out'}"]
    with Node(f"ipc://{tmp_path}/robot") as node:
        control.main(command_line.load("control", words))
    assert node.did[0] == "hello"
    assert node.did[-2:] == ["stop", "close"]
    said = json.loads((tmp_path / "out/summary.json").read_text())
    assert said["environment"] == f"ipc://{tmp_path}/robot"
    assert said["each"][0]["stopped"] == "tired"
    events = [json.loads(line) for line in (tmp_path / "out/events.jsonl").read_text().splitlines()]
    assert [event["event"] for event in events if event["event"] == "stopped"] == ["stopped"]


def test_a_class_of_the_users_gets_its_options(module):
    robot = robot_of(f"{module}:Mine", CONTRACT, {"colour": "blue"})
    assert isinstance(robot, Lockstep)
    assert robot.colour == "blue"


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("robots_of_mine:Mine", {"color": "blue"}, "does not take robot_options"),
        ("robots_of_mine:Half", {}, "expected reset, read, send, stop and close"),
        ("robots_of_mine:Main", {}, "did you mean 'Mine'"),
    ],
)
def test_robots_that_there_are_not(module, source, options, message):
    with pytest.raises(ConfigError, match=message):
        robot_of(source, CONTRACT, options)


def test_a_robot_of_lerobots_without_lerobot(monkeypatch):
    monkeypatch.setitem(sys.modules, "lerobot.robots", None)
    with pytest.raises(ConfigError, match=r"needs LeRobot .*pip install 'lerobot\[feetech\]'"):
        robot_of("lerobot:so101_follower", CONTRACT, {})
