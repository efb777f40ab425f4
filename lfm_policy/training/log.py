"""A run's metrics: always JSON lines in its folder, and wandb beside them. The only module that knows wandb."""

import json
import math
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Literal
from uuid import uuid4

from pydantic import Field

from lfm_policy.errors import ConfigError, nearest
from lfm_policy.files import read_json, write_json, write_text
from lfm_policy.settings import Frozen

Mode = Literal["online", "offline", "disabled"]
_ENVIRONMENT: Mapping[str, Mode] = {
    "online": "online",
    "run": "online",
    "offline": "offline",
    "dryrun": "offline",
    "disabled": "disabled",
}
"""What wandb's own variable WANDB_MODE may say."""


class LogSettings(Frozen):
    """Where the metrics go, besides metrics.jsonl."""

    mode: Mode | None = Field(
        default=None,
        description="how wandb logs; null: as WANDB_MODE or WANDB_DISABLED say, or offline (then `wandb sync`)",
    )
    project: str = Field(default="lfm-policy", description="name of the project in wandb")
    every: int = Field(default=10, ge=1, description="updates between two lines")


class RunLog:
    """Metrics of one run, in `folder`/metrics.jsonl and in one wandb run; a resumed run continues both.

    Args:
        folder: the run's folder.
        config: the run's settings, for wandb.
        settings: where metrics go.
        start: updates already done; later lines of an interrupted attempt are dropped, 0 starts anew.
        name: the wandb run's name.

    Raises:
        ConfigError: mode "online" without a login or a connection.
    """

    def __init__(
        self,
        folder: str | Path,
        config: Mapping[str, Any],
        settings: LogSettings,
        start: int = 0,
        name: str | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.path = self.folder / "metrics.jsonl"
        self._wandb = _start_wandb(self.folder, config, settings, start, name)
        write_text(self.path, "".join(_lines_until(self.path, start)))
        self._file = self.path.open("a", encoding="utf-8")

    def log(self, step: int, values: Mapping[str, float | int]) -> None:
        """Write one line; a value that is not finite becomes null, which JSON can say."""
        record = {name: float(value) for name, value in values.items()}
        finite = {name: value if math.isfinite(value) else None for name, value in record.items()}
        self._file.write(json.dumps({"step": step, **finite}) + "\n")
        self._file.flush()
        if self._wandb is not None:
            self._wandb.log(record, step=step)

    def close(self, failed: bool = False) -> None:
        """Have all lines on disk, and finish the wandb run."""
        os.fsync(self._file.fileno())
        self._file.close()
        if self._wandb is not None:
            self._wandb.finish(exit_code=int(failed))
            self._wandb = None

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(failed=kind is not None)


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """Read the lines of a metrics.jsonl; those that an interruption cut short or that are damaged are left out."""
    return [record for _, record in _readable(Path(path))]


def _readable(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the lines that can be read, and what they say."""
    content = path.read_bytes() if path.exists() else b""
    for line in content.split(b"\n")[:-1]:
        with suppress(ValueError, RecursionError):  # not UTF-8, no JSON: it is only a log
            text = line.decode()
            record = json.loads(text)
            if isinstance(record, dict) and isinstance(record.get("step"), int):
                yield f"{text}\n", record


def _lines_until(path: Path, start: int) -> list[str]:
    return [line for line, record in _readable(path) if record["step"] <= start] if start else []


def wandb_mode(settings: LogSettings) -> Mode:
    """Return wandb's mode, from the settings or else from wandb's variables."""
    if settings.mode is not None:
        return settings.mode
    if os.environ.get("WANDB_DISABLED", "").lower() in ("1", "true", "yes", "on"):
        return "disabled"
    name = os.environ.get("WANDB_MODE", "").lower() or "offline"
    if name not in _ENVIRONMENT:
        raise ConfigError(f"the environment variable WANDB_MODE is '{name}': {nearest(name, _ENVIRONMENT)}")
    return _ENVIRONMENT[name]


def _start_wandb(folder: Path, config: Mapping[str, Any], settings: LogSettings, start: int, name: str | None) -> Any:
    mode = wandb_mode(settings)
    if mode == "disabled":
        return None
    try:
        import wandb
    except ModuleNotFoundError:
        if mode == "online":
            raise ConfigError("logging.mode=online needs wandb, which is not installed: pip install wandb") from None
        print(
            f"note: wandb is not installed, metrics go to {folder / 'metrics.jsonl'} only "
            "(pip install wandb, or logging.mode=disabled to leave out this note)",
            file=sys.stderr,
        )
        return None
    try:
        return wandb.init(
            project=settings.project,
            name=name,
            id=_run_id(folder, start),
            dir=folder,
            config=dict(config),
            mode=mode,
            resume="allow",
            settings=wandb.Settings(silent=True, console="off"),
        )
    except wandb.Error as error:
        raise ConfigError(
            f"logging.mode=online: {error}\n"
            "log in once with `wandb login`, or use logging.mode=offline and send the run later with `wandb sync`"
        ) from error


def _run_id(folder: Path, start: int) -> str:
    """Return the id of the folder's wandb run; a run that starts anew gets a new one."""
    path, fresh = folder / "wandb.json", uuid4().hex[:8]
    if start and path.exists():
        with suppress(OSError, ValueError, TypeError, KeyError):  # damaged: its metrics go to a new one
            return str(read_json(path)["id"])
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, {"id": fresh})
    return fresh
