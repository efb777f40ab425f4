"""The emergency stop, and what pulls it: a signal, a key, a function of the user's, or the program itself."""

import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)

Asked = Callable[[], object]
"""A pedal, a light barrier, a watchdog: true, or a text that says why, pulls the stop."""


class EmergencyStop:
    """A latch that anyone may pull, from any thread; nobody releases it.

    Args:
        asked: called before every command.
    """

    def __init__(self, asked: Asked | None = None) -> None:
        self._pulled, self._asked, self.reason = threading.Event(), asked, ""

    def pull(self, reason: str) -> None:
        """Stop the robot, now and for good."""
        if not self._pulled.is_set():
            self.reason = reason
            self._pulled.set()

    def ask(self) -> bool:
        """Ask whether to stop, and tell whether somebody has pulled; who cannot answer has pulled."""
        if self._asked is not None and not self.pulled:
            try:
                answer = self._asked()
            except Exception as error:
                answer = f"what was asked failed: {type(error).__name__}: {error}"
            if answer:
                self.pull(answer if isinstance(answer, str) else "asked for")
        return self.pulled

    @property
    def pulled(self) -> bool:
        """Tell whether somebody has."""
        return self._pulled.is_set()


@contextmanager
def signals_pull(stop: EmergencyStop) -> Iterator[None]:
    """Let Ctrl-C, SIGTERM and SIGUSR1 pull; the second Ctrl-C ends the program as usual."""

    def pull(number: int, frame: object) -> None:
        if stop.pulled and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.pull(f"signal {signal.Signals(number).name}")

    before = {number: signal.signal(number, pull) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def keys_pull(stop: EmergencyStop, keyboard: int | None = None) -> Iterator[None]:
    """Let any key pull that is pressed in the terminal which the program runs in; nothing where it runs in none.

    Args:
        stop: the emergency stop.
        keyboard: file descriptor of the terminal; standard input if None.
    """
    terminal = _own_terminal() if keyboard is None else keyboard
    if terminal is None:
        yield
        return
    import termios  # not on every system
    import tty

    before = termios.tcgetattr(terminal)
    ended, end = os.pipe()
    listener = threading.Thread(target=_listen, args=(terminal, ended, stop), daemon=True)
    tty.setcbreak(terminal)  # keys come one by one; Ctrl-C remains a signal
    termios.tcflush(terminal, termios.TCIFLUSH)
    listener.start()
    try:
        yield
    finally:
        os.write(end, b".")
        listener.join()
        with suppress(termios.error):  # a terminal that is gone needs nothing back
            termios.tcsetattr(terminal, termios.TCSADRAIN, before)
        os.close(end)
        os.close(ended)


def _own_terminal() -> int | None:
    """Return the file descriptor of standard input where that is a terminal whose keys are this program's."""
    if sys.stdin is None or not sys.stdin.isatty() or _in_background(sys.stdin.fileno()):
        return None
    return sys.stdin.fileno()


def _in_background(terminal: int) -> bool:
    """Say whether keys of this terminal go to another program."""
    try:
        return os.tcgetpgrp(terminal) != os.getpgrp()
    except OSError:  # it is not the one that this program was started from, and so has no background
        return False


def _listen(keyboard: int, ended: int, stop: EmergencyStop) -> None:
    """Pull at the first key."""
    ready, _, _ = select.select([keyboard, ended], [], [])
    if keyboard in ready and ended not in ready:
        try:
            os.read(keyboard, 64)
        except OSError:
            stop.pull("the terminal is gone")
        else:
            stop.pull("a key")
