"""Every example's page does what it says, with code of a user's own only."""

import json
import re
import runpy
import signal
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

import lfm_envs
from lfm_policy.data.windows.store import open_store
from tests.examples.running import EXAMPLES, SHORT, commands

NAMES = sorted(path.name for path in EXAMPLES.iterdir() if path.is_dir() and (path / "README.md").exists())


@pytest.mark.parametrize("name", NAMES)
def test_an_example_is_short_and_has_a_page(name):
    page = (EXAMPLES / name / "README.md").read_text(encoding="utf-8")
    assert page.startswith("# ")
    assert list(commands(name)), "commands to run"
    assert "```text" in page, "what they print"
    lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in (EXAMPLES / name).glob("*.py"))
    assert lines <= 100
    if name != "own_robot":
        assert lines <= 80


def test_a_cart_is_one_of_gymnasiums(example):
    gymnasium = pytest.importorskip("gymnasium")
    from gymnasium.utils.env_checker import check_env

    example("own_environment")
    import_module("cart")
    with pytest.warns(UserWarning, match="symmetric and normalized"):
        check_env(gymnasium.make("cart/Cart-v0", render_mode="rgb_array").unwrapped)


@pytest.mark.sim
def test_a_task_of_ones_own_has_an_expert_and_an_environment(example):
    pytest.importorskip("robosuite")
    from lfm_envs.episodes import perform
    from lfm_envs.experts import expert

    example("own_task")
    environment = lfm_envs.make("stack:STACK")
    assert environment.contract.made_by == "stack:STACK"
    episode = perform(environment, expert("stack:STACK"), seed=0)
    assert episode.success
    assert len(episode.steps) < 150
    environment.close()


def test_recordings_of_ones_own_become_a_data_set_that_trains(example):
    own = example("own_data")
    own.run(SHORT)
    store = open_store("arm.zarr")
    assert (store.contract.space, store.contract.unit, len(store)) == ("joints", "deg", 40)
    with np.load("recordings/000.npz") as file:
        assert np.array_equal(store.episode(0).action, file["commands"].astype(np.float32))
    config = json.loads((own.folder / "outputs/arm/checkpoint/config.json").read_text())
    assert config["anchored"] is True, "joints are measured, so chunks count from where they are"


class TestRobot:
    @pytest.fixture
    def run(self, example):
        """The example's main function, with data beside it."""
        example("own_data").script("convert.py")
        data = str(Path("arm.zarr").resolve())
        example("own_robot")
        before = signal.getsignal(signal.SIGINT)
        yield lambda *words: runpy.run_path("run.py")["main"](data, *words)
        signal.signal(signal.SIGINT, before)

    def test_a_dry_run_moves_nothing(self, run):
        said = run("dry")
        assert said["ticks"] >= 30
        assert np.abs(said["reached"]).max() == 0

    def test_an_episode_at_30_hz_keeps_deadlines_and_limits(self, run):
        said = run()
        assert said["ticks"] + said["skipped"] == pytest.approx(90, abs=3)
        assert said["held"] == 0
        assert said["refusals"] == {}
        assert abs(said["reached"][0]) > 5


def test_pages_name_no_command_of_older_versions():
    for name in NAMES:
        page = (EXAMPLES / name / "README.md").read_text(encoding="utf-8")
        assert not re.search(r"\b(checkpoint|bundle|env)=", page)
