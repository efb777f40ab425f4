"""Every example's page does what it says, with code of a user's own only."""

import os
import re
import signal
import sys
import threading
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

import lfm_envs
from lfm_policy.contract import ActionNumber, Contract, ObservationKey
from lfm_policy.control.limits import Limits
from lfm_policy.control.session import SessionOptions, learned_limits, session
from lfm_policy.data.windows.store import open_store
from lfm_policy.server.stand_ins import ReplayPolicy
from tests.examples.running import EXAMPLES, commands

LONGER = {"aloha": 106}
"""Lines of those that bring an expert with inverse kinematics."""
NAMES = sorted(path.name for path in EXAMPLES.iterdir() if path.is_dir() and (path / "README.md").exists())


@pytest.mark.parametrize("name", NAMES)
def test_an_example_is_short_and_has_a_page(name):
    page = (EXAMPLES / name / "README.md").read_text(encoding="utf-8")
    assert page.startswith("# ")
    assert list(commands(name)), "commands to run"
    assert "```text" in page, "what they print"
    lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in (EXAMPLES / name).glob("*.py"))
    assert lines <= LONGER.get(name, 80)


def test_a_cart_is_one_of_gymnasiums(example):
    gymnasium = pytest.importorskip("gymnasium")
    from gymnasium.utils.env_checker import check_env

    example("own_environment")
    import_module("cart")
    with pytest.warns(UserWarning, match="symmetric and normalized"):
        check_env(gymnasium.make("cart/Cart-v0", render_mode="rgb_array").unwrapped)


@pytest.mark.sim
def test_a_task_of_ones_own_has_an_expert_and_an_environment(example):
    pytest.importorskip("robosuite")
    from lfm_envs.episodes import perform
    from lfm_envs.experts import expert

    example("own_task")
    environment = lfm_envs.make("stack:STACK")
    assert environment.contract.made_by == "stack:STACK"
    episode = perform(environment, expert("stack:STACK"), seed=0)
    assert episode.success
    assert len(episode.steps) < 150
    environment.close()


class TestRobot:
    @pytest.fixture
    def parts(self, example):
        """The data set of `own_data`, its first demonstration as a policy, and the arm at its start."""
        example("own_data").script("convert.py")
        store = open_store(Path("arm.zarr").resolve())
        example("own_robot")
        first = store.episode(0)
        arm = import_module("arm").Arm(store.contract)
        arm.target = first.observation[0, 6:]
        return store, ReplayPolicy(store.contract, first.observation, first.action), arm

    def run(self, parts, out, **options):
        store, policy, arm = parts
        limits = learned_limits(store.path, store.contract, Limits(ramp_s=1.0))
        asked = SessionOptions(rate_hz=30.0, episodes=1, out=out, **options)
        return session(policy, arm, asked, limits=limits), arm.read().rows[0, :6]

    def test_a_dry_run_moves_nothing(self, parts, tmp_path):
        said, reached = self.run(parts, tmp_path / "dry", dry_run=True, dry_ticks=20)
        assert said["deadlines"]["ticks"] >= 20
        assert np.abs(reached).max() == 0

    def test_an_episode_at_30_hz_keeps_deadlines_and_limits(self, parts, tmp_path):
        store, _, arm = parts
        sent, before = [np.zeros(6)], arm.send

        def send(action, due):
            sent.append(np.array(action))
            before(action, due)

        arm.send = send
        said, reached = self.run(parts, tmp_path / "out")
        pace = said["deadlines"]
        assert pace["ticks"] + pace["skipped"] == pytest.approx(90, abs=4)
        assert pace["late_ms_p50"] < 10
        assert pace["skipped"] or said["refusals"] == {}, "a smooth motion is refused only where ticks are missing"
        assert reached == pytest.approx(store.episode(0).action[-1], abs=6), "where the demonstration went"
        for column, limits in enumerate(learned_limits(store.path, store.contract, Limits()).numbers):
            values = np.array(sent)[:, column]
            assert values[1:].min() >= limits.low - 1e-4
            assert values.max() <= limits.high + 1e-4
            assert limits.step is None or np.abs(np.diff(values)).max() <= limits.step + 1e-4

    def test_the_emergency_stop_stops_it_once_and_nothing_is_sent_afterwards(self, parts, tmp_path):
        _, _, arm = parts
        sent, stops, stop_after, before, at_stop = [], [], 15, arm.send, arm.stop

        def send(action, due):
            before(action, due)
            sent.append(action)
            if len(sent) == stop_after:
                os.kill(os.getpid(), signal.SIGUSR1)

        def stop():
            at_stop()
            stops.append(arm.read().rows[0, :6])

        arm.send, arm.stop = send, stop
        said, reached = self.run(parts, tmp_path / "out")
        assert said["each"][0]["stopped"] == "signal SIGUSR1"
        assert (len(sent), len(stops)) == (stop_after, 1)
        assert reached == pytest.approx(stops[0], abs=1e-6), "it stands where it was"


