"""Results on disk: episodes.jsonl grows by one line per episode, so that an interrupted evaluation continues."""

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lfm_policy.errors import DataError, RolloutError
from lfm_policy.files import atomic_file, read_json, require_same, write_json
from lfm_policy.rollout.records import EpisodeResult
from lfm_policy.rollout.subscriber import Subscriber

EPISODES = "episodes.jsonl"
"""Name of the file that holds the episodes of an evaluation."""
_CHECKED = re.compile(rb'(\{.*),"sha256":"([0-9a-f]{16})"\}', re.DOTALL)


class EpisodeLog(Subscriber):
    """The episodes of one run in a folder: `run.json` says what they are of, `episodes.jsonl` holds one per line.

    Args:
        folder: made if needed.
        identity: everything that decides an episode beside its seed (checkpoint digest, solver, ...), as plain JSON
            values; episodes of another identity are not mixed in.

    Raises:
        RolloutError: the folder holds episodes of another identity; names every difference.
        DataError: a line of episodes.jsonl, other than an unfinished last one, cannot be read.
    """

    def __init__(self, folder: str | Path, identity: Mapping[str, Any]) -> None:
        folder = Path(folder)
        self.path = folder / EPISODES
        run = folder / "run.json"
        self.done = {result.seed: result for result in read_episodes(self.path)} if self.path.exists() else {}
        if not self.done:
            write_json(run, dict(identity))
        elif run.exists():
            what = f"{folder} holds episodes of another run, which would be mixed with these"
            remedy = "choose another out=FOLDER, or remove that one"
            require_same(_read_identity(run), identity, what, remedy, RolloutError)
        else:
            raise RolloutError(f"{folder} holds episodes.jsonl but no run.json: expected both; choose another folder")
        self._drop_unfinished_line()

    def on_end(self, result: EpisodeResult) -> None:
        """Append the line, and have it on disk before the next episode."""
        with self.path.open("ab") as file:
            file.write(_line(result))
            file.flush()
            os.fsync(file.fileno())
        self.done[result.seed] = result

    def _drop_unfinished_line(self) -> None:
        if self.path.exists() and not (content := self.path.read_bytes()).endswith(b"\n"):
            with atomic_file(self.path) as temporary:
                temporary.write_bytes(content[: content.rfind(b"\n") + 1])


def read_episodes(path: str | Path) -> list[EpisodeResult]:
    """Read episodes.jsonl in the order of its lines; a last line without its end (an interruption) is left out.

    Raises:
        DataError: another line cannot be read, or the file is missing.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: expected the episodes of an evaluation, found no such file")
    lines = path.read_bytes().split(b"\n")[:-1]
    return [_read_line(line, f"{path}, line {number}") for number, line in enumerate(lines, start=1)]


def _line(result: EpisodeResult) -> bytes:
    """Write an episode as JSON whose last key is the beginning of the SHA-256 of what stands before it."""
    record = result.model_dump_json().encode().removesuffix(b"}")
    return b'%s,"sha256":"%s"}\n' % (record, _checksum(record))


def _checksum(record: bytes) -> bytes:
    return hashlib.sha256(record).hexdigest()[:16].encode()


def _read_line(line: bytes, where: str) -> EpisodeResult:
    found = _CHECKED.fullmatch(line)
    damage = f"{where}: expected an episode, found {line[:80].decode(errors='replace')!r}"
    remedy = "remove the line to have its episode done again"
    if found is not None and _checksum(found[1]) != found[2]:
        raise DataError(f"{damage}, which does not fit its checksum: it was changed; {remedy}")
    try:  # without a checksum it is of an earlier version
        return EpisodeResult.model_validate_json(line if found is None else found[1] + b"}")
    except ValidationError as error:
        raise DataError(
            f"{damage} ({error.error_count()} faults, the first: {error.errors()[0]['msg']}); {remedy}"
        ) from None


def _read_identity(path: Path) -> dict[str, Any]:
    try:
        return dict(read_json(path))
    except (ValueError, TypeError) as error:
        raise DataError(f"{path} is damaged ({error}): choose another folder, or remove that one") from None
