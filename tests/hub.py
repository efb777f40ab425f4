"""A stand-in of the Hugging Face hub, on this machine: as much of its HTTP interface as downloads and commits need."""

import base64
import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

COMMIT = "0123456789" * 4
TOKEN = "hf_standin"
"""Lets its bearer write."""
LARGE = (".safetensors", ".onnx")
"""Files that go through large file storage, by the endings of their names."""


class Hub(http.server.BaseHTTPRequestHandler):
    """Lists a folder's files as those of one repository, sends them, and takes others.

    Args:
        folder: the files.
        repository: "user/name".
        kind: models or datasets.
    """

    def __init__(self, folder: Path, repository: str, kind: str, *args: object) -> None:
        self.folder, self.api = folder, f"/api/{kind}/{repository}"
        self.files = f"{'' if kind == 'models' else f'/{kind}'}/{repository}/resolve/"
        self.id = repository
        super().__init__(*args)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        names = sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file())
        path = self.path.partition("?")[0]
        if path.startswith(f"{self.api}/tree"):
            self._send(json.dumps([{"type": "file", "path": name, "size": 1, "oid": "0"} for name in names]).encode())
        elif path.startswith(self.api):
            files = [{"rfilename": name} for name in names]
            self._send(json.dumps({"id": self.id, "sha": COMMIT, "siblings": files}).encode())
        elif path.startswith(self.files):
            self._send((self.folder / path.removeprefix(self.files).partition("/")[2]).read_bytes())
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

    do_HEAD = do_GET

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        url = f"http://{self.headers['Host']}/{self.id}"
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.send_response(401)
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif self.path == "/api/repos/create":
            self._json({"url": url})
        elif "/preupload/" in self.path:
            self._json({"files": [_preupload(file["path"]) for file in json.loads(content)["files"]]})
        elif self.path.endswith("/objects/batch"):
            asked = json.loads(content)["objects"]
            objects = [o | {"actions": {"upload": {"href": f"{url}/large/{o['oid']}"}}} for o in asked]
            self._json({"transfer": "basic", "objects": objects})
        elif "/commit/" in self.path:
            for line in map(json.loads, content.splitlines()):
                self._commit(line["key"], line["value"])
            self._json({"success": True, "commitOid": COMMIT, "commitUrl": f"{url}/commit/{COMMIT}", "hookOutput": ""})
        elif self.path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        (self.folder.parent / self.path.rpartition("/")[2]).write_bytes(content)
        self._json({})

    def _commit(self, key: str, value: dict[str, Any]) -> None:
        if key == "file":
            (self.folder / value["path"]).write_bytes(base64.b64decode(value["content"]))
        elif key == "lfsFile":
            (self.folder.parent / value["oid"]).rename(self.folder / value["path"])

    def _json(self, value: Any) -> None:
        self._send(json.dumps(value).encode())

    def _send(self, content: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hash(content):x}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        """Be quiet."""


def _preupload(name: str) -> dict[str, Any]:
    return {"path": name, "uploadMode": "lfs" if name.endswith(LARGE) else "regular", "shouldIgnore": False}


@contextmanager
def hub(folder: Path, repository: str, kind: str = "models") -> Iterator[str]:
    """Serve a folder; yield the address for HF_ENDPOINT."""
    handler = partial(Hub, folder, repository, kind)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def elsewhere(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a process of its own: huggingface_hub reads its environment when it is imported."""
    surroundings = os.environ | environment
    arguments = [sys.executable, *command]
    return subprocess.run(arguments, check=False, env=surroundings, capture_output=True, text=True, timeout=120)


def online(address: str, cache: Path) -> dict[str, str]:
    """Return the environment of a process that speaks to the stand-in, and may write to it."""
    there = {"HF_ENDPOINT": address, "HF_HUB_CACHE": str(cache), "HF_TOKEN": TOKEN}
    return there | {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
