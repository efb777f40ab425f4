"""From a checkpoint to a bundle to its evaluation, through the scripts."""

import json
import shutil
from pathlib import Path

import pytest

from lfm_cli import command_line as cli
from lfm_cli import evaluate, export
from lfm_envs.point_mass import CONTRACT
from lfm_policy.errors import CheckpointError, ConfigError
from lfm_policy.files import read_json
from lfm_policy.models.policy import LFMPolicy
from tests.bundles.policies import plain


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    network = {"_target_": "lfm_policy.networks.ConditionalUnet1d", "dims": [8], "time_dim": 8}
    policy = plain(CONTRACT, network, (0.2,))
    out = tmp_path_factory.mktemp("run") / "checkpoint"
    policy.save_pretrained(out)
    return out


def _export(checkpoint: Path, *overrides: str) -> None:
    export.main(cli.load("export", [f"policy={checkpoint}", *overrides]))


def _evaluate(checkpoint: Path, out: Path, *overrides: str) -> dict:
    settings = [f"policy={checkpoint}", f"out={out}", "episodes=3", "videos=0", "workers=1", *overrides]
    evaluate.main(cli.load("evaluate", settings))
    return [json.loads(line) for line in (out / "episodes.jsonl").read_text().splitlines()]


def test_a_bundle_is_evaluated_seed_by_seed_like_its_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    _export(checkpoint, f"out={out}", "solver.method=midpoint")
    summary = read_json(out / "summary.json")
    assert summary["parity"]["float32"] < 1e-4
    before = _evaluate(checkpoint, tmp_path / "checkpoint", "solver.method=midpoint")
    torch_form = _evaluate(out, tmp_path / "torch")
    graph_form = _evaluate(out, tmp_path / "onnx", "runtime=onnx")
    assert [row["digest"] for row in before] == [row["digest"] for row in torch_form]
    for ours, theirs in zip(before, graph_form, strict=True):
        assert (ours["seed"], ours["chunks"], ours["nfe"]) == (theirs["seed"], theirs["chunks"], theirs["nfe"])
        assert ours["final_reward"] == pytest.approx(theirs["final_reward"], abs=1e-3)
    with pytest.raises(ConfigError, match=r"a graph's sampler is fixed: export again with solver\.steps=4,"):
        _evaluate(out, tmp_path / "other", "runtime=onnx", "solver.steps=4")


def test_a_half_precision_bundle_without_graph(checkpoint: Path, tmp_path: Path) -> None:
    _export(checkpoint, f"out={tmp_path / 'bundle'}", "dtype=bfloat16", "onnx=[]")
    assert read_json(tmp_path / "bundle" / "config.json")["dtype"] == "bfloat16"
    with pytest.raises(CheckpointError, match="no graph for onnxruntime"):
        _evaluate(tmp_path / "bundle", tmp_path / "onnx", "runtime=onnx")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["dtype=int4"], "'dtype': Input should be"),
        (["onnx=[float64]"], "'onnx.0': Input should be"),
        (["solver.method=dopri5"], "dopri5 chooses its steps"),
        (["solver.method=eurler"], "'solver.method': Input should be"),
        (["results=nowhere.json"], "expected the summary.json of an evaluation"),
    ],
)
def test_bad_settings_write_nothing(checkpoint: Path, tmp_path: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        _export(checkpoint, f"out={tmp_path / 'bundle'}", *overrides)
    assert not (tmp_path / "bundle").exists()


def test_a_folder_that_is_no_bundle_is_never_replaced(checkpoint: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(checkpoint, tmp_path / "run"))
    with pytest.raises(ConfigError, match="exists and is no bundle"):
        _export(checkpoint, f"out={copy}")
    assert LFMPolicy.from_pretrained(copy).spec.horizon == 16
