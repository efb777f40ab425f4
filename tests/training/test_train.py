"""The training script: presets run and resume, interruptions cost nothing, refusals are clear."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lfm_cli import train
from lfm_envs.tasks import TASKS
from lfm_policy.actions.poses import moving_columns
from lfm_policy.data.windows.memory import Windows
from lfm_policy.data.windows.store import Episode, open_store, write_store
from lfm_policy.errors import CheckpointError, ConfigError, ContractError
from lfm_policy.models.policy import LFMPolicy
from lfm_policy.networks import build_blocks
from lfm_policy.training.experiments.robot import robot_experiment
from lfm_policy.training.log import read_metrics
from lfm_policy.training.loop import learning_rate
from tests.training.runs import TINY, Killed, point_mass_store, random_store, run_until, settings


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return point_mass_store(tmp_path_factory.mktemp("data") / "points.zarr")


def _weights(out: Path) -> dict[str, torch.Tensor]:
    names = ("model", "ema", "trainer")
    parts = {name: load_file(out / "checkpoint" / f"{name}.safetensors") for name in names}
    return {f"{name}/{key}": value for name, part in parts.items() for key, value in part.items()}


def _assert_same_run(left: Path, right: Path) -> None:
    ours, theirs = _weights(left), _weights(right)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
    digests = [json.loads((out / "summary.json").read_text())["digest"] for out in (left, right)]
    assert digests[0] == digests[1]


def _run_until(stop: int | None, *overrides: str) -> None:
    run_until(stop, *TINY, *overrides)


@pytest.mark.parametrize(
    ("mode", "checkpoint_seconds"), [("simulation_free", 0), ("sequential", 0), ("combined", 0), ("sequential", 1000)]
)
def test_an_interrupted_run_ends_with_the_same_weights(
    store: Path, tmp_path: Path, mode: str, checkpoint_seconds: int
) -> None:
    """Wherever the run stopped, and however long ago its last checkpoint was."""
    common = (f"data.path={store}", f"flow.mode={mode}", "updates=4", f"checkpoint_seconds={checkpoint_seconds}")
    _run_until(None, *common, f"out={tmp_path / 'whole'}")
    for stop in (3, 7):
        try:
            _run_until(stop, *common, f"out={tmp_path / 'parts'}")
        except Killed:
            continue
    _run_until(None, *common, f"out={tmp_path / 'parts'}")
    _assert_same_run(tmp_path / "whole", tmp_path / "parts")
    lines = [json.loads(line) for line in (tmp_path / "parts" / "metrics.jsonl").read_text().splitlines()]
    steps = [line["step"] for line in lines]
    assert steps == sorted(set(steps))


@pytest.mark.parametrize("other", ["contract", "rows"])
def test_a_run_continues_only_on_the_same_data_and_contract(tmp_path: Path, other: str) -> None:
    """Whatever its data set says about where it comes from."""
    contract = TASKS["lift"].contract
    data = random_store(tmp_path / "data.zarr", contract)
    common = [f"data.path={data}", f"out={tmp_path / 'run'}", "checkpoint_seconds=0"]
    with pytest.raises(Killed):
        _run_until(2, *common)
    if other == "contract":
        random_store(data, contract.model_copy(update={"suite_version": "1.4.1"}))
    else:
        random_store(data, contract, steps=21)
    with pytest.raises(CheckpointError, match="suite_version" if other == "contract" else r"source\.data"):
        _run_until(None, *common)


def test_a_run_can_be_made_longer_and_goes_on_along_the_longer_schedule(store: Path, tmp_path: Path) -> None:
    """Finished or not, and bit for bit the same when the longer one is interrupted."""
    lines = {}
    for name, stops in (("at once", (None, None)), ("in parts", (None, 6, None)), ("unfinished", (2, None))):
        common = [f"data.path={store}", f"out={tmp_path / name}", "checkpoint_seconds=0", "logging.every=1"]
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")  # of whoever gave the folder: not what is trained
        for number, stop in enumerate(stops):
            steps = 4 if number == 0 else 9
            try:
                _run_until(stop, *common, f"updates={steps}", "optimiser.warmup_steps=2")
            except Killed:
                continue
        lines[name] = read_metrics(tmp_path / name / "metrics.jsonl")
        assert [line["step"] for line in lines[name]] == list(range(1, 10))
    with pytest.raises(CheckpointError, match="has done 9 updates, more than the 5"):
        _run_until(None, *common, "updates=5", "optimiser.warmup_steps=2")
    _assert_same_run(tmp_path / "at once", tmp_path / "in parts")
    chosen = settings(*TINY, f"data.path={store}", "out=x", "updates=9", "optimiser.warmup_steps=2").optimiser
    whole = [learning_rate(step, 9, chosen) for step in range(9)]
    assert [line["learning_rate"] for line in lines["unfinished"][2:]] == whole[2:]
    assert lines["at once"][4]["learning_rate"] == whole[4] / 2  # its moments begin anew
    assert [line["learning_rate"] for line in lines["at once"][5:]] == whole[5:]


def test_a_run_of_several_phases_cannot_be_made_longer(store: Path, tmp_path: Path) -> None:
    common = [f"data.path={store}", f"out={tmp_path}", "flow.mode=sequential", "updates=2"]
    _run_until(None, *common)
    with pytest.raises(CheckpointError, match="updates: there 2, now 3"):
        _run_until(None, *common, "updates=3")


def test_a_run_can_begin_with_a_trained_policy(store: Path, tmp_path: Path) -> None:
    common = [*TINY, f"data.path={store}", "updates=2"]
    _run_until(None, f"data.path={store}", f"out={tmp_path / 'first'}")
    trained = LFMPolicy.from_pretrained(tmp_path / "first")
    begun = [*common, f"initial_weights={tmp_path / 'first'}", f"out={tmp_path / 'second'}"]
    run = settings(*begun, "seed=7")
    experiment = robot_experiment(run, run.data, torch.device("cpu"))
    assert experiment.model.digest() == trained.digest()
    run_until(None, *begun)
    assert LFMPolicy.from_pretrained(tmp_path / "second").digest() != trained.digest()
    with pytest.raises(CheckpointError, match=r"source\.initial_weights: there '.*', now nothing"):
        run_until(None, *common, f"out={tmp_path / 'second'}")
    with pytest.raises(CheckpointError, match="whose network must be the same"):
        run_until(None, *begun, "network.dims=[8,24]", f"out={tmp_path / 'third'}")
    other = random_store(tmp_path / "lift.zarr", TASKS["lift"].contract)
    with pytest.raises((CheckpointError, ContractError)):
        run_until(None, *begun, f"data.path={other}", f"out={tmp_path / 'third'}")


def _command(store: Path, out: Path, steps: int) -> list[str]:
    overrides = [*TINY, f"data.path={store}", f"out={out}", f"updates={steps}", "checkpoint_seconds=0.2"]
    return [sys.executable, "-m", "lfm_cli", "train", *overrides]


def _train_and_kill(command: list[str], checkpoint: Path, seconds: float) -> None:
    """Start training, and SIGKILL it some seconds after it has written a checkpoint."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    before = checkpoint.stat().st_mtime if checkpoint.exists() else 0
    while process.poll() is None and (not checkpoint.exists() or checkpoint.stat().st_mtime == before):
        assert time.monotonic() < deadline, "no checkpoint within two minutes"
        time.sleep(0.01)
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.mark.slow
def test_a_run_killed_at_random_moments_ends_with_the_same_weights(store: Path, tmp_path: Path) -> None:
    """Two thousand updates, SIGKILL at unpredictable moments, half-written checkpoints included."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    subprocess.run(_command(store, whole, 2000), check=True, stdout=subprocess.DEVNULL)
    for number in range(3):
        seconds = int.from_bytes(os.urandom(2), "big") / 2**16
        _train_and_kill(_command(store, parts, 2000), parts / "checkpoint" / "trainer.json", seconds + number)
    subprocess.run(_command(store, parts, 2000), check=True, stdout=subprocess.DEVNULL)
    _assert_same_run(whole, parts)
    assert [path.name for path in parts.iterdir() if path.name.startswith(".")] == []


ROBOTS = ("lift", "can", "square", "transport", "tool_hang")
BASELINES = ("shared", "fm", "interflow", "regression", "mip", "shortcut", "ddim")


@pytest.mark.parametrize(
    ("task", "method"), [*((task, "lfm") for task in ROBOTS), *(("transport", method) for method in BASELINES)]
)
def test_every_preset_trains_two_steps_and_goes_on_to_four(task: str, method: str, tmp_path: Path) -> None:
    """The experiment's own schedule and data widths; the networks are shrunk, their size has its own test."""
    data = random_store(tmp_path / "data.zarr", TASKS[task].contract)
    shrink = [o for o in TINY if not o.startswith(("experiment", "size"))]
    common = [*shrink, f"experiment=robot/{task}", f"method={method}", f"data.path={data}", f"out={tmp_path / 'run'}"]
    with pytest.raises(Killed):
        _run_until(2, *common, "epochs=null", "updates=4", "checkpoint_seconds=0")
    _run_until(None, *common, "epochs=null", "updates=4", "checkpoint_seconds=0")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["updates"] == 4
    assert summary["blocks"] == (1 if method not in ("lfm", "shared") else 2 if task == "transport" else 4)
    policy = LFMPolicy.from_pretrained(tmp_path / "run")
    contract = TASKS[task].contract
    chunk = policy.predict_action_chunk({"observation.state": torch.zeros(2, contract.observation_dim)})
    assert chunk.shape == (2, 16, contract.action_dim)


