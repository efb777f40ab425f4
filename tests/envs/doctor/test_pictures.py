"""Each way in which pictures are often wrong, planted into a rendered file, is named; right ones differ by nothing."""

import importlib.util

import h5py
import numpy as np
import pytest

import lfm_envs
from lfm_envs.doctor.pictures import check_pictures, picture_gaps
from lfm_envs.render import render
from lfm_envs.tasks import TASKS
from lfm_policy.contract import Camera
from lfm_policy.data.demos.file import open_demos
from tests.demonstrations import record

pytestmark = [
    pytest.mark.sim,
    pytest.mark.skipif(importlib.util.find_spec("robosuite") is None, reason="robosuite is not installed"),
    pytest.mark.skipif(importlib.util.find_spec("fast_simplification") is None, reason="no fast-simplification"),
]
CONTRACTS = {task.environment: task.contract for task in TASKS.values()}
CAMERAS = tuple(Camera(name=name, height=24, width=24) for name in ("agentview", "robot0_eye_in_hand"))


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    env = lfm_envs.make("robosuite/lift")
    path = record(env, tmp_path_factory.mktemp("demos") / "demos.hdf5", [3], 12)
    env.close()
    render(path, path, CAMERAS, workers=1)
    return path


def findings(path, target, change=None):
    """Copy the file with changed pictures; return the gaps and what is found."""
    target.write_bytes(path.read_bytes())
    if change is not None:
        with h5py.File(target, "a") as file:
            seen = file["data/demo_0/obs"]
            changed = change({key: seen[f"{key}_image"][()] for key in ("agentview", "robot0_eye_in_hand")})
            for key, pictures in changed.items():
                seen[f"{key}_image"][...] = pictures
    with open_demos(target, CONTRACTS, strict=False) as file:
        gaps = picture_gaps(TASKS["lift"], file, [0])
    return gaps, [finding.what for finding in check_pictures(gaps)]


def test_right_pictures_are_drawn_again_bit_for_bit(rendered, tmp_path):
    gaps, found = findings(rendered, tmp_path / "demos.hdf5")
    assert [(gap.camera.name, gap.gap, gap.reading) for gap in gaps] == [(c.name, 0.0, None) for c in CAMERAS]
    assert found == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda seen: {"agentview": seen["agentview"][:, ::-1]}, "agentview are upside down"),
        (lambda seen: {"agentview": seen["agentview"][..., ::-1]}, "agentview are of blue, green and red"),
        (lambda seen: {"agentview": np.zeros_like(seen["agentview"])}, "agentview differ from the coarse drawing"),
        (
            lambda seen: {"agentview": seen["robot0_eye_in_hand"], "robot0_eye_in_hand": seen["agentview"]},
            "agentview are those of robot0_eye_in_hand",
        ),
    ],
)
def test_wrong_pictures_are_named(rendered, tmp_path, change, told):
    _, found = findings(rendered, tmp_path / "demos.hdf5", change)
    assert told in found[0]
