"""Download robomimic's human demonstrations, for example: lfm download task=lift type=ph

From the Hugging Face hub (files of robosuite 1.5) or, with source=stanford, from the older server (files of 1.4.1).
An interrupted download continues, every file is verified. Without internet, lfm collect makes demonstrations.
"""

from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table

from lfm_cli import command_line as _cli
from lfm_policy.data.demos.download import Download, Source, download, find
from lfm_policy.files import write_json
from lfm_policy.settings import Frozen


class Settings(Frozen):
    """Settings of config/download.yaml."""

    task: str
    type: Literal["ph", "mh", "mg", "paired"]
    file: str
    source: Source
    out: Path


def main(settings: Settings) -> None:
    """Download one file, verify it and say where it is."""
    remote = find(settings.task, settings.type, settings.file, settings.source)
    done = download(remote, settings.out)
    write_json(done.path.with_name("summary.json"), _summary(settings, done))
    table = Table(title="download", show_header=False)
    for name, value in _summary(settings, done).items():
        table.add_row(name, str(value))
    Console().print(table)
    print(f"next: lfm prepare source={done.path} out={done.path.with_suffix('.zarr')}")


def _summary(settings: Settings, done: Download) -> dict[str, str | int]:
    return {
        "task": settings.task,
        "source": settings.source,
        "file": str(done.path),
        "bytes": done.bytes,
        "sha256": done.sha256,
        "checked_against": done.checked_against,
    }


if __name__ == "__main__":
    _cli.run("download", Settings, main, __doc__)
