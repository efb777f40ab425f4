"""The flow model in the data's own units: density, sampling, files."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lfm_policy.data.normalizers.affine import AffineNormalizer
from lfm_policy.errors import CheckpointError, ConfigError
from lfm_policy.flow import Hutchinson, Solver
from lfm_policy.models.density import FlowModel
from lfm_policy.models.pretrained import seal
from lfm_policy.models.spec import ChainSpec, FlowSpec

NETWORK = {"_target_": "lfm_policy.networks.VelocityMlp", "width": 16, "layers": 2}
SPEC = FlowSpec(dim=2, chain=ChainSpec(gammas=(0.3,), solver=Solver("rk4", 8), network=NETWORK))


@pytest.fixture
def model() -> FlowModel:
    torch.manual_seed(0)
    model = FlowModel(SPEC)
    model.normalizer = AffineNormalizer.standard(torch.randn(100, 2) * torch.tensor([3.0, 0.5]) + 2)
    return model.eval()


def test_the_density_in_data_units_integrates_to_one(model: FlowModel) -> None:
    first, second = torch.linspace(-20, 24, 200), torch.linspace(-2, 6, 200)
    grid = torch.cartesian_prod(first, second)
    area = (44 / 199) * (8 / 199)
    assert model.log_prob(grid).log_prob.exp().sum().item() * area == pytest.approx(1, abs=0.01)
    some = grid[::4000]
    estimate = model.log_prob(some, estimator=Hutchinson(probes=256)).log_prob
    torch.testing.assert_close(estimate, model.log_prob(some).log_prob, atol=0.15, rtol=0)


def test_samples_are_in_data_units_and_end_their_trajectories(model: FlowModel) -> None:
    noise = torch.randn(500, 2)
    drawn = model.sample(noise)
    assert drawn.nfe == 2 * 4 * 8
    states = model.trajectory(noise, pieces=3)
    assert len(states) == 1 + 2 * 3
    torch.testing.assert_close(states[-1], drawn.x, atol=1e-4, rtol=0)
    torch.testing.assert_close(states[0], model.normalizer.denormalize(noise))
    assert drawn.x.mean(0).tolist() == pytest.approx([2, 2], abs=2)


def test_a_model_comes_back_from_its_files(model: FlowModel, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "model")
    back = FlowModel.from_pretrained(tmp_path / "model")
    assert back.spec == model.spec
    assert back.digest() == model.digest()
    x = torch.randn(5, 2)
    torch.testing.assert_close(back.log_prob(x).log_prob, model.log_prob(x).log_prob, rtol=0, atol=0)


def _edit(directory: Path, **values: object) -> None:
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | values))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: (d / "config.json").unlink(), "no checkpoint in"),
        (lambda d: (d / "config.json").write_text("{"), "cannot be read"),
        (lambda d: _edit(d, format="lfm-policy/1"), "holds no flow model"),
        (lambda d: (d / "model.safetensors").write_bytes(b"no"), "missing or damaged"),
        (lambda d: _edit(d, chain={"gammas": [0.3], "network": NETWORK | {"width": 8}}), "do not fit its config"),
    ],
)
def test_damage_is_named(model: FlowModel, tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    model.save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "checksums.json").unlink()  # those of before have none
    damage(tmp_path / "model")
    with pytest.raises(CheckpointError, match=message):
        FlowModel.from_pretrained(tmp_path / "model")


def test_code_from_elsewhere_is_not_run(model: FlowModel, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "model")
    _edit(tmp_path / "model", chain={"gammas": [], "network": {"_target_": "torch.nn.Identity"}})
    seal(tmp_path / "model")
    with pytest.raises(ConfigError, match="trust_code=True"):
        FlowModel.from_pretrained(tmp_path / "model")


@pytest.mark.parametrize(("whitened", "kind"), [(False, "affine"), (True, "whitening")])
def test_specifications_of_before_are_read(whitened: bool, kind: str) -> None:
    network = {"_target_": "a.B"}
    now = FlowSpec(dim=2, chain=ChainSpec(gammas=(), network=network), normalizer=kind)
    before = {"format": "lfm-flow/1", "dim": 2, "gammas": [], "network": network, "share": False}
    assert FlowSpec.model_validate(before | {"whitened": whitened}) == now


def test_networks_may_first_be_imported_where_nothing_takes_memory() -> None:
    """As a process does whose first act is to load a density: names and shapes are judged on torch's meta device."""
    code = "import torch\nwith torch.device('meta'):\n    import lfm_policy.networks\n"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
