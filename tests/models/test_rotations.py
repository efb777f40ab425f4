"""Rotations as networks see them: against scipy, without jumps, in policies and their files."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from lfm_envs.tasks import TASKS
from lfm_policy.errors import ContractError
from lfm_policy.models.policy import LFMPolicy
from lfm_policy.models.rotations import RotationRows, quaternion_columns
from tests.bundles.policies import plain, policy

LIFT = TASKS["lift"].contract
QUATERNIONS = (3, 13)
"""Lift's: the cube's among the object's ten numbers, and the hand's after its position."""


def _observations(count: int, seed: int = 0) -> Tensor:
    """Random ones of Lift, with the quaternions where they belong."""
    generator = np.random.default_rng(seed)
    values = generator.normal(size=(count, LIFT.observation_dim))
    for first in QUATERNIONS:
        values[:, first : first + 4] = Rotation.random(count, rng=generator).as_quat()
    return torch.from_numpy(values)


def test_rows_are_those_of_the_rotation_matrix_behind_the_other_columns() -> None:
    x = _observations(20)
    rows = RotationRows(LIFT.observation_dim, QUATERNIONS).double()
    found = rows(x)
    assert found.shape == (20, rows.width) == (20, 19 + 2 * 2)
    others = torch.cat([x[:, :3], x[:, 7:13], x[:, 17:]], 1)
    torch.testing.assert_close(found[:, :11], others)
    for k, first in enumerate(QUATERNIONS):
        matrices = Rotation.from_quat(x[:, first : first + 4].numpy()).as_matrix()
        expected = torch.from_numpy(matrices[:, :2].reshape(20, 6))
        torch.testing.assert_close(found[:, 11 + 6 * k : 17 + 6 * k], expected)


def test_quaternions_are_found_by_their_length() -> None:
    x = _observations(100)
    assert quaternion_columns([x[:50], x[50:]]) == QUATERNIONS
    damaged = x.clone()
    damaged[70, 14] += 0.1
    assert quaternion_columns([damaged[:50], damaged[50:]]) == QUATERNIONS[:1]
    assert quaternion_columns([torch.randn(100, 19)]) == ()
    assert quaternion_columns([]) == ()


def test_a_policy_does_not_see_the_sign_of_a_quaternion(tmp_path: Path) -> None:
    made = policy(quaternions=QUATERNIONS)
    histories = _observations(6).view(3, 2, -1).float()
    flipped = histories.clone()
    flipped[:, 1, 13:17] *= -1
    flipped[0, 0, 3:7] *= -1
    noise = torch.randn(3, 16, 10).numpy()
    chunks = made.predict(histories.numpy(), noise).actions
    np.testing.assert_allclose(made.predict(flipped.numpy(), noise).actions, chunks, atol=1e-5)
    turned = histories.clone()
    turned[:, 1, 13:17] = turned[:, 1, [14, 13, 15, 16]]
    assert np.abs(made.predict(turned.numpy(), noise).actions - chunks).max() > 1e-3
    made.save_pretrained(tmp_path / "policy")
    copy = LFMPolicy.from_pretrained(tmp_path / "policy")
    np.testing.assert_array_equal(copy.predict(histories.numpy(), noise).actions, chunks)


@pytest.mark.parametrize("columns", [(16,), (-1,), (3, 5)])
def test_columns_that_cannot_be_are_refused(columns: tuple[int, ...]) -> None:
    with pytest.raises(ContractError, match="four columns each of the 19"):
        plain(LIFT, quaternions=columns)
