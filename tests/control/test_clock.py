import time

import pytest

from lfm_policy.control.clock import MonotonicClock, Pace, Tick, Ticker
from tests.control.robots import FakeClock


class TestTicker:
    def test_deadlines_are_absolute(self):
        clock = FakeClock()
        ticker = Ticker(20.0, clock)
        for k in range(1000):
            tick = ticker.wait()
            clock.time += 0.013 if k % 2 else 0.049
            assert (tick.index, tick.skipped) == (k, 0)
            assert tick.due == pytest.approx(100 + k / 20, abs=1e-9)

    def test_a_late_tick_delays_none_of_the_next(self):
        clock = FakeClock()
        ticker = Ticker(20.0, clock)
        ticker.wait()
        clock.time += 0.06
        late = ticker.wait()
        assert (late.index, late.skipped, late.due) == (1, 0, pytest.approx(100.05))
        assert clock.time == pytest.approx(100.06), "already due: no sleep"
        ticker.wait()
        assert clock.time == pytest.approx(100.10)

    def test_ticks_that_are_over_are_skipped_and_counted(self):
        clock = FakeClock()
        ticker = Ticker(20.0, clock)
        ticker.wait()
        clock.time = 100.23
        tick = ticker.wait()
        assert (tick.index, tick.due, tick.skipped) == (4, pytest.approx(100.2), 3)

    def test_catch_up_serves_the_tick_that_it_is(self):
        clock = FakeClock()
        ticker = Ticker(20.0, clock)
        ticker.wait()
        clock.time = 100.12
        assert ticker.catch_up() == 2
        tick = ticker.wait()
        assert (tick.index, tick.due, tick.skipped) == (3, pytest.approx(100.15), 0)

    def test_real_time(self):
        ticker = Ticker(100.0, MonotonicClock(), time.monotonic() + 0.01)
        started = time.monotonic()
        last = [ticker.wait() for _ in range(20)][-1]
        assert time.monotonic() - started >= 0.19
        assert time.monotonic() >= last.due


class TestPace:
    def test_counts_what_is_later_than_the_tolerance_and_what_never_came(self):
        pace = Pace(tolerance_ms=10.0)
        for k, late in enumerate([0.001, 0.009, 0.011, 0.030]):
            pace.served(Tick(k, 5.0, 2 if k == 3 else 0), 5.0 + late)
        found = pace.summary()
        assert (found["ticks"], found["skipped"], found["missed"]) == (4, 2, 4)
        assert found["late_ms_max"] == pytest.approx(30)
        assert found["late_ms_p50"] == pytest.approx(10)

    def test_adds_up(self):
        total, one = Pace(), Pace()
        one.served(Tick(0, 0.0, 1), 0.02)
        total.extend(one)
        total.extend(one)
        assert total.missed == 4
        assert Pace().summary()["missed"] == 0
