"""Distillation through the real script: every divisor, both kinds of models, interruptions, refusals."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lfm_cli import distill, train
from lfm_cli.command_line import load
from lfm_envs.tasks import TASKS
from lfm_policy.errors import CheckpointError, ConfigError, ContractError, DataError
from lfm_policy.models.density import FlowModel
from lfm_policy.models.policy import LFMPolicy
from lfm_policy.training.distillation.run import run
from lfm_policy.training.loop import StepReport
from tests.training.runs import TINY, Killed, point_mass_store, random_store, settings

SHORT = ["updates=3", "batch=8", "conditions=4", "draws=3", "parallel=1"]
SHORT += ["logging.mode=disabled", "optimiser.warmup_steps=1"]
PLANE = ["data.samples=200", "data.test=20", "network.width=8", "updates=2", "batch=16", "logging.mode=disabled"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two teachers of four blocks: `robot` for the point mass and `plane`."""
    folder = tmp_path_factory.mktemp("teachers")
    store = point_mass_store(folder / "points.zarr")
    robot = [*TINY, "updates=3", "flow.solver={steps: 2}", f"data.path={store}", f"out={folder / 'robot'}"]
    train.main(settings(*robot))
    plane = [*PLANE, "flow.blocks=4", "flow.solver={method: euler, steps: 2}", f"out={folder / 'plane'}"]
    train.main(settings("experiment=2d/two_moons", *plane))
    return folder


def _distil(*overrides: str, stop: int | None = None) -> None:
    def listen(report: StepReport) -> None:
        if report.step == stop:
            raise Killed

    settings = load("distill", [*SHORT, *overrides])
    if stop is None:
        distill.main(settings)
    else:
        run(settings, listen)


def _summary(out: Path) -> dict[str, Any]:
    return json.loads((out / "summary.json").read_text())


@pytest.mark.parametrize("blocks", [4, 2, 1])
@pytest.mark.parametrize("kind", ["robot", "plane"])
def test_every_divisor(folder: Path, tmp_path: Path, kind: str, blocks: int) -> None:
    _distil(f"policy={folder / kind}", f"blocks={blocks}", f"out={tmp_path}")
    summary = _summary(tmp_path)
    model = LFMPolicy if kind == "robot" else FlowModel
    student, teacher = (model.from_pretrained(path) for path in (tmp_path, folder / kind))
    assert (summary["nfe"], summary["digest"]) == (blocks, student.digest())
    assert summary["teacher"]["solver"]["steps"] == 2
    assert summary["teacher"]["digest"] == teacher.digest()
    assert (student.chain.solver.method, student.chain.solver.steps) == ("euler", 1)
    assert summary["parameters"] == sum(p.numel() for p in student.chain.parameters())
    fidelity = summary["fidelity"]
    assert fidelity["conditions"] == (4 if kind == "robot" else 1)
    assert len(fidelity["error_by_step"]) == (16 if kind == "robot" else 1)
    assert len(fidelity["error_by_dimension"]) == 2
    if isinstance(student, LFMPolicy):
        assert student.contract == LFMPolicy.from_pretrained(folder / kind).contract
        assert student.predict_action_chunk({"observation.state": torch.zeros(3, 4)}).shape == (3, 16, 2)


@pytest.mark.parametrize("grow", [True, False])
def test_size_grows_with_what_a_block_replaces_unless_told_otherwise(folder: Path, tmp_path: Path, grow: bool) -> None:
    _distil(f"policy={folder / 'plane'}", "blocks=1", f"grow={grow}", f"out={tmp_path}")
    assert _summary(tmp_path)["network"]["width"] == (16 if grow else 8)


