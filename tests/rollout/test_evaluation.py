import functools
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from lfm_envs.point_mass import CONTRACT, PointMass
from lfm_policy.errors import DataError, RolloutError
from lfm_policy.measure.statistics import wilson_interval
from lfm_policy.protocols import Observation
from lfm_policy.rollout.episode_log import EpisodeLog, read_episodes
from lfm_policy.rollout.records import EpisodeResult
from lfm_policy.rollout.runner import Runner, RunnerOptions
from tests.rollout.scripted import Breaking, Sided, Straight, ToSided, evaluate

SEEDS = range(100, 110)
IDENTITY = {"environment": "point_mass", "checkpoint": "abc", "solver": "euler", "steps": 1}
TIMING = {"chunk_ms", "policy_seconds", "wall_seconds", "workers", "attempts", "sha256"}


def run(out, seeds=SEEDS, factory=PointMass, identity=IDENTITY, **options):
    console = Console(file=io.StringIO(), width=120)
    settings = RunnerOptions(**{"workers": 2, "retries": 0, **options})
    report = evaluate(Straight(), factory, seeds, out, identity, options=settings, console=console)
    return report, console.file.getvalue()


def episodes(folder) -> list[dict]:
    lines = (folder / "episodes.jsonl").read_text().splitlines()
    rows = [{key: value for key, value in json.loads(line).items() if key not in TIMING} for line in lines]
    return sorted(rows, key=lambda row: row["seed"])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    run(out)
    return out


class TestModes:
    def test_episodes_and_report_say_which_mode_was_taken(self, tmp_path):
        policy, console = ToSided(gain=1.0), Console(file=io.StringIO(), width=120)
        report = evaluate(policy, Sided, SEEDS, tmp_path, IDENTITY, options=RunnerOptions(workers=1), console=console)
        took = {row["seed"]: (row["mode"], row["success"]) for row in episodes(tmp_path)}
        for seed, (mode, success) in took.items():
            goal = Sided().reset(seed)["goal"][0]
            assert mode == ("nearby" if abs(goal) < 0.1 else "east" if goal > 0 else "west") or not success
        names = [share.mode for share in report.modes]
        assert names[:2] == ["east", "west"]
        assert sum(share.count for share in report.modes) == len(SEEDS)
        for share in report.modes:
            mine = [success for mode, success in took.values() if (mode or "undecided") == share.mode]
            assert (share.count, share.succeeded) == (len(mine), sum(mine))
            assert share.interval == wilson_interval(len(mine), len(SEEDS))
            assert f"mode {share.mode}" in console.file.getvalue()
        assert {share.mode for share in report.modes} > {"east", "west"}, "one told otherwise is among these seeds"

    def test_copies_in_the_workers_are_told_the_same(self):
        modes = [
            [r.mode for r in Runner(ToSided(), Sided, RunnerOptions(workers=1, policy_in=place)).run(SEEDS)]
            for place in ("parent", "workers")
        ]
        assert modes[0] == modes[1]
        assert {"east", "west"} <= set(modes[0])

    def test_without_modes_nothing_is_told(self, whole):
        assert {row["mode"] for row in episodes(whole)} == {None}
        assert json.loads((whole / "summary.json").read_text())["modes"] == []


class TestResume:
    def test_after_a_failure(self, whole, tmp_path):
        with pytest.raises(RolloutError, match="lost the cube"):
            run(tmp_path, factory=functools.partial(Breaking, "raise", seed=106), workers=1)
        partial = episodes(tmp_path)
        assert [row["seed"] for row in partial] == list(range(100, 106))
        assert not (tmp_path / "summary.json").exists()
        before = (tmp_path / "episodes.jsonl").read_text()
        report, _ = run(tmp_path)
        assert (tmp_path / "episodes.jsonl").read_text().startswith(before), "finished episodes were run again"
        assert episodes(tmp_path) == episodes(whole)
        assert report.episodes == len(SEEDS)
        self._same_summary(tmp_path, whole)

    def test_after_a_half_written_line(self, whole, tmp_path):
        run(tmp_path, seeds=SEEDS[:4])
        with (tmp_path / "episodes.jsonl").open("a") as file:
            file.write('{"seed": 104, "succ')
        run(tmp_path)
        assert episodes(tmp_path) == episodes(whole)
        self._same_summary(tmp_path, whole)

    def test_a_complete_run_starts_no_worker(self, whole):
        before = (whole / "episodes.jsonl").read_bytes()
        report, _ = run(whole, factory=functools.partial(Breaking, "raise", seed=100))
        assert (whole / "episodes.jsonl").read_bytes() == before
        assert report.episodes == len(SEEDS)

    @staticmethod
    def _same_summary(one, other):
        ours, theirs = (json.loads((folder / "summary.json").read_text()) for folder in (one, other))
        for key in ("task", "success", "episodes", "interval", "nfe", "mean_steps", "median_steps", "failed_seeds"):
            assert ours[key] == theirs[key], key


