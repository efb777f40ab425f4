"""What episodes saw and did, kept as a LeRobotDataset: for LeRobot's and Rerun's viewers, and to learn from.

Each episode is a file of its own until all are there, so that an interrupted evaluation continues. Episodes that were
played before anybody recorded are played again: they are functions of their seeds. So are the pictures of a policy with
cameras, which saw a few of them: they are drawn afterwards, while the recorded actions are executed again.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from lfm_policy.data.lerobot.info import OURS, SUCCESS
from lfm_policy.data.lerobot.write import new_dataset
from lfm_policy.data.windows.store import Episode
from lfm_policy.errors import RolloutError
from lfm_policy.files import atomic_file, read_json
from lfm_policy.rollout.evaluation import Evaluation
from lfm_policy.rollout.play import seen_now
from lfm_policy.rollout.records import EpisodeResult, Segment
from lfm_policy.rollout.subscriber import Subscriber

FOLDER, PARTS = "rollouts", "rollouts.parts"
REWARD, DONE = "next.reward", "next.done"
COLUMNS = {REWARD: "float32", SUCCESS: "bool", DONE: "bool"}


class Recorder(Subscriber):
    """Keeps the rows of every episode that it hears of.

    Args:
        out: folder of the evaluation.
    """

    def __init__(self, out: str | Path) -> None:
        self._parts = Path(out) / PARTS
        self._running: dict[int, list[Segment]] = {}

    def on_start(self, seed: int) -> None:
        """Forget an earlier attempt."""
        self._running[seed] = []

    def on_segment(self, seed: int, segment: Segment) -> None:
        """Keep the rows."""
        self._running[seed].append(segment)

    def on_end(self, result: EpisodeResult) -> None:
        """Write the episode: row t holds what was seen before step t, its action, and the reward that followed."""
        segments = self._running.pop(result.seed)
        rows = {
            "observation": np.concatenate([segment.observations for segment in segments])[:-1],
            "action": np.concatenate([segment.actions for segment in segments if segment.actions is not None]),
            "reward": np.concatenate([segment.rewards for segment in segments]),
            "digest": np.frombuffer(result.digest.encode(), np.uint8),
        }
        with atomic_file(self._path(result.seed)) as temporary:
            np.savez(temporary, **rows)

    def write(self, evaluation: Evaluation, results: Sequence[EpisodeResult], out: str | Path) -> Path:
        """Write the episodes of an evaluation as a data set in `out`/rollouts; those not recorded yet are played again.

        Args:
            evaluation: what was run.
            results: its episodes.
            out: folder of the evaluation.

        Returns:
            The data set.

        Raises:
            RolloutError: an episode goes differently when it is played again.
        """
        folder, episodes = Path(out) / FOLDER, [{"seed": r.seed, "digest": r.digest} for r in results]
        if _written(folder) == episodes:
            return folder
        missing = [result.seed for result in results if self._read(result) is None]
        if missing:
            evaluation.runner([self]).run(missing)
        if lost := [result.seed for result in results if self._read(result) is None]:
            raise _different(lost)
        contract = evaluation.policy.contract
        with new_dataset(folder, contract, extra=COLUMNS) as writer, _Drawing(evaluation) as drawing:
            writer.told |= {"source": {"kind": "rollouts", **evaluation.whole_identity}, "episodes": episodes}
            for result in results:
                rows = self._read(result)
                assert rows is not None
                last = np.arange(result.steps) == result.steps - 1
                columns = {REWARD: rows["reward"], SUCCESS: last & result.success, DONE: last}
                told = {"seed": result.seed, "success": result.success}
                frames = drawing.frames(result.seed, rows) if contract.cameras else None
                episode = Episode(rows["observation"], rows["action"], frames)
                writer.add(episode, contract.environment, columns, told)
        shutil.rmtree(self._parts, ignore_errors=True)
        return folder

    def _read(self, result: EpisodeResult) -> dict[str, np.ndarray] | None:
        """Return the rows of an episode; None if they are not there, or those of another one."""
        path = self._path(result.seed)
        if not path.exists():
            return None
        try:
            with np.load(path) as file:
                rows = dict(file)
        except (ValueError, OSError, BadZipFile):  # damaged: it is played again
            return None
        return rows if rows["digest"].tobytes().decode() == result.digest else None

    def _path(self, seed: int) -> Path:
        return self._parts / f"{seed}.npz"


class _Drawing:
    """Draws what the cameras saw at every step of an episode; makes its environment when it is first asked."""

    def __init__(self, evaluation: Evaluation) -> None:
        self._factory, self._environment = evaluation.factory, None

    def __enter__(self) -> "_Drawing":
        return self

    def __exit__(self, *error: object) -> None:
        if self._environment is not None:
            self._environment.close()

    def frames(self, seed: int, rows: Mapping[str, np.ndarray]) -> np.ndarray:
        """Execute the actions of an episode again; return uint8 (L, cameras, height, width, 3).

        Raises:
            RolloutError: other things are observed than were recorded.
        """
        self._environment = environment = self._environment or self._factory()
        observation, frames = environment.reset(seed), []
        for row, action in zip(rows["observation"], rows["action"], strict=True):
            if not np.array_equal(environment.contract.flatten(observation), row):
                raise _different([seed])
            frames.append(seen_now(environment))
            observation = environment.step(action).observation
        return np.stack(frames)


def _different(seeds: Sequence[int]) -> RolloutError:
    return RolloutError(
        f"seeds {list(seeds)} go differently when they are played again, so what was counted cannot be recorded: "
        "choose another out=, and record from the start"
    )


def _written(folder: Path) -> Any:
    """Return which episodes a data set holds; None if there is none."""
    try:
        return read_json(folder / OURS).get("episodes")
    except (OSError, json.JSONDecodeError):
        return None
