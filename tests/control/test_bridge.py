"""A robot behind a socket: the message, what is refused of it, and an episode with a process that answers."""

import json
import threading

import numpy as np
import pytest

from lfm_envs.point_mass import CONTRACT, PointMass
from lfm_policy.control.bridge import BridgedRobot, decode, encode
from lfm_policy.control.robot import Robot
from lfm_policy.control.safety import Gate
from lfm_policy.control.stops import EmergencyStop
from lfm_policy.errors import ContractError, RolloutError
from tests.control.robots import FREE, control
from tests.control.test_safety import JOINTS

zmq = pytest.importorskip("zmq", reason="pyzmq is an optional package (extra: bridge)")

ARRAYS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.arange(4, dtype=np.uint8), "c": np.ones(())}


class Node:
    """A process that answers for a point mass, here a thread of its own. Use it as a context manager."""

    def __init__(self, address: str, **said) -> None:
        self._address, self._said, self._environment = address, said, PointMass()
        self.did: list[str] = []
        self.actions: list[np.ndarray] = []
        self.deaf, self._ready = False, threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> "Node":
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *error: object) -> None:
        self._thread.join(10)
        assert not self._thread.is_alive()

    def _serve(self) -> None:
        with zmq.Context.instance().socket(zmq.REP) as socket:
            socket.bind(self._address)
            self._ready.set()
            while self.did[-1:] != ["close"] and not self.deaf:
                header, arrays = decode(socket.recv_multipart())
                self.did.append(header["do"])
                shown = self._do(header, arrays)
                answer = {"id": header["id"], **self._said, "over": len(self.actions) >= 40}
                socket.send_multipart(encode(answer, {k: np.float32(v) for k, v in shown.items()}))

    def _do(self, header, arrays):
        if header["do"] == "reset":
            self._seen = self._environment.reset(header["seed"])
        elif header["do"] == "act":
            self.actions.append(arrays["action"])
            self._seen = self._environment.step(arrays["action"]).observation
        return self._seen if header["do"] in ("reset", "observe") else {}


@pytest.fixture
def address(tmp_path):
    return f"ipc://{tmp_path}/robot"


def test_a_message_is_read_as_it_was_written():
    header, arrays = decode(encode({"id": 3, "do": "act"}, ARRAYS))
    assert (header["lfm"], header["id"], header["do"]) == (1, 3, "act")
    assert list(arrays) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        assert np.array_equal(arrays[name], array)


def listed(**changed):
    return json.dumps({"lfm": 1, "arrays": [{"name": "a", "dtype": "float32", "shape": [2], **changed}]}).encode()


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([], "no frame"),
        ([b"\x80\x04N."], "expected a JSON header"),
        ([b"[" * 100_000], "expected a JSON header"),
        ([b'{"lfm": 2}'], 'expected a JSON header with "lfm": 1'),
        ([b'{"lfm": 1}', b"1234"], "names \\[\\] as arrays, and 1 frames"),
        ([listed()], "and 0 frames"),
        ([listed(), b"1234"], "has 4 bytes"),
        ([listed(dtype="object"), b"12345678"], "expected a name, a dtype"),
        ([listed(shape=[-2]), b"12345678"], "expected a name, a dtype"),
        ([listed(shape=[True, 2]), b"12345678"], "expected a name, a dtype"),
        ([listed(name=7), b"12345678"], "expected a name, a dtype"),
        ([b'{"lfm": 1, "arrays": ["a"]}', b""], "expected a name, a dtype"),
    ],
)
def test_what_is_no_message_is_refused(frames, message):
    with pytest.raises(RolloutError, match=message):
        decode(frames)


def test_an_episode_over_the_socket_is_the_one_without(address):
    with Node(address) as node:
        robot = BridgedRobot(CONTRACT, address, patience_s=20.0)
        assert isinstance(robot, Robot)
        episode = control(robot=robot)
        robot.close()
    assert node.did[:3] == ["hello", "reset", "observe"]
    assert node.did[-1] == "close"
    expected = control().commands
    assert np.array_equal(node.actions[: len(expected)], np.array(expected, np.float64))
    assert np.array_equal(node.actions, episode.commands)


def test_the_emergency_stop_is_heard_once_and_nothing_follows(address):
    with Node(address) as node:
        gate = Gate(CONTRACT, FREE, stop=EmergencyStop(lambda: len(node.actions) >= 3))
        robot = BridgedRobot(CONTRACT, address, patience_s=20.0)
        control(robot=robot, gate=gate)
        robot.close()
    assert node.did.count("stop") == 1
    assert node.did[-2:] == ["stop", "close"]
    assert 3 <= len(node.actions) <= 4, "an answer to a command is not waited for"


def test_what_is_not_new_is_no_observation(address):
    with Node(address, stamp=7) as node:
        robot = BridgedRobot(CONTRACT, address, patience_s=0.2)
        assert robot.reset(1).rows.shape == (1, 4)
        assert robot.read().rows.shape == (0, 4)
        with pytest.raises(RolloutError, match=r"nothing new for 0\.2 s"):
            all(len(robot.read().rows) == 0 for _ in iter(int, 1))
        robot.close()
    assert node.did.count("reset") == 1


def test_an_error_of_the_robot_is_told(address):
    with Node(address) as node:
        robot = BridgedRobot(CONTRACT, address, patience_s=20.0)
        node._said["error"] = "the arm is in teach mode"
        with pytest.raises(RolloutError, match="says: 'the arm is in teach mode'"):
            robot.reset(1)
        robot.close()


def test_nobody_there(address):
    with pytest.raises(RolloutError, match=r"did not answer 'hello' for 0\.05 s"):
        BridgedRobot(CONTRACT, address, patience_s=0.05)


def test_other_numbers_than_the_robots(address):
    with Node(address, actions=["lift", "pan", "gripper"]) as node:
        with pytest.raises(ContractError, match=r"\['pan', 'lift', 'gripper'\] in this order"):
            BridgedRobot(JOINTS, address, patience_s=20.0)
        node.deaf = True
        BridgedRobot(CONTRACT, address, patience_s=20.0).close()  # wakes it up
