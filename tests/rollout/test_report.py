import json

import numpy as np
import pytest

from lfm_policy.errors import RolloutError
from lfm_policy.rollout.plot import plot
from lfm_policy.rollout.records import EpisodeResult
from lfm_policy.rollout.report import rows, summarize, wilson_interval, write_markdown
from tests.contracts import JOINTS


def episode(
    seed: int, success: bool, steps: int = 20, chunk_ms: tuple[float, ...] = (10.0, 20.0, 30.0)
) -> EpisodeResult:
    return EpisodeResult(
        seed=seed,
        success=success,
        steps=steps,
        steps_to_success=steps if success else None,
        chunks=len(chunk_ms),
        nfe=4 * len(chunk_ms),
        final_reward=float(success),
        digest="0" * 16,
        chunk_ms=chunk_ms,
        policy_seconds=sum(chunk_ms) / 1000,
        wall_seconds=6.0,
        workers=2,
    )


class TestReport:
    def test_numbers(self):
        report = summarize(
            [episode(1, True, 10), episode(2, False, 60, (40.0,)), episode(3, True, 20), episode(4, True, 60)]
        )
        assert (report.success, report.episodes, report.failed_seeds) == (0.75, 4, (2,))
        assert report.interval == wilson_interval(3, 4)
        assert (report.mean_steps, report.median_steps) == (30.0, 20.0)
        assert report.nfe == 4.0
        assert report.ms_per_chunk == 20.0
        assert report.ms_per_chunk_p95 == pytest.approx(np.percentile([10, 20, 30] * 3 + [40], 95))
        assert report.episodes_per_minute == pytest.approx(4 / (4 * 6 / 2) * 60)

    def test_no_success_and_no_nan(self, tmp_path):
        results = [episode(seed, False, 60) for seed in (8, 7)]
        report = summarize(results)
        assert (report.mean_steps, report.median_steps) == (None, None)
        json.dumps(report.model_dump(mode="json"), allow_nan=False)
        assert all("nan" not in value for _, value in rows(report))
        write_markdown(tmp_path / "report.md", "Title", report, results)
        text = (tmp_path / "report.md").read_text()
        assert "| success | 0.000 (0 of 2) |" in text
        assert text.index("| 7 |") < text.index("| 8 |")
        assert "nan" not in text.lower()

    def test_a_score_that_the_contract_declares_is_reported(self):
        pushed = JOINTS.model_copy(update={"score": "largest_reward"})
        results = [episode(n, False).model_copy(update={"largest_reward": r}) for n, r in enumerate((0.5, 0.7, 0.9))]
        report = summarize(results, pushed)
        assert report.mean_score == pytest.approx(0.7)
        assert report.score_interval == pytest.approx(
            (0.7 - 4.3027 * 0.2 / 3**0.5, 0.7 + 4.3027 * 0.2 / 3**0.5), abs=1e-4
        )
        assert ("largest reward, mean", "0.700") in rows(report)
        assert report.unit == "deg"
        assert not any("reward" in label for label, _ in rows(summarize(results)))

    def test_nothing(self):
        with pytest.raises(RolloutError, match="at least one episode"):
            summarize([])

    def test_plot(self, tmp_path):
        pytest.importorskip("matplotlib")
        for number, successes in enumerate(([True, False, True], [False, False])):
            path = tmp_path / f"{number}.png"
            assert plot(path, "Title", [episode(seed, s) for seed, s in enumerate(successes)]) is None
            assert path.read_bytes().startswith(b"\x89PNG")
