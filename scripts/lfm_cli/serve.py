"""Serve a bundle, a checkpoint or a stand-in to robots, over openpi's websocket protocol.

    lfm serve lift                                an installed student
    lfm serve policy=outputs/lift host=0.0.0.0 api_keys=keys.txt
    lfm serve zero contract=outputs/bundles/lift  a robot's wiring, no model
    lfm serve replay:data/lift.zarr episode=3     a recorded episode

Stops at Ctrl-C or SIGTERM, after the requests under way. Leaves summary.json in the output folder, where one is given.
"""

import sys
from collections.abc import Sequence

from lfm_policy.server.served import ServeSettings as Settings

__all__ = ["Settings", "forward", "main"]


def main(settings: Settings) -> None:
    """Serve until a signal ends it."""
    from lfm_policy.bundles.open import open_policy
    from lfm_policy.server.run import run

    run(settings, open_policy)


def forward(arguments: Sequence[str] | None = None) -> None:
    """Run the command of version 0.1, `lfm-serve POLICY --port 8000`: say the new one, and run it."""
    from lfm_cli.__main__ import main as lfm

    given = list(sys.argv[1:] if arguments is None else arguments)
    words: list[str] = []
    while given:
        word = given.pop(0)
        if word in ("-h", "--help"):
            words.append(word)
        elif word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            words.append(f"{name.replace('-', '_')}={value if equals else given.pop(0) if given else ''}")
        else:
            words.append(word)
    print(f"note: lfm-serve is called lfm serve now: lfm serve {' '.join(words)}", file=sys.stderr)
    lfm("serve", words)
