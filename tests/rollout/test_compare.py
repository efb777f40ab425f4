"""Two scripted policies on the same seeds: stops early, goes on, and says what it found."""

import io
import json

import pytest
from rich.console import Console

from lfm_envs.point_mass import PointMass
from lfm_policy.errors import ConfigError
from lfm_policy.measure.sequential import Clarity
from lfm_policy.rollout.compare import EXIT_CODES, compare, sentence
from lfm_policy.rollout.episode_log import read_episodes
from lfm_policy.rollout.evaluation import Evaluation
from lfm_policy.rollout.runner import RunnerOptions
from tests.rollout.scripted import Straight

SEEDS = range(100, 400)


def evaluation(name: str, gain: float, **changes) -> Evaluation:
    """A policy that is too slow for some starts where `gain` is small."""
    identity = {"environment": "point_mass", "checkpoint": name}
    return Evaluation(Straight(gain=gain), PointMass, identity, name, RunnerOptions(workers=2), **changes)


def compared(out, first: float, second: float, seeds=SEEDS, **options):
    console = Console(file=io.StringIO(), width=120)
    found = compare(evaluation("a", first), evaluation("b", second), seeds, out, console=console, **options)
    return found, console.file.getvalue()


def test_stops_when_it_is_clear_and_goes_on_where_it_was(tmp_path):
    begun, _ = compared(tmp_path, 1.0, 0.4, seeds=SEEDS[:5], look_every=5)
    assert begun.verdict == "undecided"
    found, shown = compared(tmp_path, 1.0, 0.4)
    assert found.verdict == "better"
    assert found.interval[0] > 0
    assert found.pairs < 100
    played = [read_episodes(folder / "episodes.jsonl") for folder in (tmp_path, tmp_path / "against")]
    assert [len(episodes) for episodes in played] == [found.pairs, found.pairs], "each seed once, by both"
    success = [{episode.seed: episode.success for episode in episodes} for episodes in played]
    assert found.only_first == sum(success[0][seed] and not success[1][seed] for seed in success[0])
    assert json.loads((tmp_path / "comparison.json").read_text()) == json.loads(found.model_dump_json())
    assert shown.splitlines()[-1].startswith(f"{found.pairs} pairs: difference +")


def test_worse_and_equal(tmp_path):
    worse, _ = compared(tmp_path / "worse", 0.4, 1.0)
    assert worse.verdict == "worse"
    assert sentence(worse, "a", "b").startswith("WORSE: a than b; success differs by -")
    equal, _ = compared(tmp_path / "equal", 1.0, 1.0, clarity=Clarity(margin=0.2), look_every=20)
    assert equal.verdict == "equal"
    assert sentence(equal, "a", "b").startswith("EQUAL WITHIN 0.2: a and b; success differs by +0.000")


def test_what_a_machine_is_told():
    assert EXIT_CODES == {"better": 0, "equal": 0, "worse": 1, "undecided": 3}


def test_refusals(tmp_path):
    with pytest.raises(ConfigError, match="backend=local"):
        compare(evaluation("a", 1.0, backend="ray"), evaluation("b", 1.0), SEEDS, tmp_path)
    with pytest.raises(ConfigError, match="found 0 and look_every"):
        compare(evaluation("a", 1.0), evaluation("b", 1.0), [], tmp_path)
