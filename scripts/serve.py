"""Serve a bundle, a checkpoint or a stand-in to robots, over openpi's websocket protocol.

    python scripts/serve.py policy=outputs/lift port=8000
    python scripts/serve.py policy=replay:data/lift.zarr episode=3

The same as the command lfm-serve, which needs no checkout. Stops at Ctrl-C or SIGTERM, after the requests under way.
Leaves summary.json in the output folder.
"""

import _cli

from lfm_policy.deploy.cli import run
from lfm_policy.deploy.serving import ServeSettings

if __name__ == "__main__":
    _cli.run("serve", ServeSettings, run, __doc__)
