import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lfm_cli import train
from lfm_policy.errors import CheckpointError, ConfigError
from lfm_policy.models.policy import LFMPolicy
from lfm_policy.rollout.runner import Runner, RunnerOptions
from lfm_policy.training.distillation.students import Observations, student_of
from lfm_policy.training.experiments import vision
from lfm_policy.training.experiments.data_settings import WindowData
from lfm_policy.training.experiments.robot import robot_experiment
from lfm_policy.training.loop import Trainer
from tests import seeing
from tests.training import runs

OVERRIDES = [
    "experiment=robot_image/lift",
    *runs.TINY[1:],
    "vision.encoder.channels=[8,8,8]",
    "vision.encoder.keypoints=8",
    "vision.encoder.features=8",
    "vision.crop=28",
    "vision.hidden=16",
    "vision.batch=16",
    "data.rotation_rows=false",
    "data.observation_steps=1",
]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return seeing.store(tmp_path_factory.mktemp("seeing") / "seeing.zarr")


def run(store, out, *overrides):
    train.main(runs.settings(*OVERRIDES, f"data.path={store}", f"out={out}", *overrides))
    return LFMPolicy.from_pretrained(out)


@pytest.fixture(scope="module")
def trained(store, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "run"
    run(store, out, "vision.updates=4")
    return out


def test_a_run_that_is_interrupted_anywhere_ends_in_the_same_bits(store, trained, tmp_path, monkeypatch):
    """In the second update of the encoder, in the third of the chain: crops are the generator's."""
    optimise, stops = Trainer.optimise, [2, 3]

    def interrupted(self, *arguments):
        stop = stops[0] if stops else None
        on_step = self._on_step

        def hear(report):
            on_step(report)
            if report.step == stop:
                stops.pop(0)
                self._save(self, force=True)
                raise runs.Killed

        self._on_step = hear
        optimise(self, *arguments)

    monkeypatch.setattr(Trainer, "optimise", interrupted)
    for _ in range(2):
        with pytest.raises(runs.Killed):
            run(store, tmp_path / "run", "vision.updates=4")
    ended = run(store, tmp_path / "run", "vision.updates=4")
    assert ended.digest() == LFMPolicy.from_pretrained(trained).digest()


def test_encoders_are_frozen_and_the_chain_sees_their_features(store, trained):
    settings = runs.settings(*OVERRIDES, f"data.path={store}", f"out={trained}", "vision.updates=4")
    assert isinstance(settings.data, WindowData)
    experiment = robot_experiment(settings, settings.data, torch.device("cpu"))
    policy = LFMPolicy.from_pretrained(trained)
    assert all(
        torch.equal(a, b) for a, b in zip(experiment.model.sight.parameters(), policy.sight.parameters(), strict=True)
    )
    assert not any(p.requires_grad for p in experiment.model.sight.parameters())
    pool, index = experiment.pool, torch.arange(6)
    middle, again = pool.take(index), pool.take(index)
    assert torch.equal(middle.cond, again.cond)
    crops = pool.take(index, torch.Generator().manual_seed(0))
    assert torch.equal(middle.cond[:, :2], crops.cond[:, :2])
    assert not torch.equal(middle.cond[:, 2:], crops.cond[:, 2:])
    assert json.loads((trained / "encoder" / "summary.json").read_text())["updates"] == 4


def test_methods_are_compared_on_the_same_features(store, trained, tmp_path):
    policy = run(store, tmp_path / "fm", "method=fm", f"vision.trained={trained}", "vision.updates=4")
    theirs = LFMPolicy.from_pretrained(trained)
    assert len(policy.chain.blocks) == 1
    assert torch.equal(policy.sight.scale, theirs.sight.scale)
    assert not (tmp_path / "fm" / "encoder").exists()
    with pytest.raises(ConfigError, match="has other encoders"):
        run(store, tmp_path / "x", f"vision.trained={trained}", "vision.encoder.features=4", "vision.updates=4")


def test_the_blind_twin_differs_in_its_pictures_alone(store, tmp_path):
    blind = run(store, tmp_path / "blind", "data.blind=true", "vision.updates=4")
    assert blind.sight is None
    assert blind.contract.cameras == ()
    assert blind.contract.observations == seeing.CONTRACT.observations


def test_pictures_need_somebody_who_sees(store, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"experiment=robot_image/…, or data.blind=true"):
        run(store, tmp_path / "x", "vision=null")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=r"vision.trained=RUN"):
        run(store, tmp_path / "x", "vision.updates=4")


