"""The policy: the same transforms in training and acting, saving and loading, and both calling conventions."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from lfm_envs.point_mass import CONTRACT as POINT_MASS
from lfm_envs.tasks import TASKS
from lfm_policy.chunks.warm import WarmStart
from lfm_policy.data.normalizers.affine import AffineNormalizer
from lfm_policy.errors import CheckpointError, ConfigError, ContractError
from lfm_policy.flow import Solver
from lfm_policy.models.policy import LFMPolicy
from lfm_policy.models.pretrained import seal
from tests.bundles.policies import plain

CONTRACT = TASKS["lift"].contract
DIM = CONTRACT.observation_dim
NETWORK = {"_target_": "lfm_policy.networks.ConditionalUnet1d", "dims": [8, 16], "time_dim": 8}


def _policy(network: dict = NETWORK) -> LFMPolicy:
    torch.manual_seed(1)
    observation = AffineNormalizer.standard(torch.randn(50, DIM) * 3 + 1)
    action = AffineNormalizer.min_max(torch.randn(50, 10), [0, 1, 2])
    return plain(CONTRACT, network, (0.15, 0.2), (observation, action))


def _histories(count: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(count, 2, DIM)).astype(np.float32)


def _noise(count: int) -> np.ndarray:
    return np.random.default_rng(2).normal(size=(count, 16, 10)).astype(np.float32)


def test_a_chunk_is_the_chains_sample_in_raw_units() -> None:
    policy = _policy()
    histories, noise = _histories(3), _noise(3)
    batch = policy.predict(histories, noise)
    cond = policy.encoding.observation_normalizer.normalize(torch.from_numpy(histories)).flatten(1)
    with torch.no_grad():
        sample = policy.chain.to_data(torch.from_numpy(noise), cond)
    expected = policy.encoding.action_normalizer.denormalize(sample.x)
    np.testing.assert_array_equal(batch.actions, expected.numpy())
    assert batch.nfe == sample.nfe == 3


def test_the_temperature_scales_the_noise(tmp_path: Path) -> None:
    """And the specification, so the digest, a checkpoint and its copy, knows it."""
    policy, histories, noise = _policy(), _histories(3), _noise(3)
    before, half = policy.digest(), policy.predict(histories, 0.5 * noise).actions
    policy.set_temperature(0.5)
    np.testing.assert_array_equal(policy.predict(histories, noise).actions, half)
    assert policy.digest() != before
    policy.save_pretrained(tmp_path / "policy")
    copy = LFMPolicy.from_pretrained(tmp_path / "policy")
    np.testing.assert_array_equal(copy.predict(histories, noise).actions, half)
    for bad in (-1.0, float("inf")):
        with pytest.raises(ValueError, match="temperature"):
            copy.set_temperature(bad)
    copy.set_temperature(0.0)
    np.testing.assert_array_equal(copy.predict(histories, noise).actions, copy.predict(histories, -noise).actions)
    warm, running = WarmStart(copy, 1), _noise(3)
    np.testing.assert_array_equal(*(warm.resume(histories, z, running).actions for z in (noise, -noise)))


def test_training_sees_data_as_acting_returns_it() -> None:
    """Normalising a chunk for training and denormalising a sample are inverse maps."""
    policy, action = _policy(), torch.from_numpy(_noise(4))
    sample = policy.sample_of(torch.from_numpy(_histories(4)), action)
    torch.testing.assert_close(policy.encoding.action_normalizer.denormalize(sample.x), action, atol=1e-5, rtol=1e-5)


def _anchored() -> LFMPolicy:
    torch.manual_seed(1)
    observation = AffineNormalizer.standard(torch.randn(50, DIM) * 3 + 1)
    action = AffineNormalizer.standard(torch.randn(50, 160)).unflatten(16, 10)
    return plain(CONTRACT, NETWORK, (0.15, 0.2), (observation, action), anchored=True)


def test_anchored_chunks_move_with_the_hand(tmp_path: Path) -> None:
    """The same sample of the chain is the same motion from wherever the hand is; other columns stay."""
    policy = _anchored()
    policy.save_pretrained(tmp_path / "policy")
    loaded = LFMPolicy.from_pretrained(tmp_path / "policy")
    history, x = torch.from_numpy(_histories(3)), torch.from_numpy(_noise(3))
    moved = history.clone()
    moved[:, -1, 10:13] += torch.tensor([0.1, -0.2, 0.3])  # robot0_eef_pos follows the 10 numbers of the cube
    shift = loaded.encoding.decode(x, moved) - loaded.encoding.decode(x, history)
    torch.testing.assert_close(shift[..., :3], torch.tensor([0.1, -0.2, 0.3]).expand(3, 16, 3), atol=1e-5, rtol=0)
    assert torch.equal(shift[..., 3:], torch.zeros(3, 16, 7))
    torch.testing.assert_close(
        loaded.encoding.encode(loaded.encoding.decode(x, history), history), x, atol=1e-5, rtol=1e-5
    )


def test_chunks_cannot_be_anchored_where_no_hand_is_observed() -> None:
    with pytest.raises(ContractError, match="robot0_eef_pos"):
        plain(POINT_MASS, anchored=True)


def test_saving_and_loading_gives_the_same_policy(tmp_path: Path) -> None:
    policy = _policy()
    policy.save_pretrained(tmp_path / "policy")
    loaded = LFMPolicy.from_pretrained(tmp_path / "policy")
    assert (loaded.spec, loaded.contract) == (policy.spec, policy.contract)
    ours, theirs = (p.predict(_histories(2), _noise(2)).actions for p in (policy, loaded))
    np.testing.assert_array_equal(ours, theirs)
    files = {path.name for path in (tmp_path / "policy").iterdir()}
    assert files == {"config.json", "contract.json", "model.safetensors", "checksums.json"}


def test_one_observation_stands_for_a_history_of_itself() -> None:
    policy, observation, noise = _policy(), torch.randn(2, DIM), torch.from_numpy(_noise(2))
    single = policy.predict_action_chunk({"observation.state": observation}, noise)
    stacked = policy.predict_action_chunk({"observation.state": observation[:, None].expand(-1, 2, -1)}, noise)
    torch.testing.assert_close(single, stacked)


def test_select_action_executes_a_chunk_from_the_present_on() -> None:
    """Actions To-1 … To-2+Ta of a chunk, then a new chunk under the last two observations."""
    policy, observations = _policy(), torch.randn(10, 1, DIM)
    torch.manual_seed(7)
    actions = [policy.select_action({"observation.state": row}) for row in observations]
    torch.manual_seed(7)
    first = policy.predict_action_chunk({"observation.state": observations[0]})
    second = policy.predict_action_chunk({"observation.state": observations[7:9].transpose(0, 1)})
    torch.testing.assert_close(torch.stack(actions[:8]), first[:, 1:9].transpose(0, 1))
    torch.testing.assert_close(torch.stack(actions[8:]), second[:, 1:3].transpose(0, 1))


def test_reset_forgets_the_episode() -> None:
    policy, observation = _policy(), torch.randn(1, DIM)
    torch.manual_seed(3)
    fresh = policy.select_action({"observation.state": observation})
    policy.select_action({"observation.state": observation + 5})
    policy.reset()
    torch.manual_seed(3)
    torch.testing.assert_close(policy.select_action({"observation.state": observation}), fresh)


def test_finer_solvers_converge_to_one_chunk() -> None:
    policy, batch = _policy(), {"observation.state": torch.randn(1, DIM)}
    noise = torch.from_numpy(_noise(1))
    for block in policy.chain.blocks:
        block.time[0].frequencies *= 0.01  # an untrained network oscillates in t
    one = policy.predict_action_chunk(batch, noise)
    fine = policy.predict_action_chunk(batch, noise, solver=Solver("rk4", 4))
    finer = policy.predict_action_chunk(batch, noise, solver=Solver("rk4", 8))
    assert (fine - finer).abs().max() < 0.1 * (one - finer).abs().max()


def test_forward_is_a_loss_that_training_can_lower() -> None:
    policy = _policy().train()
    batch = {"observation.state": torch.from_numpy(_histories(8)), "action": torch.from_numpy(_noise(8))}
    loss, parts = policy(batch)
    assert loss.item() == pytest.approx(sum(parts.values()) / 3, rel=1e-5)
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in policy.chain.parameters())


def test_a_lost_normaliser_is_an_error_not_a_policy_that_hardly_moves(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="normaliser was never fitted"):
        plain(CONTRACT, normalizers=(AffineNormalizer(DIM), AffineNormalizer(10)))
    _policy().save_pretrained(tmp_path / "policy")
    path = tmp_path / "policy" / "model.safetensors"
    tensors = load_file(path)
    save_file(tensors | {"observation_normalizer.fitted": torch.tensor(False)}, path)
    seal(path.parent)
    with pytest.raises(ContractError, match="normaliser was never fitted"):
        LFMPolicy.from_pretrained(path.parent)
    save_file({name: value for name, value in tensors.items() if "action_normalizer" not in name}, path)
    seal(path.parent)
    with pytest.raises(CheckpointError, match="its normaliser was lost"):
        LFMPolicy.from_pretrained(path.parent)


@pytest.mark.parametrize("shape", [(1, 3, DIM), (1, DIM + 1), (1, 2, DIM - 1)])
def test_observations_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ContractError, match="expected observations"):
        _policy().predict_action_chunk({"observation.state": torch.zeros(*shape)})


def _edit(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    seal(path.parent)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: (d / "model.safetensors").unlink(), "missing or damaged"),
        (lambda d: (d / "model.safetensors").write_bytes(b"not tensors"), "missing or damaged"),
        (lambda d: (d / "config.json").unlink(), "no checkpoint"),
        (lambda d: (d / "contract.json").unlink(), "cannot be read"),
        (lambda d: (d / "config.json").write_text("{"), "cannot be read"),
        (lambda d: _edit(d / "config.json", horizn=16), "horizn"),
        (lambda d: _edit(d / "config.json", chain={"gammas": [0.1], "network": NETWORK}), "do not fit"),
        (lambda d: _edit(d / "contract.json", action_dim=9), "no policy that can be read"),
    ],
)
def test_a_damaged_checkpoint_says_what_is_wrong(tmp_path: Path, damage, message: str) -> None:
    _policy().save_pretrained(tmp_path / "policy")
    (tmp_path / "policy" / "checksums.json").unlink()  # those of before have none
    damage(tmp_path / "policy")
    with pytest.raises(CheckpointError, match=message):
        LFMPolicy.from_pretrained(tmp_path / "policy")


def test_a_checkpoint_cannot_bring_its_own_code(tmp_path: Path) -> None:
    _policy().save_pretrained(tmp_path / "policy")
    network = {"_target_": "subprocess.Popen", "args": ["true"]}
    _edit(tmp_path / "policy" / "config.json", chain={"gammas": [], "network": network})
    with pytest.raises(ConfigError, match="from outside this package"):
        LFMPolicy.from_pretrained(tmp_path / "policy")
