"""Downloads against a real web server on this machine, which can break, lie and change its files."""

import hashlib
import io
import socket
import threading
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import h5py
import numpy as np
import pytest

from lfm_policy.data.demos.download import HUB, Download, Remote, download, find
from lfm_policy.errors import ConfigError, DataError
from lfm_policy.files import read_json, write_json

FILE = "/rt_benchmark/lift/ph/low_dim_v141.hdf5"
HUB_FILE = f"/datasets/{HUB}/resolve/main/v1.5/lift/ph/low_dim_v15.hdf5"
CHANGED = "Wed, 21 Oct 2015 07:28:00 GMT"


class Server(ThreadingHTTPServer):
    """Serves `content` at FILE as a plain server does, with ranges, and at HUB_FILE as the hub does."""

    daemon_threads = True

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = content
        self.breaks_after: int | None = None
        """Bytes of each answer after which the connection breaks."""
        self.published: str | None = None
        """The checksum it claims, where that is not the content's."""
        self.changed = CHANGED
        self.requests: list[tuple[str, str | None]] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def remote(self, path: str = FILE) -> Remote:
        return Remote("lift", "ph", "stanford", self.address + path)


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        content, wanted = self.server.content, self.headers.get("Range")
        self.server.requests.append((self.command, wanted))
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        since = self.headers.get("If-Unmodified-Since")
        if self.path.split("?")[0] not in (FILE, HUB_FILE):
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif since and parsedate_to_datetime(since) < parsedate_to_datetime(self.server.changed):
            self.send_error(412)
        elif wanted and start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.end_headers()
        else:
            self._send(content, start, body)

    def _send(self, content: bytes, start: int, body: bool) -> None:
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("ETag", f'"{self.server.published or hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", "0" * 40)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if body:
            self.wfile.write(content[start:][: self.server.breaks_after])
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        pass


def demonstrations(seed: int) -> bytes:
    """An HDF5 file in robomimic's layout, a few blocks long."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file["data/demo_0/actions"] = np.random.default_rng(seed).normal(size=(40_000, 7))
    return buffer.getvalue()


@pytest.fixture(scope="module")
def content() -> bytes:
    return demonstrations(seed=0)


@pytest.fixture
def server(content: bytes) -> Iterator[Server]:
    with Server(content) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_download_is_whole_and_remembered(server: Server, content: bytes, tmp_path: Path) -> None:
    done = download(server.remote(), tmp_path)
    digest = hashlib.sha256(content).hexdigest()
    assert done == Download(tmp_path / "lift/ph/low_dim_v141.hdf5", len(content), digest, "nothing")
    assert done.path.read_bytes() == content
    assert read_json(tmp_path / "manifest.json")["lift/ph/low_dim_v141.hdf5"]["sha256"] == digest
    assert [path.name for path in done.path.parent.iterdir()] == [done.path.name]


def test_a_file_that_is_there_is_verified_not_fetched(server: Server, tmp_path: Path) -> None:
    download(server.remote(), tmp_path)
    server.requests.clear()
    assert download(server.remote(), tmp_path).checked_against == "manifest"
    assert server.requests == []


def test_a_file_that_changed_on_disk_is_refused(server: Server, tmp_path: Path) -> None:
    path = download(server.remote(), tmp_path).path
    path.write_bytes(demonstrations(seed=1))
    with pytest.raises(DataError, match="is not the file that was downloaded"):
        download(server.remote(), tmp_path)
    assert path.exists()


def test_breaking_connections_are_continued(server: Server, content: bytes, tmp_path: Path) -> None:
    server.breaks_after = len(content) // 3
    assert download(server.remote(), tmp_path).path.read_bytes() == content
    ranges = [wanted for _, wanted in server.requests]
    assert ranges[:2] == [None, f"bytes={len(content) // 3}-"]
    assert len(ranges) == 4


def test_an_interrupted_download_continues_in_the_next_run(server: Server, content: bytes, tmp_path: Path) -> None:
    half = len(content) // 2
    part = tmp_path / "lift/ph/.low_dim_v141.hdf5.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(content[:half])
    assert download(server.remote(), tmp_path).path.read_bytes() == content
    assert server.requests == [("GET", f"bytes={half}-")]


def test_a_whole_part_is_not_fetched_again(server: Server, content: bytes, tmp_path: Path) -> None:
    part = tmp_path / "lift/ph/.low_dim_v141.hdf5.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(content)
    assert download(server.remote(), tmp_path).path.read_bytes() == content


def test_halves_of_two_versions_are_never_joined(server: Server, content: bytes, tmp_path: Path) -> None:
    part = tmp_path / "lift/ph/.low_dim_v141.hdf5.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(demonstrations(seed=1)[: len(content) // 2])
    server.changed = "Fri, 31 Dec 2100 23:59:59 GMT"
    assert download(server.remote(), tmp_path).path.read_bytes() == content


def test_a_wrong_checksum_removes_the_file(server: Server, tmp_path: Path) -> None:
    write_json(tmp_path / "manifest.json", {"lift/ph/low_dim_v141.hdf5": {"sha256": "0" * 64}})
    with pytest.raises(DataError, match=r"damaged and is removed: expected sha256 0{64} .*manifest"):
        download(server.remote(), tmp_path)
    assert list((tmp_path / "lift/ph").iterdir()) == []


def test_a_page_instead_of_a_file_is_refused(server: Server, tmp_path: Path) -> None:
    server.content = b"<html>moved</html>"
    with pytest.raises(DataError, match="expected an HDF5 file"):
        download(server.remote(), tmp_path)
    assert list((tmp_path / "lift/ph").iterdir()) == []


def test_a_missing_file_is_named(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"answers 404 .*gone\.hdf5"):
        download(server.remote("/gone.hdf5"), tmp_path)


@pytest.mark.parametrize("source", ["stanford", "huggingface"])
def test_without_a_network_the_scripted_expert_is_named(source: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        closed = f"http://127.0.0.1:{free.getsockname()[1]}"
    location = closed + FILE if source == "stanford" else "v1.5/lift/ph/low_dim_v15.hdf5"
    with pytest.raises(DataError, match=r"lfm collect task=lift"):
        download(Remote("lift", "ph", source, location), tmp_path, endpoint=closed)


def test_the_hub_is_asked_for_file_and_checksum(server: Server, content: bytes, tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    remote = Remote("lift", "ph", "huggingface", "v1.5/lift/ph/low_dim_v15.hdf5")
    done = download(remote, tmp_path, endpoint=server.address)
    assert done.checked_against == "hub"
    assert done.path == tmp_path / "lift/ph/low_dim_v15.hdf5"
    assert done.path.read_bytes() == content
    with pytest.raises(DataError, match=r"has no v1\.5/lift/ph/gone\.hdf5"):
        download(Remote("lift", "ph", "huggingface", "v1.5/lift/ph/gone.hdf5"), tmp_path, endpoint=server.address)


def test_a_file_with_another_checksum_than_the_hubs_is_removed(server: Server, tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    server.published = "a" * 64
    with pytest.raises(DataError, match=r"expected sha256 a{64} \(from the hub\)"):
        download(Remote("lift", "ph", "huggingface", "v1.5/lift/ph/low_dim_v15.hdf5"), tmp_path, server.address)
    assert not list(tmp_path.rglob("*.hdf5"))


def test_the_registry_is_robomimics() -> None:
    registry = pytest.importorskip("robomimic").DATASET_REGISTRY
    for task in ("lift", "can", "square", "transport", "tool_hang"):
        assert find(task, "ph", "low_dim", "stanford").location == registry[task]["ph"]["low_dim"]["url"]
        assert find(task, "ph", "low_dim", "huggingface").location == f"v1.5/{task}/ph/low_dim_v15.hdf5"
    assert find("can", "mg", "low_dim_sparse", "huggingface").name == "can/mg/low_dim_sparse_v15.hdf5"


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (("lift_", "ph", "low_dim"), "did you mean 'lift'"),
        (("lift", "paired", "low_dim"), "no type 'paired'"),
        (("lift", "mg", "low_dim"), "low_dim_"),
        (("lift", "ph", "image"), "make it from file=raw"),
    ],
)
def test_what_the_registry_lacks_is_named(entry: tuple[str, str, str], message: str) -> None:
    pytest.importorskip("robomimic")
    with pytest.raises(ConfigError, match=message):
        find(*entry, "stanford")
