import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import closing

import h5py
import numpy as np
import pytest

import lfm_envs
from lfm_cli import command_line as cli
from lfm_cli import prepare
from lfm_envs.render import cameras_of, render
from lfm_envs.tasks import TASKS
from lfm_policy.contract import Camera
from lfm_policy.data.demos.file import open_demos
from lfm_policy.data.demos.pictures import find_pictures
from lfm_policy.data.windows.store import open_store
from lfm_policy.errors import ConfigError
from tests.demonstrations import record
from tests.envs.test_collect import assert_same_files

pytestmark = [
    pytest.mark.sim,
    pytest.mark.skipif(importlib.util.find_spec("robosuite") is None, reason="robosuite is not installed"),
    pytest.mark.skipif(importlib.util.find_spec("fast_simplification") is None, reason="no fast-simplification"),
]
SEEDS, STEPS = [11, 12, 13], 20
CAMERAS = (Camera(name="agentview", height=24, width=24), Camera(name="robot0_eye_in_hand", height=24, width=24))


@pytest.fixture(scope="module")
def demos(tmp_path_factory):
    env = lfm_envs.make("robosuite/lift")
    yield record(env, tmp_path_factory.mktemp("demos") / "demos.hdf5", SEEDS, STEPS)
    env.close()


@pytest.fixture(scope="module")
def rendered(demos):
    out = demos.with_stem("rendered")
    summary = render(demos, out, CAMERAS, workers=1)
    assert summary["pictures"] == 2 * STEPS * len(SEEDS)
    assert not out.with_name(f"{out.name}.parts").exists()
    return out


def test_replayed_pictures_are_those_that_a_policy_will_see(rendered):
    """Bit for bit, with the cube as large as it was in each episode."""
    with closing(lfm_envs.make("robosuite/lift", cameras=CAMERAS)) as env, h5py.File(rendered) as file:
        for index, seed in enumerate(SEEDS):
            env.reset(seed)
            demo = file[f"data/demo_{index}"]
            for step, action in enumerate(demo["actions_executed"][:4]):
                for key, seen in env.look().items():
                    np.testing.assert_array_equal(demo[f"obs/{key}"][step], seen, err_msg=f"{key} of step {step}")
                env.step_delta(action)


@pytest.mark.slow
def test_the_workers_and_an_interruption_do_not_change_a_bit(demos, rendered, tmp_path):
    out = tmp_path / "again.hdf5"
    command = [sys.executable, "-m", "lfm_cli", "render", f"source={demos}", f"out={out}", "image_size=24", "workers=1"]
    process = subprocess.Popen(command, env=os.environ, stdout=subprocess.DEVNULL, start_new_session=True)
    parts = out.with_name(f"{out.name}.parts")
    limit = time.monotonic() + 120
    while not list(parts.glob("0*.hdf5")):
        assert process.poll() is None
        assert time.monotonic() < limit
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)  # in the middle of another episode
    process.wait()
    assert not out.exists()
    with pytest.raises(ConfigError, match="unfinished pictures of other cameras"):
        render(demos, out, CAMERAS[:1], workers=1)
    render(demos, out, CAMERAS, workers=2)
    assert_same_files(out, rendered)
    assert render(demos, out, CAMERAS, workers=1)["seconds"] == 0


def test_rendered_files_become_data_sets_of_what_a_robot_sees(rendered, tmp_path):
    out = tmp_path / "lift.zarr"
    overrides = [f"source={rendered}", f"out={out}", "observations=images", "replay=1"]
    prepare.main(cli.load("prepare", overrides))
    store = open_store(out)
    assert store.contract == TASKS["lift"].view(CAMERAS, objects=False)
    with open_demos(rendered, {"Lift": TASKS["lift"].contract}) as file:
        np.testing.assert_array_equal(store.episode(1).frames, find_pictures(file).read(1))
        np.testing.assert_array_equal(store.episode(1).observation, file.read(1).observation[:, 10:])
    notes = json.loads((out / "summary.json").read_text())["files"][0]["notes"]
    assert "agentview: 24 x 24 pixels, drawn coarse" in notes


def test_the_benchmarks_cameras_are_the_default():
    assert [(c.name, c.height) for c in cameras_of(TASKS["tool_hang"], None, None)] == [
        ("sideview", 240),
        ("robot0_eye_in_hand", 240),
    ]
    assert len(cameras_of(TASKS["transport"], None, 84)) == 4