@pytest.mark.parametrize(
    ("kind", "target", "cached"),
    [
        ("plane", "trajectory", "null"),
        ("plane", "on_policy", "300"),
        ("plane", "consistency", "300"),
        ("robot", "on_policy", "40"),
    ],
)
def test_an_interrupted_distillation_ends_with_the_same_weights(
    folder: Path, tmp_path: Path, kind: str, target: str, cached: str
) -> None:
    common = [f"policy={folder / kind}", "blocks=2", f"target={target}", f"cached={cached}", "grow=false"]
    _distil(*common, f"out={tmp_path / 'whole'}")
    for stop in (2, 3):
        with pytest.raises(Killed):
            _distil(*common, f"out={tmp_path / 'parts'}", "checkpoint_seconds=0", stop=stop)
    _distil(*common, f"out={tmp_path / 'parts'}")
    for name in ("model", "ema", "trainer"):
        ours, theirs = (load_file(tmp_path / run / "checkpoint" / f"{name}.safetensors") for run in ("parts", "whole"))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert _summary(tmp_path / "parts")["digest"] == _summary(tmp_path / "whole")["digest"]


def test_a_longer_distillation_is_nearer_to_its_teacher(folder: Path, tmp_path: Path) -> None:
    common = [f"policy={folder / 'plane'}", "blocks=1", "draws=50", "optimiser.learning_rate=0.003"]
    errors = []
    for updates in (1, 150):
        out = tmp_path / str(updates)
        _distil(*common, f"out={out}", f"updates={updates}", "batch=64")
        errors.append(_summary(out)["fidelity"]["error"])
    assert errors[1] < 0.3 * errors[0]


def test_rollouts_of_both_and_their_paired_difference(folder: Path, tmp_path: Path) -> None:
    common = [f"policy={folder / 'robot'}", "blocks=2", f"out={tmp_path}", "episodes=3", "workers=1"]
    _distil(*common)
    summary = _summary(tmp_path)
    assert summary["success"]["nfe"] == 2
    assert summary["teacher_success"]["nfe"] == 8
    pair = summary["difference"]
    assert pair["episodes"] == 3
    assert pair["difference"] == pytest.approx(summary["success"]["success"] - summary["teacher_success"]["success"])


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        (["blocks=3"], ConfigError, "blocks=3: 4 teacher blocks cannot be shared out among 3 students"),
        (["blocks=8"], ConfigError, "among 8 students"),
        (["blocks=2", "data.path=nowhere.zarr"], DataError, "no data set at nowhere.zarr"),
        (["blocks=2", "target=trajectories"], ConfigError, "'trajectory', 'on_policy' or 'consistency'"),
        (["blocks=2", "policy=nowhere"], CheckpointError, "there is no policy 'nowhere'"),
        (["blocks=2", "solver.method=dopri"], ConfigError, "'dopri5'"),
    ],
)
def test_bad_settings_are_explained(
    folder: Path,
    tmp_path: Path,
    overrides: list[str],
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        _distil(f"policy={folder / 'robot'}", f"out={tmp_path / 'run'}", *overrides)
    assert not (tmp_path / "run").exists()


def test_data_must_be_named_where_the_teachers_run_does_not(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "robot" / "checkpoint", tmp_path / "bare")
    with pytest.raises(ConfigError, match=r"name a prepared data set, data.path=DIR\.zarr"):
        _distil(f"policy={tmp_path / 'bare'}", "blocks=2", f"out={tmp_path / 'run'}")
    data = f"data.path={folder / 'points.zarr'}"
    _distil(f"policy={tmp_path / 'bare'}", "blocks=2", f"out={tmp_path / 'run'}", data)


def test_data_of_another_contract_are_refused(folder: Path, tmp_path: Path) -> None:
    data = random_store(tmp_path / "lift.zarr", TASKS["lift"].contract)
    with pytest.raises(ContractError, match="the checkpoint and the data set"):
        _distil(
            f"policy={folder / 'robot'}",
            "blocks=2",
            f"data.path={data}",
            f"out={tmp_path / 'run'}",
        )


def test_another_teacher_does_not_continue_a_run(folder: Path, tmp_path: Path) -> None:
    common = [f"policy={folder / 'robot'}", "blocks=2", f"out={tmp_path}"]
    _distil(*common)
    with pytest.raises(CheckpointError, match=r"solver\.steps: there 2, now 5"):
        _distil(*common, "solver.steps=5")
