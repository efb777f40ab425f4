"""Results on disk: episodes.jsonl grows by one line an episode, so that an interrupted evaluation continues."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lfm_policy.errors import DataError, RolloutError
from lfm_policy.files import atomic_file, read_json, require_same, write_json
from lfm_policy.rollout.records import EpisodeResult
from lfm_policy.rollout.subscriber import Subscriber


class EpisodeLog(Subscriber):
    """The episodes of one run in a folder: `run.json` says what they are of, `episodes.jsonl` holds one a line.

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
        self.path = folder / "episodes.jsonl"
        run = folder / "run.json"
        self.done = {result.seed: result for result in read_episodes(self.path)} if self.path.exists() else {}
        if not self.done:
            write_json(run, dict(identity))
        elif run.exists():
            what = f"{folder} holds episodes of another run, which would be mixed with these"
            require_same(read_json(run), identity, what, "choose another out=FOLDER, or remove that one", RolloutError)
        else:
            raise RolloutError(f"{folder} holds episodes.jsonl but no run.json: expected both; choose another folder")
        self._drop_unfinished_line()

    def on_end(self, result: EpisodeResult) -> None:
        """Append the line, and have it on disk before the next episode."""
        with self.path.open("ab") as file:
            file.write(result.model_dump_json().encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self.done[result.seed] = result

    def _drop_unfinished_line(self) -> None:
        if self.path.exists() and not (text := self.path.read_bytes()).endswith(b"\n"):
            with atomic_file(self.path) as temporary:
                temporary.write_bytes(text[: text.rfind(b"\n") + 1])


def read_episodes(path: str | Path) -> list[EpisodeResult]:
    """Read episodes.jsonl in the order of its lines; a last line without its end (an interruption) is left out.

    Raises:
        DataError: another line cannot be read, or the file is missing.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: expected the episodes of an evaluation, found no such file")
    results = []
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
        try:
            results.append(EpisodeResult.model_validate_json(line))
        except ValidationError as error:
            raise DataError(
                f"{path}, line {number}: expected an episode, found {line[:80].decode(errors='replace')!r} "
                f"({error.error_count()} faults, the first: {error.errors()[0]['msg']}); "
                "remove the line to have its episode done again"
            ) from None
    return results
