"""Chunks of joints as a chain knows them: every number has about the same size, a gripper's percent too."""

import numpy as np
import torch

from lfm_policy.data.own import Demonstration, store_demonstrations
from lfm_policy.data.windows.store import open_store
from lfm_policy.models.encoding import Encoding
from tests.contracts import JOINTS


def test_anchored_numbers_of_joints_are_all_normalised(tmp_path):
    generator = np.random.default_rng(0)
    width = JOINTS.action_dim
    demonstrations = []
    for _ in range(4):
        actions = generator.normal(0, 1, (40, width)).cumsum(0)
        actions[:, JOINTS.grippers] = generator.uniform(0, 100, (40, len(JOINTS.grippers)))
        seen = {key.name: generator.normal(0, 1, (40, key.dim)) for key in JOINTS.observations}
        seen[JOINTS.measured] = np.vstack([np.zeros((1, width)), actions[:-1]])
        demonstrations.append(Demonstration(seen, actions))
    store_demonstrations(tmp_path / "joints.zarr", demonstrations, JOINTS)
    store = open_store(tmp_path / "joints.zarr")
    encoding = Encoding.fit(store, 8, 2, 4, anchored=True)
    rows = [store.episode(int(number)) for number in store.train]
    starts = range(1, 32)
    history = torch.stack([torch.from_numpy(np.array(r.observation[s - 1 : s + 1])) for r in rows for s in starts])
    chunks = torch.stack([torch.from_numpy(np.array(r.action[s - 1 : s + 7])) for r in rows for s in starts])
    sizes = encoding.encode(chunks, history).std(0)[1:]  # where the joints are is where they were told to be, here
    assert JOINTS.grippers
    assert 0.6 < sizes.min() <= sizes.max() < 1.5
    assert torch.allclose(encoding.decode(encoding.encode(chunks, history), history), chunks, atol=1e-3)
