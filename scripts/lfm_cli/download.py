"""Download robomimic's human demonstrations: `lfm download task=lift type=ph`.

From the Hugging Face hub (files of robosuite 1.5) or, with mirror=stanford, from the older server (files of 1.4.1).
An interrupted download continues, every file is verified. Without internet, lfm collect makes demonstrations.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from lfm_policy.choices import Place
from lfm_policy.settings import Frozen

if TYPE_CHECKING:
    from lfm_policy.data.demos.download import Download

RENAMED = {"source": "mirror"}


class Settings(Frozen):
    """Which file, and where from."""

    task: str = Field(default="lift", description="lift, can, square, transport, tool_hang")
    type: Literal["ph", "mh", "mg", "paired"] = Field(
        default="ph", description="ph: proficient human; mh: multi-human; mg: machine generated; paired: can only"
    )
    file: str = Field(
        default="low_dim", description="low_dim (observations), raw (states only); of mg: low_dim_sparse, low_dim_dense"
    )
    mirror: Literal["huggingface", "stanford"] = Field(
        default="huggingface", description="huggingface: files of robosuite 1.5; stanford: the older server, of 1.4.1"
    )
    out: Place = Field(default=Path("data"), description="folder of the downloads and of manifest.json")


def main(settings: Settings) -> None:
    """Download one file, verify it and say where it is."""
    from rich.console import Console

    from lfm_cli.tables import pairs
    from lfm_policy.data.demos.download import download, find
    from lfm_policy.files import write_json

    remote = find(settings.task, settings.type, settings.file, settings.mirror)
    done = download(remote, settings.out)
    write_json(done.path.with_name("summary.json"), _summary(settings, done))
    Console().print(pairs("download", _summary(settings, done)))
    print(f"next: lfm prepare source={done.path} out={done.path.with_suffix('.zarr')}")


def _summary(settings: Settings, done: "Download") -> dict[str, str | int]:
    return {
        "task": settings.task,
        "source": settings.mirror,
        "file": str(done.path),
        "bytes": done.bytes,
        "sha256": done.sha256,
        "checked_against": done.checked_against,
    }