class RosStandIn:
    """As much of ROS 2 as the node of `ros2` uses: joints that are where they were sent, until the node is left."""

    def __init__(self, joints, patch):
        self.sent, self.left, self.state = [], False, SimpleNamespace(name=joints, position=[0.1] * len(joints))
        message = lambda **fields: SimpleNamespace(time_from_start=SimpleNamespace(), **fields)  # noqa: E731
        modules = {
            "rclpy": {
                "init": lambda: None,
                "ok": lambda: not self.left,
                "create_node": lambda name: self,
                "spin_once": lambda node, timeout_sec: self._hear(self.state),
            },
            "sensor_msgs.msg": {"JointState": message},
            "trajectory_msgs.msg": {"JointTrajectory": message, "JointTrajectoryPoint": message},
        }
        for name, content in modules.items():
            module = ModuleType(name)
            vars(module).update(content)
            patch.setitem(sys.modules, name, module)

    def create_subscription(self, kind, topic, hear, depth):
        self._hear = hear

    def create_publisher(self, kind, topic, depth):
        return self

    def publish(self, trajectory):
        self.sent.append(trajectory.points[0].positions)
        self.state.position = self.sent[-1]


def test_a_node_of_ros_answers_for_its_arm(example, monkeypatch, tmp_path):
    pytest.importorskip("zmq", reason="pyzmq is an optional package (extra: bridge)")
    from lfm_policy.control.bridge import BridgedRobot

    script = example("ros2").folder / "node.py"
    code = script.read_text().replace("tcp://127.0.0.1:5557", f"ipc://{tmp_path}/arm")
    joints = ["shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper"]
    contract = Contract(
        suite="ros",
        suite_version="2",
        environment="arm",
        robots=("so101",),
        space="joints",
        action_dim=6,
        actions=tuple(ActionNumber(name=name, unit="rad") for name in joints),
        observations=(ObservationKey(name="observation.state", dim=6),),
    )
    ros = RosStandIn(joints, monkeypatch)
    node = threading.Thread(target=exec, args=(compile(code, str(script), "exec"), {}), daemon=True)
    node.start()
    robot = BridgedRobot(contract, f"ipc://{tmp_path}/arm", patience_s=10.0)
    try:
        assert robot.reset(0).rows == pytest.approx(np.full((1, 6), 0.1))
        robot.send(np.arange(6.0), 0.0)
        assert robot.read().rows == pytest.approx(np.arange(6.0)[None])
        robot.stop()
        assert ros.sent == [list(range(6))] * 2, "where it was asked to go, and to stay there"
    finally:
        robot.close()
        ros.left = True
        node.join(10)
    assert not node.is_alive()


def test_pages_name_no_command_of_older_versions():
    for name in NAMES:
        page = (EXAMPLES / name / "README.md").read_text(encoding="utf-8")
        assert not re.search(r"\b(checkpoint|bundle|env)=", page)
