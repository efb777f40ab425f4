"""A checkpoint against data: lost normalisers and contracts that differ, each named with its fix."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from lfm_envs.doctor.findings import compare_contracts, examine_checkpoint
from lfm_envs.tasks import TASKS
from lfm_policy.actions.poses import hand_columns
from lfm_policy.contract import ArmController, Contract
from lfm_policy.data.normalizers.affine import AffineNormalizer
from lfm_policy.errors import CheckpointError
from tests.bundles.policies import plain

CONTRACT = TASKS["transport"].contract
NETWORK = {"_target_": "lfm_policy.networks.ConditionalUnet1d", "dims": [8, 16], "time_dim": 8}
RANDOM = np.random.default_rng(0)
OBSERVATION = RANDOM.normal(1, 3, (200, CONTRACT.observation_dim)).astype(np.float32)
ACTION = RANDOM.uniform(-0.4, 0.6, (200, CONTRACT.action_dim)).astype(np.float32)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    observation = AffineNormalizer.standard(torch.from_numpy(OBSERVATION))
    action = AffineNormalizer.min_max(torch.from_numpy(ACTION), [0, 1, 2, 10, 11, 12])
    plain(CONTRACT, NETWORK, normalizers=(observation, action)).save_pretrained(tmp_path / "policy")
    return tmp_path / "policy"


def traps(checkpoint: Path, observation: np.ndarray = OBSERVATION, action: np.ndarray = ACTION) -> set[str]:
    findings, _ = examine_checkpoint(checkpoint, CONTRACT, observation, action)
    assert all(len(finding.fix) > 20 for finding in findings)
    return {finding.trap for finding in findings}


def edit_contract(checkpoint: Path, **changes: object) -> None:
    contract = json.loads((checkpoint / "contract.json").read_text())
    (checkpoint / "contract.json").write_text(json.dumps(contract | changes))


def test_a_healthy_checkpoint(checkpoint: Path) -> None:
    findings, ranges = examine_checkpoint(checkpoint, CONTRACT, OBSERVATION, ACTION)
    assert findings == []
    np.testing.assert_allclose(ranges["action"]["low"][:3], ACTION[:, :3].min(axis=0), atol=1e-5)
    np.testing.assert_allclose(ranges["action"]["high"][:3], ACTION[:, :3].max(axis=0), atol=1e-5)
    json.dumps(ranges)


@pytest.mark.parametrize("name", ["observation", "action"])
@pytest.mark.parametrize("how", ["dropped", "unfitted", "identity"])
def test_a_lost_normaliser(checkpoint: Path, name: str, how: str) -> None:
    path = checkpoint / "model.safetensors"
    tensors = load_file(path)
    key = f"{name}_normalizer"
    if how == "dropped":
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(key)}
    elif how == "unfitted":
        tensors[f"{key}.fitted"] = torch.tensor(False)
    else:
        tensors[f"{key}.scale"] = torch.ones_like(tensors[f"{key}.scale"])
        tensors[f"{key}.offset"] = torch.zeros_like(tensors[f"{key}.offset"])
    save_file(tensors, path)
    findings, _ = examine_checkpoint(checkpoint, CONTRACT, OBSERVATION, ACTION)
    assert [finding.trap for finding in findings] == ["normaliser"]
    assert name in findings[0].what
    assert "train again" in findings[0].fix


def test_the_moving_average_goes_before_the_weights(checkpoint: Path) -> None:
    save_file({"action_normalizer.fitted": torch.tensor(False)}, checkpoint / "ema.safetensors")
    assert traps(checkpoint) == {"normaliser"}


def test_data_that_the_normaliser_was_not_fitted_on(checkpoint: Path) -> None:
    shifted = ACTION + np.array([0.56, 0, -0.9, *[0] * 17], dtype=np.float32)
    assert traps(checkpoint, action=shifted) == {"normaliser"}
    assert traps(checkpoint, observation=30 * OBSERVATION) == {"normaliser"}


def test_anchored_chunks_are_held_against_ways_from_the_hand(checkpoint: Path) -> None:
    """Each step of an anchored chunk has its own range; the data are compared at the step of the observation."""
    hands, columns = zip(*hand_columns(CONTRACT), strict=True)
    observation, way = OBSERVATION.copy(), RANDOM.uniform(-0.05, 0.05, (200, 16, 20)).astype(np.float32)
    way *= np.linspace(1, 4, 16, dtype=np.float32)[:, None]
    action = way[:, 1].copy()
    action[:, columns] += observation[:, hands]
    normalizers = (
        AffineNormalizer.standard(torch.from_numpy(observation)),
        AffineNormalizer.standard(torch.from_numpy(way).flatten(1)).unflatten(16, 20),
    )
    plain(CONTRACT, NETWORK, normalizers=normalizers, anchored=True).save_pretrained(checkpoint)
    findings, ranges = examine_checkpoint(checkpoint, CONTRACT, observation, action)
    assert findings == []
    assert np.shape(ranges["action"]["low"]) == (6,)
    deviation = 4 * 0.1 / np.sqrt(12)  # of the last step, the widest
    np.testing.assert_allclose(ranges["action"]["high"], deviation, rtol=0.2)
    away = action.copy()
    away[:, columns[2]] += 0.9  # recorded in another frame
    assert traps(checkpoint, observation, away) == {"normaliser"}


def test_permuted_keys(checkpoint: Path) -> None:
    keys = [key.model_dump() for key in CONTRACT.observations]
    edit_contract(checkpoint, observations=keys[1:] + keys[:1])
    findings, _ = examine_checkpoint(checkpoint, CONTRACT, OBSERVATION, ACTION)
    assert [finding.trap for finding in findings] == ["observation keys"]
    assert "another order" in findings[0].what


@pytest.mark.parametrize(
    ("changes", "trap", "what"),
    [
        ({"rotation": "rot6d_columns"}, "rotation", "'rot6d_columns' in the checkpoint and 'rot6d_rows' in the data"),
        ({"control_hz": 10}, "control frequency", "10"),
        ({"suite_version": "1.4.1"}, "version", "1.4.1"),
        ({"lite_physics": False}, "environment", "lite_physics"),
        (
            {"action_form": "delta", "space": "vector", "rotation": "none", "action_dim": 14, "controllers": []},
            "action form",
            "'delta' in the checkpoint",
        ),
    ],
)
def test_other_contracts(checkpoint: Path, changes: dict, trap: str, what: str) -> None:
    edit_contract(checkpoint, **changes)
    findings, _ = examine_checkpoint(checkpoint, CONTRACT, OBSERVATION, ACTION)
    assert trap in {finding.trap for finding in findings}
    assert any(what in finding.what for finding in findings)


def test_one_arm_in_another_frame_is_named() -> None:
    theirs = CONTRACT.model_copy(update={"controllers": (ArmController(), ArmController(frame="base", kp=300))})
    (finding,) = compare_contracts(CONTRACT, theirs, "ours", "theirs")
    assert finding.trap == "frame"
    assert "frame of arm 1 is 'base', expected 'world'" in finding.what
    assert "kp of arm 1 is 300.0" in finding.what
    gains = CONTRACT.model_copy(update={"controllers": (ArmController(kp=300), ArmController())})
    assert compare_contracts(CONTRACT, gains, "ours", "theirs")[0].trap == "controller"


def test_missing_keys_are_named() -> None:
    lift: Contract = TASKS["lift"].contract
    findings = {finding.trap: finding for finding in compare_contracts(CONTRACT, lift, "ours", "theirs")}
    assert "lacks ['robot1_eef_pos'" in findings["observation keys"].what
    assert {"environment", "action form"} <= findings.keys()


def test_no_checkpoint_and_a_damaged_one(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint"):
        traps(tmp_path / "nothing")
    (checkpoint / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="damaged"):
        traps(checkpoint)
    (checkpoint / "contract.json").write_text("{")
    with pytest.raises(CheckpointError, match="contract"):
        traps(checkpoint)
