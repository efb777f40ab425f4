"""A policy server of its own process for the tools of this folder, on a free port of 127.0.0.1."""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def serving(policy: str, folder: Path, *settings: str) -> Iterator[tuple[int, Path]]:
    """Serve `policy` ("lift", or "zero" with contract=…) and yield its port and its log."""
    log = folder / "server.log"
    command = [sys.executable, "-c", _SERVE, policy, *settings]
    with log.open("wb") as errors, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors) as process:
        assert process.stdout is not None
        line = process.stdout.readline().decode()
        try:
            match = re.match(r"port (\d+)", line)
            assert match, f"the server did not start: {line}{log.read_text()}"
            yield int(match[1]), log
        finally:
            process.terminate()
            assert process.wait(20) == 0, "the server did not end well"


_SERVE = """
import asyncio, logging, signal, sys
from lfm_policy.bundles.open import open_policy
from lfm_policy.server.limits import ServerOptions
from lfm_policy.server.served import Served, warm_up
from lfm_policy.server.server import PolicyServer

async def live():
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with PolicyServer(Served(policy, sys.argv[1], "digest"), ServerOptions(port=0)) as server:
        print("port", server.port, flush=True)
        await stop.wait()

logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
if sys.argv[1] == "straight":
    from tests.rollout.scripted import Straight
    policy = Straight()
else:
    policy = open_policy(sys.argv[1], runtime="onnx")
warm_up(policy)
asyncio.run(live())
"""