def test_quaternions_are_shown_as_rotation_rows_and_left_out_of_the_normaliser(tmp_path: Path) -> None:
    contract = TASKS["lift"].contract
    observation = np.random.default_rng(0).normal(size=(40, 19)).astype(np.float32)
    observation[:, 13:17] /= np.linalg.norm(observation[:, 13:17], axis=1, keepdims=True)
    episode = Episode(observation, np.random.default_rng(1).normal(size=(40, 10)).astype(np.float32))
    write_store(tmp_path / "data.zarr", [episode], contract, {"train": [0], "valid": []}, {"kind": "random"})
    for normaliser in ("standard", "scalar"):
        chosen = ["data.rotation_rows=true", f"data.observation_normalizer={normaliser}"]
        run = settings(*TINY, "experiment=robot/lift", *chosen, f"data.path={tmp_path / 'data.zarr'}", "out=x")
        experiment = robot_experiment(run, run.data, torch.device("cpu"))
        policy = experiment.model
        assert policy.spec.quaternions == (13,)
        assert experiment.pool.take(torch.arange(3)).cond.shape == (3, 2 * 21)
        assert (policy.encoding.observation_normalizer.scale[13:17] == 1).all()
        assert (policy.encoding.observation_normalizer.scale[:13] != 1).all()
        assert (policy.encoding.observation_normalizer.offset[13:17] == 0).all()


