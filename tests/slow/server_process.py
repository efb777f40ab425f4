"""A policy server of its own process for the tools of this folder, on a free port of 127.0.0.1."""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ServerProcess:
    """A server that runs."""

    port: int
    log: Path
    process: "subprocess.Popen[bytes]"

    def longest_ms(self) -> float:
        """CPU time of the longest turn of the event loop since this was asked last [ms].

        So long others had to wait at least, whatever else the machine did.
        """
        assert self.process.stdout is not None
        self.process.send_signal(signal.SIGUSR1)
        return 1000 * float(self.process.stdout.readline())


@contextmanager
def serving(policy: str, folder: Path) -> Iterator[ServerProcess]:
    """Serve `policy`: a bundle with a graph, or "straight" for a scripted one that takes no time."""
    log = folder / "server.log"
    command = [sys.executable, "-c", _SERVE, policy]
    with log.open("wb") as errors, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors) as process:
        assert process.stdout is not None
        line = process.stdout.readline().decode()
        try:
            match = re.match(r"port (\d+)", line)
            assert match, f"the server did not start: {line}{log.read_text()}"
            yield ServerProcess(int(match[1]), log, process)
        finally:
            process.terminate()
            assert process.wait(20) == 0, "the server did not end well"


_SERVE = """
import asyncio, logging, signal, sys, time
from lfm_policy.bundles.open import open_policy
from lfm_policy.server.limits import ServerOptions
from lfm_policy.server.run import keep_what_is_loaded
from lfm_policy.server.served import Served, warm_up
from lfm_policy.server.server import PolicyServer

turn, longest = asyncio.Handle._run, [0.0]

def timed(handle):
    started = time.thread_time()
    turn(handle)
    longest.append(max(longest.pop(), time.thread_time() - started))

def tell():
    print(longest[0], flush=True)
    longest[0] = 0.0

async def live():
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGUSR1, tell)
    asyncio.Handle._run = timed
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
keep_what_is_loaded()
asyncio.run(live())
"""
