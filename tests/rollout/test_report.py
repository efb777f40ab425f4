import json
import math
from math import comb

import numpy as np
import pytest

from lfm_policy.errors import RolloutError
from lfm_policy.rollout.plot import plot
from lfm_policy.rollout.records import EpisodeResult
from lfm_policy.rollout.report import paired_comparison, rows, summarize, wilson_interval, write_markdown


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


class TestWilson:
    # Newcombe (1998), Statistics in Medicine 17:857-872, Table I, method 3.
    @pytest.mark.parametrize(
        ("successes", "episodes", "low", "high"),
        [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
    )
    def test_published_values(self, successes, episodes, low, high):
        assert wilson_interval(successes, episodes) == pytest.approx((low, high), abs=5e-5)

    def test_symmetry_and_ends(self):
        low, high = wilson_interval(37, 50)
        assert wilson_interval(13, 50) == pytest.approx((1 - high, 1 - low))
        assert wilson_interval(0, 50)[0] == 0.0
        assert wilson_interval(50, 50)[1] == 1.0
        assert wilson_interval(0, 0) == (0.0, 1.0)
        with pytest.raises(ValueError, match="51 of 50"):
            wilson_interval(51, 50)

    def test_covers_the_truth_as_often_as_it_says(self):
        """Exact coverage, averaged over rates: nominal 95 %."""
        n, rates = 50, np.linspace(0.02, 0.98, 97)
        coverage = [
            sum(
                comb(n, k) * p**k * (1 - p) ** (n - k)
                for k in range(n + 1)
                if wilson_interval(k, n)[0] <= p <= wilson_interval(k, n)[1]
            )
            for p in rates
        ]
        assert np.mean(coverage) == pytest.approx(0.95, abs=0.005)


class TestPaired:
    def test_known_answer(self):
        """1600 voters asked twice (Agresti, Categorical Data Analysis, section 10.1): 150 against 86 changed."""
        outcomes = [(True, True)] * 794 + [(True, False)] * 150 + [(False, True)] * 86 + [(False, False)] * 570
        first = {seed: ours for seed, (ours, _) in enumerate(outcomes)}
        second = {seed: theirs for seed, (_, theirs) in reversed(list(enumerate(outcomes)))}
        result = paired_comparison(first, second)
        assert (result.episodes, result.only_first, result.only_second) == (1600, 150, 86)
        assert result.difference == pytest.approx(0.04)
        # by hand: (151 - 87) / 1602 ± 1.96 sqrt((238 / 1602 - 0.03995²) / 1602)
        assert result.interval == pytest.approx((0.021176, 0.058724), abs=2e-6)
        mirrored = paired_comparison(second, first)
        assert mirrored.interval == pytest.approx((-result.interval[1], -result.interval[0]))

    def test_equal_runs_still_have_an_interval(self):
        run = dict.fromkeys(range(50), True)
        low, high = paired_comparison(run, run).interval
        assert low == pytest.approx(-high)
        assert 0.03 < high < 0.08

    def test_other_seeds(self):
        with pytest.raises(RolloutError, match="2 and 2 episodes, of which 1"):
            paired_comparison({1: True, 2: True}, {2: True, 3: True})


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

    def test_nothing(self):
        with pytest.raises(RolloutError, match="at least one episode"):
            summarize([])

    def test_plot(self, tmp_path):
        pytest.importorskip("matplotlib")
        for number, successes in enumerate(([True, False, True], [False, False])):
            path = tmp_path / f"{number}.png"
            assert plot(path, "Title", [episode(seed, s) for seed, s in enumerate(successes)]) is None
            assert path.read_bytes().startswith(b"\x89PNG")


def test_interval_of_hundred_of_hundred():
    z = 1.959964
    assert wilson_interval(100, 100)[0] == pytest.approx(1 / (1 + z * z / 100))
    assert math.isclose(wilson_interval(98, 100)[0], 0.9300, abs_tol=5e-5)
