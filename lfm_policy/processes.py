"""Processes that start others: who is started ends with who started it, also where that one is killed."""

import ctypes
import os
import signal
import sys
import threading
import time

PARENT = "LFM_PARENT"
"""Environment variable in which a process is told the number of the one that it shall not outlive."""
_PR_SET_PDEATHSIG = 1


def end_with_parent() -> None:
    """End this process as soon as the one named in PARENT is gone, if it is named there. Called first of all."""
    parent = os.environ.pop(PARENT, None)
    if parent is None:
        return
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    else:
        threading.Thread(target=leave_with, args=(int(parent),), daemon=True).start()
    if os.getppid() != int(parent):  # it was gone before this process could ask
        os._exit(1)


def leave_with(parent: int) -> None:
    """End this process, even in the middle of a step, once its parent is gone."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