def test_anchored_windows_count_from_the_hands(tmp_path: Path) -> None:
    """In memory and on disk alike; poses have zero mean and unit variance at every step, grippers are as they were."""
    path = random_store(tmp_path / "data.zarr", TASKS["transport"].contract)
    policies, samples = [], []
    for resident in ("true", "false"):
        common = [*TINY, "experiment=robot/transport", "data.anchored=true", f"data.resident={resident}"]
        run = settings(*common, f"data.path={path}", f"out={tmp_path / 'run'}")
        experiment = robot_experiment(run, run.data, torch.device("cpu"))
        policies.append(experiment.model)
        samples.append(experiment.pool.take(torch.arange(len(experiment.pool))))
    assert torch.equal(samples[0].x, samples[1].x)
    poses = samples[0].x[..., moving_columns(TASKS["transport"].contract)]
    torch.testing.assert_close(poses.mean(0), torch.zeros(16, 18), atol=1e-5, rtol=0)
    torch.testing.assert_close(poses.std(0, correction=0), torch.ones(16, 18), atol=1e-5, rtol=0)
    store = open_store(path)
    windows = Windows.from_store(store)
    expected = windows.gather(torch.arange(len(windows))).action
    assert torch.equal(samples[0].x[..., [9, 19]], expected[..., [9, 19]])


@pytest.mark.parametrize(
    ("overrides", "found"),
    [
        (("experiment=robot/lift",), {"blocks": 4, "gammas": (0.15, 0.1875, 0.234375), "epochs": 200}),
        (("experiment=robot/can",), {"blocks": 4, "gammas": (0.2, 0.25, 0.3125), "epochs": 500}),
        (("experiment=robot/square",), {"blocks": 4, "gammas": (0.2, 0.2, 0.2), "epochs": 750}),
        (("experiment=robot/transport",), {"blocks": 2, "gammas": (0.5,), "epochs": 1500}),
        (("experiment=robot/tool_hang",), {"blocks": 4, "gammas": (0.25, 0.3125, 0.390625), "epochs": 200}),
        (("experiment=robot/lift", "method=fm"), {"blocks": 1, "gammas": (), "epochs": 200}),
    ],
)
def test_presets_are_the_rows_of_table_a3(overrides: tuple[str, ...], found: dict[str, Any]) -> None:
    preset = settings(*overrides, "out=x", "data.path=y")
    schedule = preset.flow.schedule()
    assert schedule.blocks == found["blocks"]
    assert schedule.gammas == pytest.approx(found["gammas"])
    assert (preset.epochs, preset.batch, preset.optimiser.learning_rate) == (found["epochs"], 256, 1e-4)


