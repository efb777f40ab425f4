"""A run's metrics: always JSON lines in its folder, and wandb beside them. The only module that knows wandb."""

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal
from uuid import uuid4

from pydantic import Field

from lfm_policy.errors import ConfigError
from lfm_policy.files import atomic_file, read_json, write_json
from lfm_policy.settings import Frozen


class LogSettings(Frozen):
    """Where the metrics go, besides metrics.jsonl."""

    mode: Literal["online", "offline", "disabled"] = "offline"
    """wandb's mode; an offline run is sent later with `wandb sync`."""
    project: str = "lfm-policy"
    every: int = Field(default=10, ge=1)
    """Steps between two lines."""


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
        with atomic_file(self.path) as temporary:
            temporary.write_text("".join(_lines_until(self.path, start)))
        self._file = self.path.open("a")

    def log(self, step: int, values: Mapping[str, float | int]) -> None:
        """Write one line; a value that is not finite becomes null, which JSON can say."""
        record = {name: float(value) for name, value in values.items()}
        finite = {name: value if math.isfinite(value) else None for name, value in record.items()}
        self._file.write(json.dumps({"step": step, **finite}) + "\n")
        self._file.flush()
        if self._wandb is not None:
            self._wandb.log(record, step=step)

    def close(self, failed: bool = False) -> None:
        """Finish the wandb run."""
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
    """The lines of a metrics.jsonl; a last line that an interruption cut short is left out."""
    return [json.loads(line) for line in _whole_lines(Path(path))]


def _whole_lines(path: Path) -> list[str]:
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return lines if not lines or lines[-1].endswith("\n") else lines[:-1]


def _lines_until(path: Path, start: int) -> list[str]:
    return [line for line in _whole_lines(path) if json.loads(line)["step"] <= start] if start else []


def _start_wandb(folder: Path, config: Mapping[str, Any], settings: LogSettings, start: int, name: str | None) -> Any:
    if settings.mode == "disabled":
        return None
    try:
        import wandb
    except ModuleNotFoundError:
        if settings.mode == "online":
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
            mode=settings.mode,
            resume="allow",
            settings=wandb.Settings(silent=True, console="off"),
        )
    except wandb.Error as error:
        raise ConfigError(
            f"logging.mode=online: {error}\n"
            "log in once with `wandb login`, or use logging.mode=offline and send the run later with `wandb sync`"
        ) from error


def _run_id(folder: Path, start: int) -> str:
    """The id of the folder's wandb run; a run that starts anew gets a new one."""
    path = folder / "wandb.json"
    if start and path.exists():
        return read_json(path)["id"]
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, {"id": uuid4().hex[:8]})
    return read_json(path)["id"]
