"""Diffusion Policy's recordings of PushT (206 episodes of a person's mouse) as a data set."""

import sys

import numpy as np
import pymunk
import zarr
from gym_pusht.envs.pusht import PushTEnv

import lfm_envs
from lfm_policy.data.own import Demonstration, store_demonstrations


def corners(poses):
    """Return the T's eight corners (steps, 16) [px], as the environment shows them, at poses x, y, angle (steps, 3)."""
    shapes = PushTEnv.add_tee(pymunk.Space(), (0, 0), 0)[1]
    at_rest = np.array([corner for shape in shapes for corner in shape.get_vertices()])
    cosine, sine = np.cos(poses[:, 2]), np.sin(poses[:, 2])
    turns = np.stack([cosine, sine, -sine, cosine], -1).reshape(-1, 2, 2)
    return (at_rest @ turns + poses[:, None, :2]).reshape(-1, 16)


def read(path):
    """Yield the episodes of a replay buffer: agent, block and angle [px, rad] seen, targets of the agent [px] asked."""
    buffer = zarr.open_group(path, mode="r")
    state, action, ends = (buffer[name][:] for name in ("data/state", "data/action", "meta/episode_ends"))
    for first, last in zip([0, *ends[:-1]], ends, strict=True):
        rows = state[first:last]
        seen = {"environment_state": corners(rows[:, 2:]), "agent_pos": rows[:, :2]}
        yield Demonstration(seen, action[first:last])


if __name__ == "__main__":
    source = sys.argv[1] if len(sys.argv) > 1 else "pusht_cchi_v7_replay.zarr"
    print(store_demonstrations("pusht.zarr", read(source), lfm_envs.contract_for("pusht.yaml")))
