"""Train a chain, for example a policy: `lfm train experiment=robot/lift size=small data.path=DIR.zarr out=DIR`.

The same command continues an interrupted run, bit for bit from its last checkpoint. Several processes share the rows
of each batch, or with ranks=blocks the blocks, without any exchange:

    torchrun --nproc-per-node 4 -m lfm_cli train ...
    torchrun --nproc-per-node 4 -m lfm_cli train ... ranks=blocks
"""

from lfm_cli.presets import TrainPresets as PRESETS
from lfm_policy.training.experiments.settings import TrainSettings as Settings

RENAMED = {"steps": "updates"}

__all__ = ["PRESETS", "RENAMED", "Settings", "main"]


def main(settings: Settings) -> None:
    """Train, then show the summary."""
    from lfm_cli.tables import show_training
    from lfm_policy.training.experiments.run import run

    summary = run(settings)
    if summary is not None:
        show_training(summary, settings.out)