class TestRefusals:
    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"checkpoint": "xyz"}, "checkpoint: there 'abc', now 'xyz'"),
            ({"steps": 4}, "steps: there 1, now 4"),
            ({"threads": 2}, "threads: there nothing, now 2"),
        ],
    )
    def test_another_run_is_not_mixed_in(self, whole, change, said):
        before = (whole / "episodes.jsonl").read_bytes()
        with pytest.raises(RolloutError, match=said):
            run(whole, identity=IDENTITY | change)
        assert (whole / "episodes.jsonl").read_bytes() == before

    def test_a_batch_of_another_size(self, whole):
        with pytest.raises(RolloutError, match="policy_batch: there 1, now 2"):
            run(whole, policy_batch=2)

    def test_a_folder_without_episodes_is_free(self, tmp_path):
        EpisodeLog(tmp_path, IDENTITY)
        EpisodeLog(tmp_path, IDENTITY | {"checkpoint": "xyz"})
        assert json.loads((tmp_path / "run.json").read_text())["checkpoint"] == "xyz"

    def test_episodes_of_an_unknown_run(self, whole, tmp_path):
        (tmp_path / "episodes.jsonl").write_text((whole / "episodes.jsonl").read_text())
        with pytest.raises(RolloutError, match=r"no run\.json"):
            EpisodeLog(tmp_path, IDENTITY)

    def test_a_damaged_line(self, tmp_path):
        log = EpisodeLog(tmp_path, IDENTITY)
        log.path.write_text('{"seed": 1}\n')
        with pytest.raises(DataError, match=r"episodes.jsonl, line 1: expected an episode"):
            EpisodeLog(tmp_path, IDENTITY)

    def test_no_episodes(self, tmp_path):
        with pytest.raises(DataError, match="no such file"):
            read_episodes(tmp_path / "episodes.jsonl")


def test_progress_shows_rate_and_failures(tmp_path):
    factory = functools.partial(Breaking, "raise", seed=101, once=str(tmp_path / "once"))
    report, shown = run(tmp_path / "out", factory=factory, retries=1)
    assert "ValueError: the simulator lost the cube" in shown
    assert "10/10" in shown
    assert f"success {report.success:.3f}" in shown
    assert "Wilson 95 % interval" in shown
    assert report.redone == 1


class Blind(PointMass):
    """A point mass on a machine without a renderer."""

    def render(self, width, height):
        raise RolloutError("no headless renderer works here: install libosmesa6")

    def reset(self, seed: int) -> Observation:
        return super().reset(seed)


class TestVideos:
    def film(self, out, factory=PointMass):
        console = Console(file=io.StringIO(), width=120)
        evaluate(Straight(), factory, SEEDS, out, IDENTITY, videos=1, console=console)
        return json.loads((out / "summary.json").read_text()), console.file.getvalue()

    def test_of_a_success_and_a_failure(self, tmp_path):
        imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
        summary, _ = self.film(tmp_path)
        results = read_episodes(tmp_path / "episodes.jsonl")
        first = {wanted: min(r.seed for r in results if r.success == wanted) for wanted in (True, False)}
        assert summary["videos"] == [f"videos/success_{first[True]}.mp4", f"videos/failure_{first[False]}.mp4"]
        assert summary["skipped"] == {}
        names = [f"{Path(name).stem}{ending}" for name in summary["videos"] for ending in (".mp4", ".jpg")]
        assert sorted(path.name for path in (tmp_path / "videos").iterdir()) == sorted(names)
        by_seed = {result.seed: result for result in results}
        for wanted, name in zip((True, False), summary["videos"], strict=True):
            frames, _ = imageio_ffmpeg.count_frames_and_secs(str(tmp_path / name))
            assert frames == by_seed[first[wanted]].steps + 1
        reader = imageio_ffmpeg.read_frames(str(tmp_path / summary["videos"][0]))
        assert tuple(next(reader)["size"]) == (256, 256)
        start = PointMass()
        start.reset(first[True])
        frame = np.frombuffer(next(reader), np.uint8).reshape(256, 256, 3).astype(float)
        reader.close()
        assert np.abs(frame - start.render(256, 256)).mean() < 5

    def test_are_skipped_with_a_reason(self, tmp_path):
        pytest.importorskip("imageio_ffmpeg")
        summary, shown = self.film(tmp_path, Blind)
        assert summary["videos"] == []
        assert "install libosmesa6" in summary["skipped"]["videos"]
        assert "no videos:" in shown


