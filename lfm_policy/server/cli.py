"""The command lfm-serve: a bundle, a checkpoint or a stand-in served to robots over websockets."""

import argparse
import asyncio
import logging
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from lfm_policy.errors import ConfigError, LFMError
from lfm_policy.files import write_json
from lfm_policy.server.limits import ApiKeys
from lfm_policy.server.observations import Names
from lfm_policy.server.served import ServeSettings, load
from lfm_policy.server.server import PolicyServer
from lfm_policy.settings import parse

log = logging.getLogger("lfm_policy.server")

EXAMPLES = """
  lfm-serve outputs/bundles/lift
  lfm-serve outputs/bundles/lift --host 0.0.0.0 --api-keys keys.txt
  lfm-serve zero --contract outputs/bundles/lift      a robot's wiring, without a model
  lfm-serve replay:data/lift.zarr --episode 3         a recorded episode
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of lfm-serve. Exits with 0 when stopped by a signal, with 2 and one message on bad input."""
    try:
        run(parse(ServeSettings, _parsed(arguments), "the command line"))
    except LFMError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def run(settings: ServeSettings) -> None:
    """Serve until SIGTERM or SIGINT; then finish what is under way, and leave a summary where one is asked for.

    Raises:
        LFMError: the policy cannot be loaded, the keys cannot be read, or the port is taken.
    """
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    log.setLevel(logging.INFO)
    keys = ApiKeys.read(settings.api_keys)
    served = load(settings)
    server = PolicyServer(served, settings, keys, Names.read(settings.names, served.policy.contract))
    if not keys and settings.host not in ("127.0.0.1", "localhost", "::1"):
        log.warning("anyone who reaches %s may connect: give --api-keys", settings.host)
    asyncio.run(_serve(server))
    if settings.out is not None:
        write_json(Path(settings.out) / "summary.json", {"policy": settings.policy, **server.metrics.snapshot()})


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


def _parsed(arguments: Sequence[str] | None) -> dict[str, str]:
    """The command line as plain strings; the settings type them."""
    parser = argparse.ArgumentParser("lfm-serve", description=__doc__, epilog=EXAMPLES, formatter_class=_Help)
    for name, field in ServeSettings.model_fields.items():
        if field.is_required():
            parser.add_argument(name, help=field.description)
            continue
        default = "" if field.default is None else f" ({field.default})"
        flag = f"--{name.replace('_', '-')}"
        metavar = name.rsplit("_", 1)[-1].upper()
        parser.add_argument(
            flag, dest=name, default=argparse.SUPPRESS, metavar=metavar, help=f"{field.description}{default}"
        )
    return vars(parser.parse_args(arguments))


class _Help(argparse.RawDescriptionHelpFormatter):
    """Wraps the descriptions of settings, keeps the examples as they are."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32, width=110)
