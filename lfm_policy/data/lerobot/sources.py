"""Where a LeRobot data set is: a folder, or user/repository of the hub, with @REVISION for a certain state of it."""

from collections.abc import Sequence
from pathlib import Path

from lfm_policy import hub
from lfm_policy.data.lerobot.info import is_dataset
from lfm_policy.errors import DataError


def is_source(source: str | Path) -> bool:
    """Say whether a source is a LeRobot data set: a folder of one, or a repository of the hub."""
    if Path(source).exists():
        return Path(source).is_dir()
    return Path(source).suffix not in (".hdf5", ".h5") and hub.hub_id(source) is not None


def locate(source: str | Path, files: Sequence[str]) -> Path:
    """Return the folder of a data set; of the hub's, `files` are fetched into its cache.

    Raises:
        DataError: there is none, or it cannot be fetched.
    """
    named = None if Path(source).exists() else hub.hub_id(source)
    if named is None:
        if not is_dataset(source):
            raise DataError(f"{source} is no LeRobot data set: expected a folder with meta/info.json and data/")
        return Path(source)
    nothing = f"there is no data set '{source}': expected a LeRobot data set's folder, or USER/REPOSITORY of the hub"
    return hub.fetch(*named, files, kind="dataset", nothing=nothing, error=DataError)
