"""Bring up an arm: a dry run, then a replayed demonstration, behind limits that demonstrations taught."""

import signal
import sys

from arm import Arm

from lfm_policy.control.inference import Inference
from lfm_policy.control.limits import limits_of
from lfm_policy.control.loop import ControlLoop, ControlOptions, describe, refusal_event
from lfm_policy.control.robot import DryRun
from lfm_policy.control.safety import EmergencyStop, Gate
from lfm_policy.data.windows.store import open_store
from lfm_policy.server.stand_ins import ReplayPolicy

RATE_HZ, DRY_TICKS = 30.0, 30


def main(data="arm.zarr", *words):
    """Run one episode, `dry` without moving; Ctrl-C is the emergency stop."""
    store = open_store(data)
    episodes = [store.episode(index) for index in range(len(store))]
    limits = limits_of(store.contract, ((part.observation, part.action) for part in episodes))
    stop = EmergencyStop()
    signal.signal(signal.SIGINT, lambda *_: stop.pull("Ctrl-C"))
    # in the place of your policy: open_policy("outputs/arm", expected=store.contract)
    policy = ReplayPolicy(store.contract, episodes[0].observation, episodes[0].action)
    arm = Arm(store.contract, target=episodes[0].observation[0, 6:])
    robot = DryRun(arm, DRY_TICKS) if "dry" in words else arm
    gate = Gate(
        store.contract,
        limits.model_copy(update={"ramp_s": 1.0}),
        RATE_HZ,
        stop,
        report=lambda refusal: print(refusal_event(refusal)),
    )
    with Inference(policy) as inference:
        loop = ControlLoop(policy, robot, inference, gate, ControlOptions(rate_hz=RATE_HZ))
        episode = loop.run(seed=0)
    robot.close()
    return describe(episode, policy) | {"reached": arm.read().rows[0, :6].round(1).tolist()}


if __name__ == "__main__":
    print(main(*sys.argv[1:]))
