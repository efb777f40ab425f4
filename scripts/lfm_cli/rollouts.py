"""Rollouts that other verbs ask for: `lfm evaluate` in a process of its own, continued when interrupted."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lfm_cli.stages import Stage, run
from lfm_policy.files import read_json
from lfm_policy.measure.statistics import PairedComparison, paired_comparison
from lfm_policy.rollout.episode_log import read_episodes


@dataclass(frozen=True)
class Rollouts:
    """A finished evaluation."""

    summary: Mapping[str, Any]
    success: Mapping[int, bool]
    """Success by seed."""

    def minus(self, other: "Rollouts") -> PairedComparison:
        """Return the difference of the success rates, on the same seeds."""
        return paired_comparison(self.success, other.success)


def rollouts(label: str, out: Path, **settings: Any) -> Rollouts:
    """Evaluate with the given settings of `lfm evaluate`, unless it is done, in `out`/<label>.

    Raises:
        LFMError: the evaluation failed; its own message is on the terminal.
    """
    given = {key: value for key, value in settings.items() if value is not None}
    first, episodes = given["seed"], given["episodes"]
    run(Stage(f"evaluate_{label}", {**given, "videos": 0, "out": out / label}), out / f"{label}.stages.json")
    results = read_episodes(out / label / "episodes.jsonl")
    success = {r.seed: r.success for r in results if first <= r.seed < first + episodes}
    return Rollouts(read_json(out / label / "summary.json"), success)
