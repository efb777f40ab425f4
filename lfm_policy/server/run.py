"""A bundle, a checkpoint or a stand-in served to robots over websockets until a signal ends it; see `lfm serve`."""

import asyncio
import gc
import logging
import signal
import sys
import time

from lfm_policy.errors import ConfigError
from lfm_policy.files import write_json
from lfm_policy.server.limits import ApiKeys
from lfm_policy.server.observations import Names
from lfm_policy.server.served import Opener, ServeSettings, load
from lfm_policy.server.server import PolicyServer

_OFTEN = 700, 5, 2
"""Objects, and younger collections, before each of Python's three garbage collections."""

log = logging.getLogger("lfm_policy.server")


def run(settings: ServeSettings, opener: Opener) -> None:
    """Serve until SIGTERM or SIGINT; then finish what is under way, and leave a summary where one is asked for.

    Args:
        settings: what is served, and to whom.
        opener: `open_policy`.

    Raises:
        LFMError: the policy cannot be loaded, the keys cannot be read, or the port is taken.
    """
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    log.setLevel(logging.INFO)
    keys = ApiKeys.read(settings.api_keys)
    served = load(settings, opener)
    server = PolicyServer(served, settings, keys, Names.read(settings.names, served.policy.contract))
    if not keys and settings.host not in ("127.0.0.1", "localhost", "::1"):
        log.warning("anyone who reaches %s may connect: give api_keys=FILE", settings.host)
    keep_what_is_loaded()
    asyncio.run(_serve(server))
    if settings.out is not None:
        write_json(settings.out / "summary.json", {"policy": settings.policy, **server.metrics.snapshot()})


def keep_what_is_loaded() -> None:
    """Leave libraries and policy out of garbage collections to come: each would hold up all robots for 50 ms.

    What is left is small, and collected in small portions: connections that have ended are circles, thousands of them
    would take 100 ms.
    """
    gc.collect()
    gc.freeze()
    gc.collect()  # counts what is left: a full collection has to wait until there is a quarter more
    gc.set_threshold(*_OFTEN)


async def _serve(server: PolicyServer) -> None:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        async with server:
            where = f"{server.options.host}:{server.port}"
            log.info("serving %s at ws://%s, status at http://%s/", server.served.name, where, where)
            await stop.wait()
            log.info("stopping: %d clients", len(server.metrics.clients))
            started = time.monotonic()
        log.info("stopped after %.1f s", time.monotonic() - started)
    except OSError as error:
        raise ConfigError(f"cannot listen on {server.options.host}:{server.options.port}: {error.strerror}") from None
