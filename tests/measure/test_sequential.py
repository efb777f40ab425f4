"""Errors of the sequential test against what it promises, by simulation and by hand."""

import itertools

import numpy as np
import pytest

from lfm_policy.measure.sequential import Clarity, PairedTest, log_wealth


def _counts(rates: tuple[float, float], runs: int, pairs: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts (runs, pairs) of D = 1, -1 and 0 so far, where `rates` are the probabilities of the first two."""
    draws = np.random.default_rng(0).random((runs, pairs))
    first, second = draws < rates[0], draws > 1 - rates[1]
    return first.cumsum(1), second.cumsum(1), (~first & ~second).cumsum(1)


class TestErrors:
    @pytest.mark.parametrize("rate", [0.02, 0.2, 0.5])
    def test_equal_policies_are_told_apart_no_more_often_than_alpha(self, rate: float) -> None:
        """Looked at after every one of 600 pairs; each side may be wrong in 0.05 of the runs, both in 0.1."""
        first, second, ties = _counts((rate, rate), 1000, 600)
        level = np.log(1 / 0.05)
        wrong = [
            (log_wealth(*counts, 0.0) >= level).any(1) for counts in ((first, second, ties), (second, first, ties))
        ]
        error = 3 * np.sqrt(0.05 * 0.95 / 1000)
        assert all(side.mean() <= 0.05 + error for side in wrong)

    def test_a_fixed_test_that_is_looked_at_again_and_again_is_wrong_far_more_often(self) -> None:
        """The simulation can tell: the sign test at 5 %, looked at after every pair."""
        first, second, _ = _counts((0.2, 0.2), 500, 1000)
        unequal = first + second
        wrong = (np.abs(first - second) > 1.96 * np.sqrt(np.maximum(unequal, 1))) & (unequal > 10)
        assert wrong.any(1).mean() > 0.25

    def test_the_interval_holds_the_truth_at_all_looks_at_once(self) -> None:
        generator = np.random.default_rng(1)
        missed = 0
        for _ in range(100):
            test = PairedTest()
            for _ in range(8):
                draws = generator.random((25, 2))
                found = test.add(zip(draws[:, 0] < 0.8, draws[:, 1] < 0.65, strict=True))
                if not found.interval[0] <= 0.15 <= found.interval[1]:
                    missed += 1
                    break
        assert missed <= 0.05 * 100

    def test_nobody_wins_on_average_against_a_true_claim(self) -> None:
        """All outcomes of three pairs with E[D] equal to the claim: the mean wealth is 1, exactly."""
        chances, claim = {1: 0.5, -1: 0.2, 0: 0.3}, 0.3
        mean = 0.0
        for outcome in itertools.product(chances, repeat=3):
            counts = [outcome.count(value) for value in (1, -1, 0)]
            mean += np.prod([chances[value] for value in outcome]) * np.exp(log_wealth(*counts, claim))
        assert mean == pytest.approx(1)


class TestPower:
    def _pairs(self, first: float, second: float, options: Clarity, runs: int = 25) -> tuple[list[str], float]:
        """Verdicts, and the mean number of pairs until there is one, at most 600, looking after every ten."""
        generator = np.random.default_rng(2)
        verdicts, pairs = [], []
        for _ in range(runs):
            test, found = PairedTest(options), None
            while found is None or (found.verdict == "undecided" and found.pairs < 600):
                found = test.add(zip(*(generator.random((2, 10)) < [[first], [second]]), strict=True))
            verdicts.append(found.verdict)
            pairs.append(found.pairs)
        return verdicts, float(np.mean(pairs))

    def test_a_clear_difference_is_found_early(self) -> None:
        """0.9 against 0.6: a fixed test with 90 % power needs 40 pairs or so, known in advance."""
        verdicts, pairs = self._pairs(0.9, 0.6, Clarity())
        assert set(verdicts) == {"better"}
        assert pairs < 80
        verdicts, _ = self._pairs(0.6, 0.9, Clarity())
        assert set(verdicts) == {"worse"}

    def test_equal_policies_are_found_equal(self) -> None:
        verdicts, pairs = self._pairs(0.97, 0.97, Clarity(margin=0.1))
        assert verdicts.count("equal") >= 0.9 * len(verdicts)
        assert pairs < 300


class TestVerdicts:
    def test_by_hand(self) -> None:
        """Ten pairs that only the first wins, against E[D] <= 0: the mean over stakes k of (1 + k)^10."""
        stakes = [0.95 / 2**i for i in range(8)]
        assert np.exp(log_wealth(10, 0, 0, 0.0)) == pytest.approx(np.mean([(1 + k) ** 10 for k in stakes]))
        assert PairedTest().add([(True, False)] * 10).verdict == "better"
        assert PairedTest().add([(True, False)] * 3).verdict == "undecided"

    def test_order_and_portions_do_not_matter_for_the_money(self) -> None:
        pairs = [(True, False)] * 6 + [(False, True)] * 2 + [(True, True)] * 9
        whole = PairedTest().add(pairs)
        test = PairedTest()
        for pair in reversed(pairs):
            portions = test.add([pair])
        assert (portions.pairs, portions.difference) == (whole.pairs, whole.difference)
        assert portions.interval[0] >= whole.interval[0]
        assert portions.interval[1] <= whole.interval[1]

    def test_the_other_way_round(self) -> None:
        pairs = [(True, False)] * 7 + [(False, True)] * 3 + [(False, False)] * 20
        there, back = PairedTest().add(pairs), PairedTest().add([(b, a) for a, b in pairs])
        assert there.interval == pytest.approx((-back.interval[1], -back.interval[0]))
        assert there.difference == -back.difference

    def test_nothing_is_known_at_first(self) -> None:
        found = PairedTest().look()
        assert (found.verdict, found.interval, found.pairs) == ("undecided", (-1, 1), 0)
