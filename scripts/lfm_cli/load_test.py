"""Put many robots on a running policy server, and measure how long each waits for its chunks.

    lfm-serve outputs/bundles/lift &
    lfm load_test uri=ws://127.0.0.1:8000 clients=32 seconds=60

Leaves summary.json in the output folder; exits with 1 where a request failed.
"""

import sys
import time
from pathlib import Path

from pydantic import Field
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from lfm_cli import command_line as _cli
from lfm_policy.files import write_json
from lfm_policy.settings import Frozen


class Settings(Frozen):
    """See config/load_test.yaml."""

    uri: str
    clients: int = Field(ge=1)
    seconds: float = Field(gt=0)
    chunks_hz: float | None = Field(gt=0)
    api_key: str | None
    out: Path


def main(settings: Settings) -> None:
    """Measure, and show it."""
    from lfm_policy.server.load_test import load

    console = Console()
    columns = (TextColumn("robots asking"), BarColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task, started = progress.add_task("connecting", total=settings.seconds), time.monotonic()
        found = load(
            settings.uri,
            settings.clients,
            settings.seconds,
            settings.chunks_hz,
            settings.api_key,
            lambda load: progress.update(
                task,
                completed=min(time.monotonic() - started, settings.seconds),
                description=f"{len(load.latency_ms)} chunks, {len(load.errors)} errors",
            ),
        )
    summary = found.summary(settings.seconds)
    write_json(settings.out / "summary.json", {**settings.model_dump(mode="json", exclude={"api_key"}), **summary})
    table = Table(title=f"{settings.clients} robots at {settings.uri}", title_justify="left", show_header=False)
    for name, value in summary.items():
        table.add_row(name, str(value))
    console.print(table)
    if found.errors:
        sys.exit(1)


if __name__ == "__main__":
    _cli.run("load_test", Settings, main, __doc__)
