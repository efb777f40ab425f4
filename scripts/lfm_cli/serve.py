"""Serve a bundle, a checkpoint or a stand-in to robots, over openpi's websocket protocol.

    lfm serve policy=outputs/lift port=8000
    lfm serve policy=replay:data/lift.zarr episode=3

The same as the command lfm-serve, which needs no checkout. Stops at Ctrl-C or SIGTERM, after the requests under way.
Leaves summary.json in the output folder.
"""

from lfm_cli import command_line as _cli
from lfm_policy.server.cli import run
from lfm_policy.server.served import ServeSettings

if __name__ == "__main__":
    _cli.run("serve", ServeSettings, run, __doc__)
