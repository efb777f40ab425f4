import numpy as np
import pytest
import torch

from lfm_envs.point_mass import CONTRACT as BLIND
from lfm_policy.errors import ConfigError, ContractError
from lfm_policy.models.policy import LFMPolicy
from lfm_policy.models.sight import Sight
from tests.bundles.policies import NETWORK, plain
from tests.seeing import CONTRACT, SIDE

ENCODER = {"_target_": "lfm_policy.networks.vision.SmallEncoder", "features": 8, "channels": [8, 8, 8], "keypoints": 4}


def frames(count=5, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (count, 1, SIDE, SIDE, 3), dtype=np.uint8))


def sight(crop=24):
    torch.manual_seed(0)
    return Sight(ENCODER, CONTRACT, crop)


def policy():
    return plain(CONTRACT, NETWORK, (0.5,), vision=ENCODER, crop=24)


def test_crops_are_parts_of_the_pictures_and_the_generators_alone():
    pictures = frames()
    one, again, other = (sight().crop(pictures, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    for picture, part in zip(pictures[:, 0], one[:, 0], strict=True):
        assert any(
            torch.equal(picture[y : y + 24, x : x + 24], part) for y in range(SIDE - 23) for x in range(SIDE - 23)
        )
    assert torch.equal(sight().middle(pictures), pictures[:, :, 4:28, 4:28])
    assert torch.equal(sight(None).crop(pictures, torch.Generator().manual_seed(0)), pictures)


def test_features_have_unit_variance_and_a_table_holds_them():
    eyes, pictures = sight(), frames(64)
    eyes.fit_scale(pictures)
    features = eyes(pictures)
    torch.testing.assert_close(features.mean(0), torch.zeros(8), atol=1e-4, rtol=0)
    torch.testing.assert_close(features.std(0, correction=0), torch.ones(8), atol=1e-3, rtol=0)
    table = eyes.table(pictures, crops=2)
    assert table.shape == (3, 64, 8)
    torch.testing.assert_close(table[0], features)
    assert torch.equal(table, eyes.table(pictures, crops=2))
    assert not torch.equal(table[1], table[2])


def test_a_policy_acts_by_what_it_sees():
    made, history, noise = policy(), np.zeros((2, 2, 2), np.float32), np.zeros((2, 16, 2), np.float32)
    one, other = (made.predict(history, noise, frames(2, seed).numpy()).actions for seed in (0, 1))
    assert not np.allclose(one, other)
    batch = {"observation.state": torch.zeros(2, 2), "observation.images.above": frames(2)[:, 0]}
    chunk = made.predict_action_chunk(batch, torch.zeros(2, 16, 2))
    np.testing.assert_allclose(chunk, one, atol=1e-6)
    batch["observation.images.above"] = frames(2)[:, 0].movedim(-1, 1)  # as LeRobot's lie
    assert torch.equal(made.predict_action_chunk(batch, torch.zeros(2, 16, 2)), chunk)
    assert torch.equal(made.select_action(batch)[0], made.select_action({**batch})[0]) is False
    made.reset()
    single = {"observation.state": torch.zeros(2), "observation.images.above": frames(1)[0, 0]}
    assert made.predict_action_chunk(single, torch.zeros(1, 16, 2)).shape == (16, 2)
    loss, _ = made(batch | {"observation.state": torch.zeros(2, 2, 2), "action": torch.zeros(2, 16, 2)})
    assert loss.isfinite()


def test_saving_and_loading_keeps_the_eyes(tmp_path):
    made = policy()
    made.sight.fit_scale(frames(20))
    made.save_pretrained(tmp_path / "seeing")
    loaded = LFMPolicy.from_pretrained(tmp_path / "seeing")
    assert loaded.digest() == made.digest()
    inputs = np.ones((1, 2, 2), np.float32), np.ones((1, 16, 2), np.float32), frames(1).numpy()
    assert np.array_equal(loaded.predict(*inputs).actions, made.predict(*inputs).actions)


def test_what_cannot_be_seen_is_named():
    made, history, noise = policy(), np.zeros((1, 2, 2), np.float32), np.zeros((1, 16, 2), np.float32)
    for seen, found in ((None, "found none"), (frames(1)[:, :, :8].numpy(), r"found \(1, 1, 8, 32, 3\)")):
        with pytest.raises(ContractError, match=found):
            made.predict(history, noise, seen)
    with pytest.raises(ContractError, match=r"no \['observation.images.above'\]"):
        made.predict_action_chunk({"observation.state": torch.zeros(1, 2)})
    with pytest.raises(ContractError, match=r"bytes.*float32"):
        made.predict_action_chunk({"observation.state": torch.zeros(1, 2), "observation.images.above": frames(1) / 255})
    with pytest.raises(ContractError, match="encoder where its contract has cameras"):
        plain(CONTRACT)
    with pytest.raises(ContractError, match="encoder where its contract has cameras"):
        plain(BLIND, vision=ENCODER)
    with pytest.raises(ConfigError, match="crop=40 does not fit"):
        sight(40)
    with pytest.raises(ConfigError, match="from outside this package"):
        Sight({"_target_": "torch.nn.Flatten"}, CONTRACT, None, trust_code=False)
