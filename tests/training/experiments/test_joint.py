import pytest
import torch

from lfm_policy.errors import ConfigError
from lfm_policy.flow import TimeLaw
from lfm_policy.flow.fit import draw_loss
from lfm_policy.models.policy import LFMPolicy
from lfm_policy.training.experiments.robot import robot_experiment
from lfm_policy.training.gradients import OneByOne
from tests import seeing
from tests.training import runs
from tests.training.experiments.test_vision import OVERRIDES

JOINT = [*OVERRIDES, "vision.joint=true", "vision.updates=1"]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return seeing.store(tmp_path_factory.mktemp("joint") / "seeing.zarr")


@pytest.fixture(scope="module")
def trained(store, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "run"
    runs.run_until(None, *JOINT, f"data.path={store}", f"out={out}")
    return out


def test_encoders_get_the_gradient_of_the_sum_of_all_losses(store, tmp_path):
    """Through one pass of the pictures, what autograd finds in the whole graph."""
    settings = runs.settings(*JOINT, f"data.path={store}", f"out={tmp_path / 'run'}")
    experiment = robot_experiment(settings, settings.data, torch.device("cpu"))
    policy, pool = experiment.model, experiment.pool
    for block in policy.chain.blocks:  # a fresh last layer says 0 whatever it sees
        torch.nn.init.normal_(list(block.parameters())[-2], std=0.1)

    def losses(sample):
        generator = torch.Generator().manual_seed(1)
        return [
            draw_loss(policy.chain, n, sample, "marginal", TimeLaw(), generator)
            for n in range(len(policy.chain.blocks))
        ]

    index = torch.arange(6)
    sample = pool.take(index, torch.Generator().manual_seed(0))
    OneByOne()(losses(sample), 1.0, torch.autocast("cpu", enabled=False))
    pool.backward()
    found = [p.grad.clone() for p in policy.sight.parameters()]
    policy.zero_grad()
    sample = pool.take(index, torch.Generator().manual_seed(0))
    ((features, given),) = pool._asked
    whole = torch.cat([sample.cond[:, : -given.shape[1]], features], dim=1)
    torch.stack([loss() for loss in losses(type(sample)(sample.x, whole))]).sum().backward()
    assert any(p.grad.abs().max() > 1e-4 for p in policy.sight.parameters())
    for gradient, parameter in zip(found, policy.sight.parameters(), strict=True):
        torch.testing.assert_close(gradient, parameter.grad, rtol=1e-3, atol=1e-6)


def test_encoders_are_trained_averaged_and_kept(store, trained):
    settings = runs.settings(*JOINT, f"data.path={store}", f"out={trained}")
    fresh = robot_experiment(settings, settings.data, torch.device("cpu")).model.sight
    averaged, raw = (LFMPolicy.from_pretrained(trained, weights=weights).sight for weights in ("ema", "raw"))
    for one, other in ((fresh, averaged), (averaged, raw)):
        assert not all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert not (trained / "encoder").exists()


def test_an_interrupted_run_ends_in_the_same_bits(store, trained, tmp_path):
    command = (*JOINT, "checkpoint_seconds=0", f"data.path={store}", f"out={tmp_path / 'run'}")
    with pytest.raises(runs.Killed):
        runs.run_until(3, *command)
    runs.run_until(None, *command)
    assert LFMPolicy.from_pretrained(tmp_path / "run").digest() == LFMPolicy.from_pretrained(trained).digest()


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("flow.mode=sequential", r"flow.mode=sequential \(not simulation_free\)"),
        ("optimiser.compiled=true", r"optimiser.compiled=True \(not False\)"),
        ("vision.trained=other", r"vision.trained=other \(not None\)"),
    ],
)
def test_what_needs_blocks_apart_is_refused(store, tmp_path, setting, told):
    with pytest.raises(ConfigError, match=told):
        runs.settings(*JOINT, f"data.path={store}", f"out={tmp_path}", setting)
