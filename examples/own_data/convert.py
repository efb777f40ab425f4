"""Recordings of one's own (here: an .npz file per episode) as a data set, with a contract of joint positions."""

import sys
from pathlib import Path

import numpy as np

from lfm_policy.contract import ActionNumber, Contract, ObservationKey
from lfm_policy.data.own import Demonstration, store_demonstrations

JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll")
CONTRACT = Contract(
    suite="mine",
    suite_version="1",
    environment="reach",
    robots=("so101",),
    control_hz=30,
    space="joints",
    action_dim=6,
    actions=(
        *(ActionNumber(name=name, unit="deg") for name in JOINTS),
        ActionNumber(name="gripper", unit="%", gripper=True),
    ),
    observations=(ObservationKey(name="observation.state", dim=6), ObservationKey(name="target", dim=2)),
    measured="observation.state",
)


def read(folder):
    """Yield the episodes of a folder, one at a time."""
    for path in sorted(Path(folder).glob("*.npz")):
        with np.load(path) as file:
            seen = {"observation.state": file["joints"], "target": np.tile(file["target"], (len(file["joints"]), 1))}
            yield Demonstration(seen, file["commands"], success=bool(file["success"]))


def invent(folder, episodes):
    """Write recordings that stand in for yours: a smooth way to joint angles that the target tells."""
    generator = np.random.default_rng(0)
    Path(folder).mkdir(exist_ok=True)
    for number in range(episodes):
        target = generator.uniform(-1, 1, 2)
        goal = np.array([60 * target[0], 30 * target[1], -30 * target[1], 20, 10, 80])
        part = np.clip(np.arange(1, 61)[:, None] / 45, 0, 1)
        commands = (3 * part**2 - 2 * part**3) * goal + generator.normal(0, 0.4, (60, 6))  # a hand trembles
        joints = np.vstack([np.zeros(6), commands[:-1]])
        np.savez(Path(folder) / f"{number:03d}.npz", joints=joints, commands=commands, target=target, success=True)


if __name__ == "__main__":
    folder = sys.argv[1] if len(sys.argv) > 1 else "recordings"
    if not Path(folder).exists():
        invent(folder, 40)
    print(store_demonstrations("arm.zarr", read(folder), CONTRACT, source={"folder": folder}))
