"""What pulls the emergency stop: a person, a signal, a key, a function."""

import os
import pty
import signal
import termios
import time

import pytest

from lfm_policy.control.stops import SIGNALS, EmergencyStop, keys_pull, signals_pull


def pulled_soon(stop):
    deadline = time.monotonic() + 5
    while not stop.pulled and time.monotonic() < deadline:
        time.sleep(0.005)
    return stop.pulled


def test_is_a_latch():
    stop = EmergencyStop()
    assert not stop.ask()
    stop.pull("a person in the cell")
    stop.pull("something else")
    assert stop.pulled
    assert stop.ask()
    assert stop.reason == "a person in the cell"


@pytest.mark.parametrize(
    ("answer", "reason"), [(False, None), ("", None), (None, None), (True, "asked for"), ("the pedal", "the pedal")]
)
def test_a_function_is_asked(answer, reason):
    stop = EmergencyStop(lambda: answer)
    assert stop.ask() == (reason is not None)
    assert stop.reason == (reason or "")


def test_a_function_that_fails_has_pulled():
    def broken():
        raise OSError("no such pin")

    stop = EmergencyStop(broken)
    assert stop.ask()
    assert stop.reason == "what was asked failed: OSError: no such pin"


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_pulls(number):
    stop, before = EmergencyStop(), signal.getsignal(number)
    with signals_pull(stop):
        os.kill(os.getpid(), number)
        assert pulled_soon(stop)
    assert stop.reason == f"signal {number.name}"
    assert signal.getsignal(number) == before


def test_the_second_interrupt_ends_the_program():
    with signals_pull(EmergencyStop()), pytest.raises(KeyboardInterrupt):  # noqa: PT012
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)


@pytest.mark.parametrize("pressed", [b" ", b"\n", b"q", b""])
def test_any_key_of_the_terminal_pulls(pressed):
    keys, terminal = pty.openpty()
    try:
        stop, before = EmergencyStop(), termios.tcgetattr(terminal)
        with keys_pull(stop, terminal):
            if pressed:
                os.write(keys, pressed)
                assert pulled_soon(stop)
        assert stop.pulled == bool(pressed)
        assert stop.reason == ("a key" if pressed else "")
        assert termios.tcgetattr(terminal) == before, "the terminal is as it was"
    finally:
        os.close(keys)
        os.close(terminal)


def test_a_terminal_that_is_closed_pulls():
    keys, terminal = pty.openpty()
    stop = EmergencyStop()
    with keys_pull(stop, terminal):
        os.close(keys)
        assert pulled_soon(stop)
    os.close(terminal)


def test_no_key_is_waited_for_without_a_terminal():
    read, write = os.pipe()
    stop = EmergencyStop()
    with keys_pull(stop):  # standard input of tests is none
        os.write(write, b"x")
    assert not stop.pulled
    os.close(read)
    os.close(write)
