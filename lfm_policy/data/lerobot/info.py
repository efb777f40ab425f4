"""What a LeRobot data set says about itself: meta/info.json, and where its files are."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lfm_policy.errors import DataError, shown
from lfm_policy.files import read_json

V30, V21 = "v3.0", "v2.1"
INFO = "meta/info.json"
STATS, TASKS, EPISODES = "meta/stats.json", "meta/tasks.parquet", "meta/episodes"
OURS = "meta/lfm.json"
"""What LeRobot has no place for: the contract, and where the data come from."""
MASKS, ENV_ARGS = "meta/robomimic_masks.json", "meta/robomimic_env_args.json"
"""Splits and the simulator's settings of data from robomimic, as lerobot-policy-robomimic keeps them."""

ACTION, STATE, ENV_STATE = "action", "observation.state", "observation.environment_state"
OBSERVATION, PICTURES = "observation.", "observation.images."
SUCCESS = "next.success"
INDICES = ("timestamp", "frame_index", "episode_index", "index", "task_index")
"""Columns that every data set has; the first is float32 [s], the others int64."""
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
CHUNKS_SIZE, DATA_MB, VIDEO_MB = 1000, 100, 200


class Feature(BaseModel):
    """One column of a data set, or one camera."""

    model_config = ConfigDict(frozen=True, extra="allow")

    dtype: str
    shape: tuple[int, ...]
    names: Any = None

    @property
    def is_picture(self) -> bool:
        """Whether it is a camera's."""
        return self.dtype in ("image", "video")

    @property
    def is_vector(self) -> bool:
        """Whether it is a row of numbers."""
        return len(self.shape) == 1 and self.dtype.startswith(("float", "int", "uint", "bool"))

    @property
    def labels(self) -> tuple[str, ...] | None:
        """Names of its numbers; None where there are none, or not one each."""
        names = self.names if self.is_vector else None
        if isinstance(names, Mapping):  # {"motors": [...]}
            names = [name for part in names.values() for name in (part if isinstance(part, list) else [])]
        if not isinstance(names, list) or len(names) != self.shape[0] or len(set(map(str, names))) < len(names):
            return None
        return tuple(map(str, names))

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of a picture, whose channels come last or first."""
        height, width, channels = self.shape
        return (height, width) if channels in (1, 3) else (width, channels)


class Info(BaseModel):
    """The content of meta/info.json, as far as it is used here."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    codebase_version: str
    fps: float = Field(gt=0, le=10_000, allow_inf_nan=False)
    features: dict[str, Feature] = Field(min_length=1)
    total_episodes: int = Field(ge=1)
    total_frames: int = Field(ge=1)
    chunks_size: int = Field(default=CHUNKS_SIZE, ge=1)
    data_path: str = DATA_PATH
    video_path: str | None = None
    robot_type: str | None = None

    @property
    def pictures(self) -> dict[str, Feature]:
        """The cameras, by key."""
        return {key: feature for key, feature in self.features.items() if feature.is_picture}


def is_dataset(path: str | Path) -> bool:
    """Say whether a folder is meant to be a LeRobot data set."""
    return any((Path(path) / name).is_dir() for name in ("meta", "data")) or (Path(path) / "info.json").exists()


def read_info(directory: Path) -> Info:
    """Read meta/info.json.

    Raises:
        DataError: it is not there, is damaged, or is of a version that is not known here.
    """
    path = directory / INFO
    if not path.is_file():
        raise DataError(f"{directory} is no LeRobot data set: expected {INFO}, found no such file: download it whole")
    try:
        raw = read_json(path)
    except (OSError, json.JSONDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    version = raw.get("codebase_version") if isinstance(raw, dict) else None
    if version not in (V30, V21):
        raise DataError(
            f"{directory}: expected a LeRobot data set of codebase_version {V30} or {V21}, found {shown(version)}: "
            "convert it with LeRobot's own scripts (lerobot.scripts.convert_dataset_…)"
        )
    try:
        info = Info.model_validate(raw)
    except ValidationError as error:
        rows = "; ".join(f"{'.'.join(map(str, row['loc']))}: {row['msg']}" for row in error.errors()[:3])
        raise DataError(f"{path} describes no data set: {rows}") from None
    for key in (ACTION, *INDICES[:-1]):
        if key not in info.features:
            raise DataError(f"{path}: expected a feature '{key}', found {sorted(info.features)}")
    return info


def place(directory: Path, template: str, **parts: Any) -> Path:
    """Return the path that one of info.json's templates stands for.

    Raises:
        DataError: the template cannot be filled, or leads out of the data set.
    """
    try:
        path = Path(template.format(**parts))
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        raise DataError(f"{directory / INFO}: the path '{template}' cannot be filled ({error!r})") from None
    if path.is_absolute() or ".." in path.parts:
        raise DataError(f"{directory / INFO}: the path '{template}' leads out of the data set")
    return directory / path