@pytest.mark.parametrize("size", ["paper", "small", "tiny"])
@pytest.mark.parametrize("task", ["lift", "can", "square", "transport", "tool_hang"])
def test_a_chain_has_as_many_parameters_as_the_global_flow(task: str, size: str) -> None:
    contract, counts = TASKS[task].contract, []
    for method in ("lfm", "fm"):
        preset = settings(f"experiment=robot/{task}", f"size={size}", f"method={method}", "out=x", "data.path=y")
        with torch.device("meta"):
            blocks = build_blocks(
                preset.block_network,
                preset.flow.schedule().blocks,
                action_dim=contract.action_dim,
                cond_dim=2 * contract.observation_dim,
            )
        counts.append(sum(parameter.numel() for parameter in blocks.parameters()))
    assert counts[0] == pytest.approx(counts[1], rel=0.1)


def test_a_checkpoint_of_other_settings_is_not_continued(store: Path, tmp_path: Path) -> None:
    common = (f"data.path={store}", f"out={tmp_path / 'run'}", "updates=2")
    _run_until(None, *common)
    before = _weights(tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"optimiser\.learning_rate: there 0\.001, now 0\.01"):
        _run_until(None, *common, "optimiser.learning_rate=0.01")
    assert all(torch.equal(value, before[name]) for name, value in _weights(tmp_path / "run").items())


def test_a_damaged_checkpoint_is_named(store: Path, tmp_path: Path) -> None:
    common = (f"data.path={store}", f"out={tmp_path / 'run'}", "updates=2")
    _run_until(None, *common)
    damaged = tmp_path / "run" / "checkpoint" / "ema.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="is damaged or was changed"):
        _run_until(None, *common)
    with pytest.raises(CheckpointError, match="is damaged or was changed"):
        LFMPolicy.from_pretrained(tmp_path / "run")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["updates=4", "epochs=2"], r"found updates=4, epochs=2\.0$"),
        (["batch={rows: 3}"], r"'batch': .*; found \{'rows': 3\}"),
        (["optimiser.learning_rat=1"], "did you mean 'optimiser.learning_rate'"),
        (["size=tinny"], "did you mean 'tiny'"),
        (["experiment=robot/lif"], "did you mean 'robot/lift'"),
        (["flow.mode=seq"], "'sequential', 'simulation_free' or 'combined'"),
        (["device=gpu", "updates=2"], "device=gpu: torch cannot compute there"),
        (["steps"], "expected key=value"),
        (["+network.kernels=3", "updates=2"], "refuses"),
        (["network._target_=lfm_policy.networks.Unet1d", "updates=2"], "did you mean 'ConditionalUnet1d'"),
    ],
)
def test_bad_settings_are_explained(store: Path, tmp_path: Path, overrides: list[str], message: str) -> None:
    out = tmp_path / "run"
    with pytest.raises(ConfigError, match=message):
        train.main(settings(*TINY, f"data.path={store}", f"out={out}", *overrides))
    assert not (out / "checkpoint").exists()


def test_missing_settings_are_listed() -> None:
    with pytest.raises(ConfigError, match=r"missing: out=VALUE, data\.path=VALUE"):
        settings("experiment=robot/lift")


def test_snapshots_are_the_averaged_policy_along_the_run(tmp_path: Path) -> None:
    """Each loads as a checkpoint; the last is the run's own moving average, also after an interruption."""
    data = point_mass_store(tmp_path / "data.zarr")
    common = [*TINY, f"data.path={data}", f"out={tmp_path / 'run'}", "epochs=null", "updates=6", "snapshots=3"]
    with pytest.raises(Killed):
        _run_until(3, *common, "checkpoint_seconds=0")
    _run_until(None, *common)
    folders = sorted((tmp_path / "run" / "snapshots").iterdir())
    assert [folder.name for folder in folders] == ["step_0000002", "step_0000004", "step_0000006"]
    digests = [LFMPolicy.from_pretrained(folder).digest() for folder in folders]
    assert digests[-1] == LFMPolicy.from_pretrained(tmp_path / "run").digest()
    assert len(set(digests)) == 3


def test_data_read_from_disk_train_the_same_weights(store: Path, tmp_path: Path) -> None:
    """Bit for bit, also where the run goes on from a checkpoint of the one in memory."""
    common = (f"data.path={store}", "updates=4", "checkpoint_seconds=0")
    _run_until(None, *common, f"out={tmp_path / 'held'}", "data.resident=true")
    with pytest.raises(Killed):
        _run_until(2, *common, f"out={tmp_path / 'streamed'}", "data.resident=true")
    _run_until(None, *common, f"out={tmp_path / 'streamed'}", "data.resident=false")
    _assert_same_run(tmp_path / "held", tmp_path / "streamed")
