"""Metadata in the layouts of the official robomimic files and of raw robosuite collections."""

import json

V14_CONTROLLER = {
    "type": "OSC_POSE",
    "input_max": 1,
    "input_min": -1,
    "output_max": [0.05, 0.05, 0.05, 0.5, 0.5, 0.5],
    "output_min": [-0.05, -0.05, -0.05, -0.5, -0.5, -0.5],
    "kp": 150,
    "damping": 1,
    "impedance_mode": "fixed",
    "kp_limits": [0, 300],
    "damping_limits": [0, 10],
    "position_limits": None,
    "orientation_limits": None,
    "uncouple_pos_ori": True,
    "control_delta": True,
    "interpolation": None,
    "ramp_ratio": 0.2,
}
V15_PART = V14_CONTROLLER | {"input_ref_frame": "world", "gripper": {"type": "GRIP"}}


def composite(part):
    return {"type": "BASIC", "body_parts": {"right": part}}


def env_args(controller, version="1.5.1", environment="Lift", robots=("Panda",), **kwargs):
    table = {"env_name": environment, "type": 1}
    if version:
        table["env_version"] = version
    settings = {"control_freq": 20, "controller_configs": controller, "robots": list(robots), "has_renderer": False}
    return json.dumps(table | {"env_kwargs": settings | kwargs})


V15 = env_args(composite(V15_PART), lite_physics=False)
V141 = env_args(V14_CONTROLLER, "1.4.1")
RAW = json.dumps({"env_name": "Lift", "robots": "Panda", "controller_configs": V14_CONTROLLER})
