"""Image runs go through the same script and loop as all others."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("diffusers", reason="networks for images are diffusers'")

from lfm_cli import command_line as _cli
from lfm_cli import distill, report_images
from lfm_policy.errors import ConfigError
from lfm_policy.models.density import FlowModel
from lfm_policy.networks.unet2d import VelocityUnet2d
from tests.data.pictures import write_arrays
from tests.training.runs import Killed, run_until, settings

UNET = "_target_: lfm_policy.networks.unet2d.VelocityUnet2d, multipliers: [1, 2], layers: 1, groups: 4, attention: [4]"
SHRINK = [
    "threads=1",
    f"network={{{UNET}, width: 8}}",
    f"global_network={{{UNET}, width: 16}}",
    "data.side=8",
    "data.generated=20",
    "data.classifier_steps=5",
    "batch=8",
    "flow.solver={method: euler, steps: 1}",
    "logging.mode=disabled",
]
BLOCKS = {"cifar10": 4, "imagenet32": 5, "flowers128": 4, "lsun_church128": 4}


def _summary(out: Path) -> dict[str, Any]:
    return json.loads((out / "summary.json").read_text())


def _run(tmp_path: Path, *overrides: str) -> list[str]:
    path = write_arrays(tmp_path / "pictures.npz")
    return [*SHRINK, f"data.path={path}", f"data.classifiers={tmp_path / 'classifiers'}", *overrides]


@pytest.mark.parametrize("name", list(BLOCKS))
def test_every_preset_trains_two_steps_and_goes_on_to_four(name: str, tmp_path: Path) -> None:
    out, method = tmp_path / "run", "fm" if name == "imagenet32" else "lfm"
    common = _run(tmp_path, f"experiment=image/{name}", f"method={method}", f"out={out}", "updates=4")
    with pytest.raises(Killed):
        run_until(2, *common, "checkpoint_seconds=0")
    assert json.loads((out / "checkpoint" / "trainer.json").read_text())["updates"] == 1
    run_until(None, *common)
    summary = _summary(out)
    blocks = BLOCKS[name] if method == "lfm" else 1
    assert (summary["blocks"], summary["nfe_sample"], summary["samples"]) == (blocks, blocks, 120)
    assert summary["classifier_frechet"] > summary["classifier_frechet_of_test"] >= 0
    assert "fid" not in summary
    assert FlowModel.from_pretrained(out).digest() == summary["digest"]


def test_a_teacher_its_students_and_their_pictures(tmp_path: Path) -> None:
    teacher, student, report = (tmp_path / name for name in ("teacher", "student", "report"))
    run_until(None, *_run(tmp_path, "experiment=image/cifar10", "size=tiny", f"out={teacher}", "updates=2"))
    overrides = ["blocks=2", "updates=2", "batch=4", "conditions=1", "threads=1", "logging.mode=disabled"]
    distilled = _cli.load("distill", [f"policy={teacher}", f"out={student}", *overrides])
    distill.main(distilled)
    chosen = [f"runs=[{teacher}]", f"students=[{student}]", f"out={report}", "columns=3", "states=4", "pieces=1"]
    report_images.main(_cli.load("report_images", chosen))
    rows = json.loads((report / "summary.json").read_text())["runs"]
    assert [(row["run"], row["nfe_sample"]) for row in rows] == [("teacher", 4), ("student", 2)]
    assert rows[0]["classifier_frechet"] == _summary(teacher)["classifier_frechet"]  # as measured, not again
    solver = "solver={method: heun, steps: 1, tolerance: 1.0e-5}"
    report_images.main(_cli.load("report_images", [*chosen, solver]))
    (otherwise, same) = json.loads((report / "summary.json").read_text())["runs"]
    assert (otherwise["nfe_sample"], same) == (8, rows[1])
    assert otherwise["classifier_frechet"] != rows[0]["classifier_frechet"]
    from PIL import Image

    for name, size in (("teacher", (26, 26)), ("student_trajectories", (26, 26)), ("data", (26, 26))):
        with Image.open(report / f"{name}.png") as picture:
            assert picture.size == size


def test_networks_see_pictures_in_vectors() -> None:
    """Shifting the picture by a side's multiple of the stride shifts the inside of the velocity with it."""
    torch.manual_seed(0)
    network = VelocityUnet2d(3 * 64, width=8, multipliers=(1, 2), layers=1, groups=4, attention=())
    x, t = torch.randn(2, 3 * 64), torch.tensor([0.2, 0.9])
    assert network(x, t).shape == x.shape
    assert not torch.allclose(network(x, t), network(x, t.flip(0)))
    told = VelocityUnet2d(3 * 64, cond_dim=2, width=8, multipliers=(1, 2), layers=1, groups=4, attention=())
    codes = torch.eye(2)
    assert not torch.allclose(told(x, t, codes), told(x, t, codes.flip(0)))
    with pytest.raises(ValueError, match="expected square images with sides divisible by 2"):
        VelocityUnet2d(3 * 49, width=8, multipliers=(1, 2), groups=4)


@pytest.mark.parametrize(
    ("name", "millions", "batch", "steps"),
    [
        ("cifar10", 160, 200, 50_000),
        ("imagenet32", 120, 256, 200_000),
        ("flowers128", 464, 40, 40_000),
        ("lsun_church128", 464, 40, 120_000),
    ],
)
def test_presets_are_the_columns_of_table_a2(name: str, millions: float, batch: int, steps: int) -> None:
    """Table A.2; diffusers' network has up to a fifth more parameters at the same widths."""
    preset = settings(f"experiment=image/{name}", "out=x")
    assert (preset.batch, preset.updates, preset.flow.interpolant) == (batch, steps, "trigonometric")
    blocks, totals = preset.flow.schedule().blocks, []
    assert blocks == BLOCKS[name]
    side = preset.model_dump()["data"]["side"]
    for spec, count in ((preset.network, blocks), (preset.global_network, 1)):
        arguments = {key: value for key, value in spec.items() if key != "_target_"}
        with torch.device("meta"):
            network = VelocityUnet2d(3 * side * side, **arguments)
        totals.append(count * sum(p.numel() for p in network.parameters()) / 1e6)
    assert totals[0] == pytest.approx(millions, rel=0.2)
    assert totals[1] == pytest.approx(totals[0], rel=0.03)


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from lfm_policy import networks

    for name in [name for name in sys.modules if name == "diffusers" or name.startswith("diffusers.")]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "lfm_policy.networks.unet2d")
    with pytest.raises(ConfigError, match=r"pip install 'lfm-policy\[diffusion\]'"):
        networks.build({"_target_": "lfm_policy.networks.unet2d.VelocityUnet2d"}, dim=192)
