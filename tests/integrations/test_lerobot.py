"""The plugins in the real LeRobot: its own commands train, resume and evaluate, and its folders open here.

LeRobot needs Python 3.12 and other versions of its libraries than this project's lock: run these tests in an
environment of its own, with the plugins installed (docs/guides/lerobot.md).
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("lerobot", reason="LeRobot is not installed: it needs Python 3.12 and an environment of its own")
pytest.importorskip("lerobot_policy_lfm", reason="not installed: pip install integrations/lerobot_policy_lfm")

from lerobot.configs import FeatureType, PolicyFeature, PreTrainedConfig
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.policies.factory import make_policy
from lerobot_policy_lfm.configuration_lfm import LFMConfig
from lerobot_policy_lfm.convert import convert
from lerobot_policy_lfm.modeling_lfm import LFMPolicy

from lfm_envs.tasks import TASKS
from lfm_policy.bundles.open import open_torch
from lfm_policy.contract import Camera, Contract, ObservationKey
from lfm_policy.data.lerobot.names import columns_of
from lfm_policy.errors import CheckpointError, ContractError
from tests.data.lerobot.recorded import record

SMALL = {"_target_": "lfm_policy.networks.ConditionalUnet1d", "dims": [16, 32], "time_dim": 16}
HERE = os.environ | {
    "CUDA_VISIBLE_DEVICES": "",
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "SDL_VIDEODRIVER": "dummy",
    "OMP_NUM_THREADS": "1",
    "WANDB_MODE": "disabled",
}


def lerobot(program: str, *arguments: str) -> str:
    """Run one of LeRobot's commands, of the environment that runs this; return all that it printed."""
    command = [str(Path(sys.executable).parent / f"lerobot-{program}"), *arguments]
    done = subprocess.run(command, check=False, env=HERE, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def pusht(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Episodes of a hand that wanders about a table, as PushT's, written by LeRobot itself."""
    root = tmp_path_factory.mktemp("data") / "pusht"
    vector = {"dtype": "float32", "names": None}
    features = {
        "observation.state": {**vector, "shape": (2,)},
        "observation.environment_state": {**vector, "shape": (16,)},
        "action": {**vector, "shape": (2,)},
    }
    data = LeRobotDataset.create("lfm/wander", fps=10, features=features, root=root, use_videos=False)
    random = np.random.default_rng(0)
    for _ in range(3):
        hand, scene = random.uniform(100, 400, 2), random.uniform(100, 400, 16)
        for _ in range(40):
            goal = np.clip(hand + random.normal(0, 20, 2), 0, 512)
            row = {"observation.state": hand, "observation.environment_state": scene, "action": goal}
            data.add_frame({key: value.astype(np.float32) for key, value in row.items()} | {"task": "wander"})
            hand = goal
        data.save_episode()
    data.finalize()
    return root


def train(data: Path, out: Path, *more: str) -> str:
    """Train a small policy on it by LeRobot's own command."""
    return lerobot(
        "train",
        "--policy.type=lfm",
        "--policy.network={dims: [16, 32], time_dim: 16}",
        "--policy.gammas=[0.5]",
        "--policy.device=cpu",
        "--policy.push_to_hub=false",
        "--dataset.repo_id=lfm/wander",
        f"--dataset.root={data}",
        f"--output_dir={out}",
        "--batch_size=8",
        "--num_workers=0",
        "--log_freq=5",
        "--steps=20",
        "--save_freq=20",
        "--wandb.enable=false",
        *more,
    )


@pytest.mark.slow
def test_lerobots_commands_train_resume_and_evaluate(pusht: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    said = train(pusht, out)
    assert "loss_block0" in said or "loss:" in said
    last = out / "checkpoints" / "last" / "pretrained_model"
    lerobot("train", f"--config_path={last / 'train_config.json'}", "--resume=true", "--steps=25")
    assert (out / "checkpoints" / "000025").is_dir()
    where = (f"--policy.path={last}", "--policy.device=cpu", f"--output_dir={tmp_path / 'eval'}")
    kind = ("--env.type=pusht", "--env.obs_type=environment_state_agent_pos", "--env.episode_length=30")
    lerobot("eval", *where, *kind, "--eval.n_episodes=2", "--eval.batch_size=2", "--eval.use_async_envs=false")
    info = json.loads((tmp_path / "eval" / "eval_info.json").read_text())
    assert info["overall"]["n_episodes"] == 2
    opened = open_torch(last)
    assert opened.contract.control_hz == 10
    assert open_torch(last, weights="raw").digest() != opened.digest()


def given(model: LFMPolicy, batch: int) -> dict[str, torch.Tensor]:
    """Observations of a policy."""
    shapes = {key: feature.shape for key, feature in (model.config.input_features or {}).items()}
    return {key: torch.rand(batch, model.config.n_obs_steps, *shape) for key, shape in shapes.items()}


def test_a_policy_of_ours_is_the_same_there_and_back(tmp_path: Path) -> None:
    convert("lift", tmp_path / "there")
    there = LFMPolicy.from_pretrained(tmp_path / "there")
    ours, back = open_torch("lift"), open_torch(tmp_path / "there")
    assert back.digest() == ours.digest()
    batch, noise = given(there, 3), torch.randn(3, *ours.noise_shape)
    seen = torch.cat([batch["observation.environment_state"], batch["observation.state"]], dim=-1)
    found = there.predict_action_chunk(batch, noise=noise)
    expected = ours.predict_action_chunk({"observation.state": seen}, noise)
    torch.testing.assert_close(found, expected[:, 1:], rtol=0, atol=1e-5)
    assert PreTrainedConfig.from_pretrained(tmp_path / "there").type == "lfm"


def test_actions_are_those_of_the_chunk_one_after_the_other(tmp_path: Path) -> None:
    convert("lift", tmp_path)
    policy = LFMPolicy.from_pretrained(tmp_path)
    batch, noise = {key: rows[:, -1] for key, rows in given(policy, 2).items()}, torch.randn(2, 16, 10)
    chunk = policy.predict_action_chunk(batch, noise=noise)
    policy.reset()
    steps = [policy.select_action(batch, noise=noise) for _ in range(policy.config.n_action_steps)]
    torch.testing.assert_close(torch.stack(steps, dim=1), chunk[:, : len(steps)], rtol=0, atol=1e-6)


CONTRACT = Contract(
    suite="lerobot",
    suite_version="v3.0",
    environment="two joints",
    robots=(),
    space="joints",
    action_dim=2,
    observations=(ObservationKey(name="observation.state", dim=2),),
    cameras=(Camera(name="top", height=32, width=32),),
)


def fresh(**more: object) -> LFMPolicy:
    """A policy of two joints and a camera, its normalisers fitted to made-up statistics."""
    joints = {key: PolicyFeature(kind, (2,)) for key, kind in
              (("observation.state", FeatureType.STATE), ("action", FeatureType.ACTION))}  # fmt: skip
    pictures = {"observation.images.top": PolicyFeature(FeatureType.VISUAL, (3, 32, 32))}
    encoder = {"_target_": "lfm_policy.networks.vision.SmallEncoder", "features": 8}
    config = LFMConfig(
        input_features={"observation.state": joints["observation.state"], **pictures},
        output_features={"action": joints["action"]},
        network=SMALL,
        vision=encoder,
        device="cpu",
        contract=CONTRACT.model_dump(mode="json"),
        **more,
    )
    stats = {name: {"mean": [5.0, 0.0], "std": [2.0, 1.0], "min": [0.0, -3.0], "max": [10.0, 3.0]} for name in joints}
    return LFMPolicy(config, dataset_stats=stats)


def test_a_policy_that_sees_learns_from_lerobots_batches() -> None:
    policy = fresh()
    batch = {
        "observation.state": torch.rand(4, 2, 2),
        "observation.images.top": torch.rand(4, 2, 3, 32, 32),
        "action": torch.rand(4, 16, 2),
    }
    loss, parts = policy.train().forward(batch)
    loss.backward()
    assert set(parts) == {f"loss_block{n}" for n in range(4)}
    assert policy.model is not None
    assert all(weight.grad is not None for weight in policy.model.sight.parameters())
    before = [weight.clone() for weight in policy.acting.parameters()]
    torch.optim.SGD(policy.get_optim_params(), lr=0.1).step()
    policy.update()
    policy.update()
    assert any(not torch.equal(a, b) for a, b in zip(before, policy.acting.parameters(), strict=True))
    assert policy.eval().predict_action_chunk(batch).shape == (4, 15, 2)


def test_data_that_we_have_written_bring_their_contract(tmp_path: Path) -> None:
    """LeRobot reads the data set that we write; what its numbers mean comes with it."""
    contract = TASKS["lift"].contract
    record(tmp_path / "data", contract, video=False)
    meta = LeRobotDatasetMetadata("lfm/lift", root=tmp_path / "data")
    policy = make_policy(LFMConfig(device="cpu", network=SMALL), ds_meta=meta)
    assert policy.contract == contract
    batch = {key: torch.rand(2, 2, len(columns)) for key, columns in columns_of(contract).items()}
    loss, _ = policy.train().forward(batch | {"action": torch.rand(2, 16, 10)})
    assert loss.isfinite()


def test_a_network_without_its_class_is_the_usual_one() -> None:
    config = LFMConfig(network={"dims": [16, 32], "time_dim": 16}, vision={"features": 8}, device="cpu")
    assert config.network == SMALL
    assert config.vision == {"_target_": "lfm_policy.networks.vision.ResNet18", "features": 8, "keypoints": 32}
    assert LFMConfig(network=SMALL | {"dims": [8, 16]}, vision=None, device="cpu").network["dims"] == [8, 16]


def test_vectors_of_one_number_have_no_axis_there() -> None:
    key, said = "observation.state", {"action_dim": 1, "cameras": ()}
    contract = dict(CONTRACT) | said | {"observations": (ObservationKey(name=key, dim=1),)}
    config = LFMConfig(
        input_features={key: PolicyFeature(FeatureType.STATE, (1,))},
        output_features={"action": PolicyFeature(FeatureType.ACTION, (1,))},
        network=SMALL,
        device="cpu",
        contract=Contract.model_validate(contract).model_dump(mode="json"),
    )
    stats = {name: {"mean": [0.0], "std": [1.0], "min": [-1.0], "max": [1.0]} for name in (key, "action")}
    policy = LFMPolicy(config, dataset_stats=stats)
    loss, _ = policy.train().forward({key: torch.rand(3, 2), "action": torch.rand(3, 16)})
    assert loss.isfinite()
    assert policy.eval().select_action({key: torch.rand(3)}).shape == (3, 1)


def test_normalisers_come_from_the_statistics() -> None:
    encoding = fresh().acting.encoding
    normal = encoding.observation_normalizer.normalize(torch.tensor([[5.0, 0.0], [7.0, 1.0]]))
    torch.testing.assert_close(normal, torch.tensor([[0.0, 0.0], [1.0, 1.0]]))
    actions = encoding.action_normalizer.normalize(torch.tensor([[0.0, -3.0], [10.0, 3.0]]))
    torch.testing.assert_close(actions, torch.tensor([[-1.0, -1.0], [1.0, 1.0]]))


@pytest.mark.parametrize("inference", [False, True])
def test_a_guided_chunk_goes_on_from_what_is_left(inference: bool) -> None:
    """As lerobot-rollout asks: an observation, and what is left of the running chunk, padded with zeros."""
    policy, noise = fresh().eval(), torch.randn(1, 16, 2, generator=torch.Generator().manual_seed(0))
    batch = {"observation.state": torch.rand(1, 2), "observation.images.top": torch.rand(1, 3, 32, 32)}
    with torch.inference_mode(inference):
        running = policy.predict_action_chunk(batch, noise=noise)[0]
        left = torch.cat([running[8:], running.new_zeros(3, 2)])
        free = policy.predict_action_chunk(batch, noise=-noise)[0]
        guided = policy.predict_action_chunk(batch, noise=-noise, inference_delay=4, prev_chunk_left_over=left)[0]
    assert guided.shape == free.shape
    assert guided[:4].sub(left[:4]).norm() < 0.5 * free[:4].sub(left[:4]).norm()


def test_what_cannot_be_says_why(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="anchored chunks and rotation rows need the data themselves"):
        fresh(anchored=True)
    with pytest.raises(ValueError, match="an lfm policy normalises by itself"):
        LFMConfig(device="cpu", normalization_mapping={"STATE": "MEAN_STD"})
    policy = fresh()
    policy.save_pretrained(tmp_path)
    policy.config.network = SMALL | {"dims": [16, 16]}
    with pytest.raises(CheckpointError, match=r"do not fit its config\.json"):
        LFMPolicy.from_pretrained(tmp_path, config=policy.config)
    config = PreTrainedConfig.from_pretrained(tmp_path)
    with pytest.raises(ContractError, match="a new policy needs a data set"):
        LFMPolicy(LFMConfig(input_features=config.input_features, output_features=config.output_features, device="cpu"))
    with pytest.raises(ContractError, match="neither weights nor normalisers"):
        LFMPolicy(config).select_action({})