def checkpoint(folder) -> Path:
    """A small policy with random weights for the point mass."""
    from tests.bundles.policies import plain

    network = {"_target_": "lfm_policy.networks.unet1d.ConditionalUnet1d", "dims": [8, 16], "time_dim": 8}
    plain(CONTRACT, network, (0.1,), horizon=8, action_steps=4).save_pretrained(folder)
    return folder


def script(*arguments) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "lfm_cli", "evaluate", "videos=0", "episodes=3", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "120"}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, check=False)


class TestScript:
    def test_measures_a_checkpoint_and_continues(self, tmp_path):
        folder, out = checkpoint(tmp_path / "policy"), tmp_path / "out"
        done = script(f"policy={folder}", f"out={out}", "solver.steps=2")
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        summary = json.loads((out / "summary.json").read_text())
        assert (summary["task"], summary["episodes"], summary["nfe"]) == ("point_mass", 3, 4.0)
        assert summary["interval"][0] <= summary["success"] <= summary["interval"][1]
        more = script(f"policy={folder}", f"out={out}", "solver.steps=2", "workers=1", "episodes=4")
        assert more.returncode == 0, more.stderr
        assert len(read_episodes(out / "episodes.jsonl")) == 4
        refused = script(f"policy={folder}", f"out={out}", "solver.steps=3")
        assert refused.returncode == 2
        assert "steps: there 2, now 3" in refused.stderr
        assert "Traceback" not in refused.stderr

    def test_refuses_a_checkpoint_of_another_contract(self, tmp_path):
        folder = checkpoint(tmp_path / "policy")
        contract = json.loads((folder / "contract.json").read_text())
        (folder / "contract.json").write_text(json.dumps(contract | {"suite_version": "0", "control_hz": 10.0}))
        (folder / "checksums.json").unlink()  # they would refuse it first
        refused = script(f"policy={folder}", f"out={tmp_path / 'out'}", "workers=1")
        assert refused.returncode == 2
        assert "control_hz: policy" in refused.stderr
        assert "environment builtin/PointMass has 20.0" in refused.stderr
        assert not (tmp_path / "out" / "summary.json").exists()


def test_results_are_plain_lines(whole):
    results = read_episodes(whole / "episodes.jsonl")
    assert all(isinstance(result, EpisodeResult) for result in results)
    assert {result.seed for result in results} == set(SEEDS)


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Make a folder read-only for everybody, root too."""
    mounts = (["mount", "--bind", folder, folder], ["mount", "-o", "remount,bind,ro", folder])
    for command in mounts:
        if subprocess.run(command, capture_output=True, check=False).returncode != 0:
            pytest.skip("needs the right to mount a folder read-only")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_finished_evaluation_on_a_read_only_folder_shows_its_result(tmp_path, capsys):
    pytest.importorskip("imageio_ffmpeg")
    out = tmp_path / "out"

    def run(episodes: int) -> str:
        console = Console(file=io.StringIO(), width=120)
        evaluate(Straight(), PointMass, SEEDS[:episodes], out, IDENTITY, videos=1, console=console)
        return console.file.getvalue()

    run(3)
    with read_only(out):
        assert "success" in run(3)
        assert "left as it was" not in capsys.readouterr().err, "nothing had changed"
        with pytest.raises(OSError, match="Read-only"):
            run(4)
