"""Diffusion Policy's recordings of PushT (206 episodes of a person's mouse) as a data set."""

import sys

import zarr

import lfm_envs
from lfm_policy.data.own import Demonstration, store_demonstrations


def read(path):
    """Yield the episodes of a replay buffer: states (agent, block, angle) [px, rad] and targets of the agent [px]."""
    buffer = zarr.open_group(path, mode="r")
    state, action, ends = (buffer[name][:] for name in ("data/state", "data/action", "meta/episode_ends"))
    for first, last in zip([0, *ends[:-1]], ends, strict=True):
        yield Demonstration(state[first:last], action[first:last])


if __name__ == "__main__":
    source = sys.argv[1] if len(sys.argv) > 1 else "pusht_cchi_v7_replay.zarr"
    print(store_demonstrations("pusht.zarr", read(source), lfm_envs.contract_for("pusht.yaml")))