def test_encoders_begin_with_the_weights_of_a_file(store, trained, tmp_path):
    sight = LFMPolicy.from_pretrained(trained).sight
    first = sight.encoders[0].state_dict()["layers.0.weight"]
    save_file({"layers.0.weight": torch.zeros_like(first), "another": torch.zeros(3)}, tmp_path / "some.safetensors")
    vision.begin_encoders(sight, tmp_path / "some.safetensors")
    assert not sight.encoders[0].state_dict()["layers.0.weight"].any()
    assert sight.encoders[0].state_dict()["layers.3.weight"].any()
    save_file({"other": torch.zeros(3)}, tmp_path / "none.safetensors")
    with pytest.raises(CheckpointError, match="has no tensor for the encoder"):
        vision.begin_encoders(sight, tmp_path / "none.safetensors")


def test_episodes_of_a_seeing_policy_are_functions_of_their_seeds(trained):
    policy = LFMPolicy.from_pretrained(trained)
    seeds, digests = [5, 6, 7], []
    for workers in (1, 2):
        results = Runner(policy, seeing.SeeingPointMass, RunnerOptions(workers=workers)).run(seeds)
        digests.append([result.digest for result in results])
    assert digests[0] == digests[1]


def test_regression_learns_what_only_pictures_tell(tmp_path):
    """The goal: without it no command is better than the mean one."""
    store = seeing.store(tmp_path / "many.zarr", episodes=50)
    errors = []
    for steps in (1, 150):
        settings = runs.settings(
            *OVERRIDES,
            f"data.path={store}",
            f"out={tmp_path / str(steps)}",
            f"vision.updates={steps}",
            "vision.encoder.stride=1",
            "vision.optimiser.learning_rate=0.01",
            "vision.batch=64",
            "vision.hidden=64",
        )
        experiment = robot_experiment(settings, settings.data, torch.device("cpu"))
        pool = experiment.pool
        cond = pool.take(torch.arange(len(pool))).cond.double()
        goal = torch.from_numpy(np.concatenate([goals(seed) for seed in range(1, 50)]))
        errors.append(residual(cond, goal))
    assert errors[1] < 0.4 * errors[0]


def goals(seed):
    environment = seeing.SeeingPointMass()
    environment.reset(seed)
    length = len(seeing.demonstration(seed).action) - 8  # windows of an episode with To = 1, Ta = 8, T = 16
    return np.repeat(environment._goal[None], max(length, 0), axis=0)


def residual(cond, goal):
    """Mean square of what a linear map of the condition leaves of the goal."""
    design = torch.cat([cond, torch.ones(len(cond), 1, dtype=cond.dtype)], dim=1)
    return float((design @ torch.linalg.lstsq(design, goal).solution - goal).square().mean())


def test_students_share_their_teachers_eyes(store, trained):
    teacher = LFMPolicy.from_pretrained(trained)
    student = student_of(teacher, 1, grow=False)
    assert isinstance(student, LFMPolicy)
    for ours, theirs in zip(student.sight.state_dict().values(), teacher.sight.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)
    conditions, index = Observations(student, store), torch.arange(3)
    windows = conditions.pool().take(index)
    assert torch.equal(windows.cond, Observations(teacher, store).pool().take(index).cond)
    assert conditions.held_out(4).shape == (4, windows.cond.shape[1])
