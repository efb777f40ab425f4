"""From a prepared store to a LeRobotDataset v3.0."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lfm_policy.data.lerobot.info import INDICES, MASKS
from lfm_policy.data.lerobot.write import Writer, new_dataset
from lfm_policy.data.windows.store import Split, Store


def export_store(store: Store, out: str | Path, *, task: str | None = None, video: bool = True) -> dict[str, Any]:
    """Write a store as a data set that LeRobot's own reader loads; one episode is in memory.

    Args:
        store: with its pictures, if it has any.
        out: the folder.
        task: what the episodes show, in words; None: the environment's name.
        video: pictures as H.264, else as PNG, without loss.

    Returns:
        What was written, as JSON.

    Raises:
        ContractError: the contract has names that LeRobot cannot have.
        DataError: the store is damaged, or something else is at `out`.
    """
    with new_dataset(out, store.contract, video=video) as writer:
        writer.told["source"] = dict(store.source)
        keep_split(writer, {"train": store.train.tolist(), "valid": store.valid.tolist()}, len(store))
        for index in range(len(store)):
            writer.add(store.episode(index), task or store.contract.environment)
        return written(writer, out)


def keep_split(writer: Writer, split: Mapping[Split, Sequence[int]], count: int) -> None:
    """Note which episodes are for training and for validation, as lerobot-policy-robomimic does."""
    names = [f"demo_{index}" for index in range(count)]
    writer.files[MASKS] = {"demo_keys": names, "masks": {name: sorted(chosen) for name, chosen in split.items()}}


def written(writer: Writer, out: str | Path) -> dict[str, Any]:
    """Tell what a writer has written, as JSON."""
    features = {key: list(feature["shape"]) for key, feature in writer.features.items() if key not in INDICES}
    return {"out": str(out), "episodes": writer.episodes, "steps": writer.frames, "features": features}
