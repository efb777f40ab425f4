"""Put many robots on a running policy server, and measure how long each waits for its chunks.

    lfm serve lift &
    lfm load_test policy=ws://127.0.0.1:8000 clients=32 seconds=60

Leaves summary.json in the output folder; exits with 1 where a request failed.
"""

import sys
import time
from pathlib import Path

from pydantic import Field
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from lfm_cli.tables import pairs
from lfm_policy.choices import Place
from lfm_policy.files import write_json
from lfm_policy.settings import Frozen


class Settings(Frozen):
    """Which server, and how much is asked of it."""

    policy: str = Field(default="ws://127.0.0.1:8000", description="where lfm serve listens")
    clients: int = Field(default=32, ge=1, description="robots at once, with a session each")
    seconds: float = Field(default=60, gt=0, description="how long [s]")
    chunks_hz: float | None = Field(
        default=None, gt=0, description="chunks per second of each; null: the contract's control rate / executed steps"
    )
    api_key: str | None = Field(default=None, description="where the server asks for one")
    out: Place = Field(default=Path("outputs/load_test"), description="folder for summary.json")


def main(settings: Settings) -> None:
    """Measure, and show it."""
    from lfm_policy.server.load_test import load

    console = Console()
    columns = (TextColumn("robots asking"), BarColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task, started = progress.add_task("connecting", total=settings.seconds), time.monotonic()
        found = load(
            settings.policy,
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
    console.print(pairs(f"{settings.clients} robots at {settings.policy}", summary))
    if found.errors:
        sys.exit(1)
