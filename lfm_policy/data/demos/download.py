"""Downloading robomimic's demonstrations: where a file is, resumable transfer, checksums, and a manifest of both."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate
from http.client import HTTPException
from pathlib import Path
from typing import Any, Literal
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import h5py
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from lfm_policy.errors import ConfigError, DataError, nearest
from lfm_policy.files import read_json, sha256, write_json

Source = Literal["huggingface", "stanford"]

HUB = "robomimic/robomimic_datasets"
"""Data set repository on the Hugging Face hub with the files of robosuite 1.5; the older server has those of 1.4.1."""
BLOCK = 1 << 20
TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Remote:
    """One file of the benchmark and where it is."""

    task: str
    type: str
    source: Source
    location: str
    """Path in the hub's repository (huggingface) or URL (stanford)."""

    @property
    def name(self) -> str:
        """Path below the data folder: "lift/ph/low_dim_v15.hdf5"."""
        return f"{self.task}/{self.type}/{self.location.rsplit('/', 1)[-1]}"


@dataclass(frozen=True)
class Download:
    """A file that is here and whole."""

    path: Path
    bytes: int
    sha256: str
    checked_against: Literal["hub", "manifest", "nothing"]
    """Where the expected checksum came from; "nothing" for the first download from a server that publishes none."""


def find(task: str, type: str, file: str, source: Source) -> Remote:
    """Look a file up in robomimic's registry, for example ("lift", "ph", "low_dim", "huggingface").

    Raises:
        ConfigError: robomimic is not installed, or has no such task, type or file; lists what it has.
    """
    try:
        from robomimic import DATASET_REGISTRY
    except ModuleNotFoundError as error:
        raise ConfigError(
            "the list of data sets is robomimic's, which is not installed: pip install --no-deps robomimic==0.3.0"
        ) from error
    entry: Any = DATASET_REGISTRY
    for level, key in (("task", task), ("type", type), ("file", file)):
        if key not in entry:
            raise ConfigError(f"robomimic has no {level} '{key}' here: {nearest(key, entry)}")
        entry = entry[key]
    if entry["url"] is None:
        raise ConfigError(f"robomimic publishes no {file} file of {task}/{type}: make it from file=raw")
    stem = "demo" if file == "raw" else file
    location = f"v1.5/{task}/{type}/{stem}_v15.hdf5" if source == "huggingface" else entry["url"]
    return Remote(task, type, source, location)


def download(remote: Remote, out: str | Path, endpoint: str | None = None) -> Download:
    """Bring `remote` to out/<task>/<type>/, continuing an interrupted transfer; a file that is there is only verified.

    The checksum is compared with the hub's and with `out`/manifest.json, which remembers the first download.

    Args:
        remote: what to download.
        out: the data folder.
        endpoint: address of a mirror of the hub.

    Raises:
        DataError: the server is out of reach or has no such file, or the file is not what it should be.
    """
    out = Path(out)
    target = out / remote.name
    recorded = _manifest(out).get(remote.name, {}).get("sha256")
    if target.exists():
        digest = sha256(target)
        if recorded not in (None, digest):
            raise DataError(
                f"{target} is not the file that was downloaded: expected sha256 {recorded}, found {digest}; "
                "move it away and run the same command again"
            )
        _require_demonstrations(target)
        return _record(out, remote, Download(target, target.stat().st_size, digest, _origin(None, recorded)))
    target.parent.mkdir(parents=True, exist_ok=True)
    if remote.source == "huggingface":
        part, published = _from_hub(remote, out, endpoint)
    else:
        part, published = _from_server(remote, target.with_name(f".{target.name}.part")), None
    digest = _verified(part, {"the hub": published, str(out / "manifest.json"): recorded})
    os.replace(part, target)
    return _record(out, remote, Download(target, target.stat().st_size, digest, _origin(published, recorded)))


def _manifest(out: Path) -> dict[str, Any]:
    path = out / "manifest.json"
    return read_json(path) if path.exists() else {}


def _record(out: Path, remote: Remote, done: Download) -> Download:
    entry = {"sha256": done.sha256, "bytes": done.bytes, "source": remote.source, "location": remote.location}
    manifest = _manifest(out)
    if manifest.get(remote.name) != entry:
        write_json(out / "manifest.json", dict(sorted({**manifest, remote.name: entry}.items())))
    return done


def _origin(published: str | None, recorded: str | None) -> Literal["hub", "manifest", "nothing"]:
    return "hub" if published else "manifest" if recorded else "nothing"


