"""Films and strips of chosen seeds: an episode is a function of its seed, so it can be played again with a camera."""

import os
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from lfm_policy.errors import RolloutError
from lfm_policy.files import keeping, read_json, write_json
from lfm_policy.rollout.evaluation import Evaluation, ProgressBar
from lfm_policy.rollout.records import EpisodeResult, Segment
from lfm_policy.rollout.runner import Runner
from lfm_policy.rollout.strips import StripWriter, stem
from lfm_policy.rollout.subscriber import Subscriber

FRAME = (256, 256)


class VideoWriter(Subscriber):
    """Writes every episode that is rendered to `folder` as success_SEED.mp4 or failure_SEED.mp4.

    Args:
        folder: made if needed.
        fps: frames per second, one frame per control step [Hz].
    """

    def __init__(self, folder: str | Path, fps: float) -> None:
        self.folder, self._fps = Path(folder), fps
        self.files: list[Path] = []
        self._open: dict[int, Generator[None, Any, None]] = {}

    def on_segment(self, seed: int, segment: Segment) -> None:
        """Append the frames."""
        if segment.frames is None:
            return
        if seed not in self._open:
            self._open[seed] = self._start(seed, segment.frames)
        for frame in segment.frames:
            self._open[seed].send(np.ascontiguousarray(frame))

    def on_end(self, result: EpisodeResult) -> None:
        """Finish the file and give it its name."""
        if result.seed in self._open:
            self._open.pop(result.seed).close()
            self.files.append(self.folder / file_name(result))
            os.replace(self._unfinished(result.seed), self.files[-1])

    def on_failure(self, seed: int, attempt: int, reason: str) -> None:
        """Forget the frames; the episode will be redone."""
        self._drop(seed)

    def close(self) -> None:
        """Remove what is unfinished."""
        for seed in list(self._open):
            self._drop(seed)

    def _start(self, seed: int, frames: np.ndarray) -> Generator[None, Any, None]:
        from imageio_ffmpeg import write_frames

        self.folder.mkdir(parents=True, exist_ok=True)
        size = (frames.shape[2], frames.shape[1])
        writer = write_frames(str(self._unfinished(seed)), size, fps=round(self._fps), ffmpeg_log_level="error")
        writer.send(None)
        return writer

    def _unfinished(self, seed: int) -> Path:
        return self.folder / f".{seed}.mp4"

    def _drop(self, seed: int) -> None:
        if seed in self._open:
            self._open.pop(seed).close()
            self._unfinished(seed).unlink(missing_ok=True)


def file_name(result: EpisodeResult) -> str:
    """Name of an episode's video."""
    return f"{stem(result)}.mp4"


def choose(results: Sequence[EpisodeResult], per_class: int) -> list[EpisodeResult]:
    """Choose the first `per_class` successes and as many failures, by seed."""
    ordered = sorted(results, key=lambda result: result.seed)
    return [result for outcome in (True, False) for result in [r for r in ordered if r.success == outcome][:per_class]]


def record(runner: Runner, writer: VideoWriter, chosen: Sequence[EpisodeResult]) -> str | None:
    """Roll the chosen episodes out again, rendered; `writer` must subscribe to `runner`. Finished videos are kept.

    A video without its film strip, of a version that made none, is made again.

    Returns:
        Why videos are missing, or None.
    """
    try:
        import imageio_ffmpeg  # noqa: F401
    except ModuleNotFoundError:
        return "imageio-ffmpeg is not installed (pip install 'lfm-policy[media]')"
    files = {result.seed: writer.folder / file_name(result) for result in chosen}
    missing = [r for r in chosen if not (files[r.seed].exists() and files[r.seed].with_suffix(".jpg").exists())]
    if not missing:
        return None
    try:
        again = runner.run([result.seed for result in missing], FRAME)
    except RolloutError as error:
        return str(error).strip().splitlines()[-1]
    finally:
        writer.close()
    changed = [new.seed for old, new in zip(missing, again, strict=True) if old.digest != new.digest]
    return f"seeds {changed} went differently when filmed; the videos show the new course" if changed else None


def film(
    evaluation: Evaluation,
    results: Sequence[EpisodeResult],
    out: str | Path,
    per_class: int,
    console: Console | None = None,
) -> list[Path]:
    """Film some of an evaluation's episodes into `out`/videos, and name the films in its summary.json.

    Args:
        evaluation: what was run.
        results: its episodes, on which `report.write_report` has reported in `out`.
        out: folder of the evaluation.
        per_class: how many successes, and how many failures.
        console: where to say what happens; standard output if None.

    Returns:
        The films that there are.
    """
    out, screen = Path(out), console or Console()
    if not (chosen := choose(results, per_class)):
        return []
    writer = VideoWriter(out / "videos", evaluation.policy.contract.control_hz)
    with ProgressBar([result.seed for result in chosen], {}, screen, "filming") as bar:
        reason = record(evaluation.runner([StripWriter(writer.folder), writer, bar]), writer, chosen)
    files = [path for result in chosen if (path := writer.folder / file_name(result)).exists()]
    summary = read_json(out / "summary.json")
    skipped = {**summary["skipped"], **({"videos": reason} if reason else {})}
    videos = [f"videos/{path.name}" for path in files]
    with keeping(out / "summary.json"):
        write_json(out / "summary.json", {**summary, "videos": videos, "skipped": skipped})
    if reason:
        screen.print(f"no videos: {reason}", markup=False, highlight=False)
    return files
