"""Intervals against published values, and their coverage against what they promise."""

import math
from math import comb

import numpy as np
import pytest

from lfm_policy.errors import RolloutError
from lfm_policy.measure.statistics import (
    auroc,
    auroc_interval,
    balanced_accuracy,
    paired_comparison,
    wilson_interval,
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


def test_interval_of_hundred_of_hundred():
    z = 1.959964
    assert wilson_interval(100, 100)[0] == pytest.approx(1 / (1 + z * z / 100))
    assert math.isclose(wilson_interval(98, 100)[0], 0.9300, abs_tol=5e-5)


class TestAuroc:
    def test_known_cases(self):
        for usual, unusual, value in (([0, 1, 2], [3, 4], 1), ([3, 4], [0, 1, 2], 0), ([1, 2, 3], [1, 2, 3], 0.5)):
            assert auroc(np.array(usual), np.array(unusual)) == value
        assert auroc(np.array([0, 2]), np.array([1, 3])) == 0.75

    def test_two_normals(self):
        """For N(0, 1) against N(1, 1) it is Φ(1/√2) = 0.7602."""
        generator = np.random.default_rng(0)
        usual, unusual = generator.normal(size=2000), generator.normal(size=2000) + 1
        assert auroc(usual, unusual) == pytest.approx(0.7602, abs=0.02)
        low, high = auroc_interval(usual[:200], unusual[:200])
        assert low < 0.7602 < high
        assert 0.05 < high - low < 0.15

    def test_needs_both_sides(self):
        with pytest.raises(ValueError, match="found 0 and 1"):
            auroc([], [1.0])

    def test_perfect_scores_leave_a_doubt_that_shrinks(self):
        few, many = (auroc_interval(np.zeros(n), np.ones(n)) for n in (10, 1000))
        assert few[1] == many[1] == 1
        assert 0.6 < few[0] < 0.9 < 0.99 < many[0] < 1
        worst = auroc_interval(np.ones(10), np.zeros(10))
        assert worst == pytest.approx((0, 1 - few[0]))

    def test_intervals_hold_the_truth_as_often_as_they_say(self):
        """Φ(1.5/√2) = 0.8556 for N(0, 1) against N(1.5, 1), thirty episodes each."""
        generator = np.random.default_rng(1)
        intervals = [auroc_interval(generator.normal(size=30), generator.normal(size=30) + 1.5) for _ in range(300)]
        assert 0.92 < np.mean([low <= 0.8556 <= high for low, high in intervals]) <= 1


class TestBalancedAccuracy:
    def test_is_the_mean_of_two_shares_with_an_interval_that_is_never_empty(self):
        value, (low, high) = balanced_accuracy(24, 30, 28, 30)
        assert value == pytest.approx((24 / 30 + 28 / 30) / 2)
        assert low < value < high
        perfect, (low, high) = balanced_accuracy(30, 30, 30, 30)
        assert perfect == high == 1
        assert low == pytest.approx(1 - math.sqrt(2) / 2 * (1 - wilson_interval(30, 30)[0]))
        # it does not matter which of the two is which
        assert balanced_accuracy(24, 30, 28, 40) == balanced_accuracy(28, 40, 24, 30)

    def test_covers_what_it_should(self):
        rng, covered = np.random.default_rng(0), 0
        for hits, passes in zip(rng.binomial(30, 0.8, 500), rng.binomial(40, 0.95, 500), strict=True):
            _, (low, high) = balanced_accuracy(int(hits), 30, int(passes), 40)
            covered += low <= 0.875 <= high
        assert covered / 500 > 0.93

    def test_needs_both_kinds(self):
        with pytest.raises(ValueError, match="both kinds"):
            balanced_accuracy(0, 0, 3, 5)
