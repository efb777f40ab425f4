"""One process of several: `python -m tests.training.ranks STOP key=value ...`, with torchrun's environment set."""

import os
import socket
import subprocess
import sys
from pathlib import Path

from tests.training.runs import Killed, run_until

ROOT = Path(__file__).resolve().parents[2]


def launch(world: int, stop: int | None, *overrides: str) -> list[int]:
    """Train in `world` processes, of which the first gives up after `stop` updates; returns their exit codes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.training.ranks", str(stop or 0), *overrides]
    processes = [
        subprocess.Popen(command, cwd=ROOT, env=os.environ | common | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(world)
    ]
    try:
        return [process.wait(180) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()


if __name__ == "__main__":
    try:
        run_until(int(sys.argv[1]) or None, *sys.argv[2:])
    except Killed:
        os._exit(9)
