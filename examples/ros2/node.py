"""A ROS 2 node that answers for its arm: joint states are what is seen, trajectories of one point are what is asked."""

import json

import numpy as np
import rclpy
import zmq
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

JOINTS = ["shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper"]
rclpy.init()
node, seen = rclpy.create_node("lfm_bridge"), {}
node.create_subscription(JointState, "/joint_states", lambda m: seen.update(zip(m.name, m.position, strict=True)), 1)
joints = node.create_publisher(JointTrajectory, "/arm_controller/joint_trajectory", 1)


def go(targets):
    """Let the controller take the joints there within a control period, and hold them there."""
    point = JointTrajectoryPoint(positions=[float(target) for target in targets])
    point.time_from_start.nanosec = 33_000_000
    joints.publish(JointTrajectory(joint_names=JOINTS, points=[point]))


socket = zmq.Context.instance().socket(zmq.REP)
socket.bind("tcp://127.0.0.1:5557")
while rclpy.ok():
    rclpy.spin_once(node, timeout_sec=0.001)
    if not socket.poll(1):
        continue
    request, *arrays = socket.recv_multipart()
    request = json.loads(request)
    answer, raw = {"lfm": 1, "id": request["id"], "actions": JOINTS, "arrays": []}, []
    if request["do"] != "hello" and len(seen) < len(JOINTS):
        answer["error"] = "no joint states yet"
    elif request["do"] in ("reset", "observe"):
        raw = [np.array([seen[joint] for joint in JOINTS], "<f4").tobytes()]
        answer["arrays"] = [{"name": "observation.state", "dtype": "float32", "shape": [len(JOINTS)]}]
    elif request["do"] == "act":
        go(np.frombuffer(arrays[0], "<f8"))
    elif request["do"] in ("stop", "close"):
        go([seen[joint] for joint in JOINTS])
    socket.send_multipart([json.dumps(answer).encode(), *raw])
socket.close()