def _verified(part: Path, expected: dict[str, str | None]) -> str:
    """Return the file's checksum; a file with another one than `expected`, or without demonstrations, is removed."""
    digest = sha256(part)
    try:
        for origin, value in expected.items():
            if value not in (None, digest):
                raise DataError(
                    f"the downloaded {part.name} was damaged and is removed: "
                    f"expected sha256 {value} (from {origin}), found {digest}; run the same command again"
                )
        _require_demonstrations(part)
    except DataError:
        part.unlink()
        raise
    return digest


def _require_demonstrations(path: Path) -> None:
    try:
        with h5py.File(path, "r") as file:
            data = file.get("data")
            found = isinstance(data, h5py.Group) and any(str(name).startswith("demo") for name in data)
    except OSError as error:
        raise DataError(f"expected an HDF5 file with demonstrations, and {path} cannot be opened: {error}") from error
    if not found:
        raise DataError(f"expected demonstrations data/demo_0, …, and {path} has none")


def _unreachable(remote: Remote, server: str, error: Exception) -> DataError:
    return DataError(
        f"cannot reach {server} ({error}).\n"
        "Run the same command again when there is a connection: what has arrived is kept. Without one, the scripted "
        f"expert makes demonstrations in the same format: lfm collect task={remote.task}"
    )


def _from_hub(remote: Remote, out: Path, endpoint: str | None) -> tuple[Path, str | None]:
    """Download through huggingface_hub, which resumes by itself; return the file and the hub's SHA-256 of it."""
    try:
        import huggingface_hub as hub
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError, RepositoryNotFoundError
    except ModuleNotFoundError as error:
        raise ConfigError(
            "source=huggingface needs huggingface_hub, which is not installed: pip install huggingface_hub"
        ) from error
    where = {"repo_id": HUB, "filename": remote.location, "repo_type": "dataset", "endpoint": endpoint}
    try:
        etag = hub.get_hf_file_metadata(hub.hf_hub_url(**where), endpoint=endpoint).etag
        part = Path(hub.hf_hub_download(**where, local_dir=out / ".download"))
    except LocalEntryNotFoundError as error:
        raise _unreachable(remote, "the Hugging Face hub", error) from error
    except (EntryNotFoundError, RepositoryNotFoundError) as error:
        raise DataError(f"the Hugging Face hub has no {remote.location} in {HUB}: try source=stanford") from error
    except Exception as error:  # its transport's errors share no base class and change with its version
        raise _unreachable(remote, "the Hugging Face hub", error) from error
    return part, etag if etag and len(etag) == 64 else None


def _from_server(remote: Remote, part: Path) -> Path:
    """Download from a plain web server into `part`, for as long as each attempt brings the file forward."""
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(TextColumn(remote.name), *columns, transient=True) as progress:
        bar = progress.add_task(remote.name, total=None)

        def report(done: int, total: int | None) -> None:
            progress.update(bar, completed=done, total=total)

        while True:
            before = _size(part)
            error: Exception = ConnectionError("the connection broke")
            try:
                if _transfer(remote.location, part, report):
                    return part
            except HTTPError as answer:
                raise DataError(f"the server answers {answer.code} {answer.reason} for {remote.location}") from answer
            except (URLError, TimeoutError, ConnectionError, HTTPException) as broken:
                error = broken
            if _size(part) <= before:
                raise _unreachable(remote, remote.location, error) from error


def _transfer(url: str, part: Path, report: Callable[[int, int | None], None]) -> bool:
    """Fetch what `part` lacks; true when it is whole."""
    start = _size(part)
    headers = {}
    if start:
        # Another version of the file must not be appended to the first half of this one.
        since = formatdate(part.stat().st_mtime, usegmt=True)
        headers = {"Range": f"bytes={start}-", "If-Unmodified-Since": since}
    try:
        response = urlopen(Request(url, headers=headers), timeout=TIMEOUT_S)
    except HTTPError as answer:
        if answer.code == 416 and answer.headers.get("Content-Range") == f"bytes */{start}":
            return True
        if start and answer.code in (412, 416):
            part.unlink()
            return _transfer(url, part, report)
        raise
    with response, part.open("ab" if response.status == 206 else "wb") as file:
        length = response.headers.get("Content-Length")
        total = None if length is None else file.tell() + int(length)
        while block := response.read(BLOCK):
            file.write(block)
            report(file.tell(), total)
        return total is None or file.tell() == total


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
