"""Damage files at random and count what becomes of them: `python -m tests.slow.flips kinds=store count=2000`.

Each trial flips a bit, cuts a file off or zeroes a sector (512 bytes) of a fresh copy, and reads it as the commands do.
It is refused in our words, or reads the same, or crashes with a traceback, or, which must never be, reads as something
else without a word.
"""

import collections
import random
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from lfm_policy.errors import LFMError

SECTOR = 512
Outcome = Literal["refused", "the same", "traceback", "silently accepted"]


class Kind(NamedTuple):
    """Something on disk."""

    make: Callable[[Path], Path]
    """Write it into a folder; returns what is to be damaged, a file or a folder of files."""
    read: Callable[[Path], Any]
    """Read all that counts, as a value that can be compared."""
    same: Callable[[Any, Any], bool] = lambda before, after: before == after
    """Whether what was read after damage is what may be read."""


def damage(path: Path, rng: random.Random) -> str:
    """Damage one file of `path`; says how."""
    files = sorted(file for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())
    file = rng.choice([file for file in files if file.stat().st_size])
    content = bytearray(file.read_bytes())
    place, how = rng.randrange(len(content)), rng.choice(["flip", "flip", "cut", "zero"])
    if how == "flip":
        content[place] ^= 1 << rng.randrange(8)
    elif how == "cut":
        del content[place:]
    else:
        start = place - place % SECTOR
        content[start : start + SECTOR] = bytes(len(content[start : start + SECTOR]))
    file.write_bytes(content)
    return f"{how} at {place} of {len(content)} in {file.relative_to(path) if file != path else file.name}"


def trial(kind: Kind, whole: Path, before: Any, scratch: Path, rng: random.Random) -> tuple[Outcome, str]:
    """Damage a copy and read it."""
    copy = scratch / whole.name
    if whole.is_dir():
        shutil.copytree(whole, copy)
    else:
        shutil.copy(whole, copy)
    told = damage(copy, rng)
    try:
        after = kind.read(copy)
    except LFMError:
        return "refused", told
    except Exception as error:
        return "traceback", f"{told}: {type(error).__name__}: {str(error)[:200]}"
    finally:
        shutil.rmtree(copy) if whole.is_dir() else copy.unlink()
    return ("the same" if kind.same(before, after) else "silently accepted"), told


def run(name: str, count: int, seed: int = 0) -> tuple[collections.Counter[Outcome], list[str]]:
    """Damage one kind of thing `count` times. Returns the outcomes, and what was wrong."""
    kind, rng = KINDS[name], random.Random(seed)
    outcomes: collections.Counter[Outcome] = collections.Counter()
    wrong = []
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = kind.make(Path(folder) / "whole")
        before = kind.read(whole)
        for number in range(count):
            scratch = Path(folder) / str(number)
            scratch.mkdir()
            outcome, told = trial(kind, whole, before, scratch, rng)
            shutil.rmtree(scratch)
            outcomes[outcome] += 1
            wrong += [f"{outcome}: {told}"] if outcome in ("traceback", "silently accepted") else []
    return outcomes, wrong


def _random(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.normal(size=shape).astype(np.float32)


def _make_store(folder: Path) -> Path:
    from lfm_envs.tasks import TASKS
    from lfm_policy.data.windows.store import Episode, write_store

    contract, rng = TASKS["lift"].contract, np.random.default_rng(0)
    episodes = [Episode(_random(rng, n, contract.observation_dim), _random(rng, n, 10)) for n in range(20, 60)]
    source = {"files": [{"file": "demos.hdf5", "sha256": "0" * 64, "kind": "native"}]}
    write_store(folder / "d.zarr", episodes, contract, {"train": range(4, 40), "valid": range(4)}, source)
    return folder / "d.zarr"


def _make_pictures(folder: Path) -> Path:
    from lfm_envs.tasks import TASKS
    from lfm_policy.contract import Camera
    from lfm_policy.data.windows.store import Episode, write_store

    camera, rng = Camera(name="agentview", height=24, width=24), np.random.default_rng(0)
    contract = TASKS["lift"].contract.model_copy(update={"cameras": (camera,)})
    episodes = [
        Episode(
            _random(rng, n, contract.observation_dim),
            _random(rng, n, 10),
            rng.integers(0, 255, (n, 1, 24, 24, 3), np.uint8),
        )
        for n in range(10, 20)
    ]
    write_store(folder / "d.zarr", episodes, contract, {"train": range(1, 10), "valid": range(1)}, {})
    return folder / "d.zarr"


def _read_store(path: Path) -> Any:
    from lfm_policy.data.windows.store import open_store

    store = open_store(path)
    arrays = [array.tobytes() for split in ("train", "valid") for array in store.read(split)]
    if store.frames is not None:
        arrays += [frames.tobytes() for split in ("train", "valid") for frames in store.frame_blocks(split)]
    return store.contract, dict(store.source), arrays, store.train.tolist(), store.valid.tolist()


def _make_demonstrations(folder: Path) -> Path:
    from lfm_envs.episodes import Episode, assemble, write_episode
    from lfm_envs.tasks import TASKS

    task, rng = TASKS["lift"], np.random.default_rng(0)
    parts = []
    for number in range(8):
        widths = {"actions": 7, "actions_abs": 7, "actions_executed": 7, "states": 32}
        steps = [
            {key: rng.uniform(-1, 1, width) for key, width in widths.items()}
            | {"rewards": np.float64(0), "dones": np.int64(0)}
            for _ in range(30)
        ]
        observations = [{key.name: rng.normal(size=key.dim) for key in task.contract.observations} for _ in range(31)]
        parts.append(folder / f"{number}.hdf5")
        xml = f"<mujoco>{'<body/>' * 300}{number}</mujoco>"
        write_episode(parts[-1], Episode(number, xml, steps, observations, True))
    assemble(folder / "demos.hdf5", parts, task, {}, valid=[3])
    return folder / "demos.hdf5"


def _read_demonstrations(path: Path) -> Any:
    from lfm_envs.tasks import TASKS
    from lfm_policy.data.demos.file import open_demos

    with open_demos(path, {task.environment: task.contract for task in TASKS.values()}) as file:
        demos = []
        for index in range(len(file)):
            demo = file.read(index)
            arrays = [demo.actions, demo.states, demo.actions_abs, demo.observation]
            arrays += [file.array(index, key) for key in ("actions_executed", "next_obs/object")]
            model = file.model_xml(index)
            demos.append([demo.name, model, *(None if array is None else array.tobytes() for array in arrays)])
        return file.kind, file.contract, file.recording, dict(file.split), demos


def _make_episodes(folder: Path) -> Path:
    from lfm_policy.rollout.episode_log import EpisodeLog
    from lfm_policy.rollout.records import EpisodeResult

    log, rng = EpisodeLog(folder, {"environment": "x"}), np.random.default_rng(0)
    for seed in range(40):
        values = {"steps": 60, "steps_to_success": 31, "chunks": 8, "nfe": 32, "final_reward": 1.0, "workers": 2}
        times = {"chunk_ms": tuple(rng.uniform(1, 9, 8).round(3)), "policy_seconds": 0.1, "wall_seconds": 2.5}
        log.on_end(EpisodeResult(seed=seed, success=True, digest=f"{seed:016x}", **values, **times))
    return folder / "episodes.jsonl"


def _read_episodes(path: Path) -> Any:
    from lfm_policy.rollout.episode_log import read_episodes

    return read_episodes(path)


def _make_checkpoint(folder: Path) -> Path:
    from tests.bundles.policies import policy

    policy(blocks=1).save_pretrained(folder / "policy")
    return folder / "policy"


def _read_checkpoint(path: Path) -> Any:
    from lfm_policy.models.policy import LFMPolicy

    policy = LFMPolicy.from_pretrained(path, trust_code=True)
    return policy.digest(), policy.contract, {name: value.tolist() for name, value in policy.named_buffers()}


def _make_bundle(folder: Path) -> Path:
    import lfm_pretrained

    shutil.copytree(Path(lfm_pretrained.__file__).parent / "lift", folder / "lift")
    return folder / "lift"


def _read_bundle(path: Path) -> Any:
    from lfm_policy.bundles.open import open_policy

    policy = open_policy(path, runtime="onnx")
    histories = np.full((1, policy.observation_steps, policy.contract.observation_dim), 0.1, np.float32)
    chunks = policy.predict(histories, np.zeros((1, *policy.noise_shape), np.float32))
    return policy.contract, chunks.actions.tolist()


def _make_metrics(folder: Path) -> Path:
    from lfm_policy.training.log import LogSettings, RunLog

    with RunLog(folder, {}, LogSettings(mode="disabled")) as log:
        for step in range(1, 200):
            log.log(step, {"loss": 1 / step, "seconds": 0.01})
    return folder / "metrics.jsonl"


def _resume_metrics(path: Path) -> Any:
    """What a training does with it; a log may lose or change a line, but never stops one."""
    from lfm_policy.training.log import LogSettings, RunLog, read_metrics

    with RunLog(path.parent, {}, LogSettings(mode="disabled"), start=150) as log:
        log.log(151, {"loss": 0.0})
    return read_metrics(path)[-1:] == [{"step": 151, "loss": 0.0}]


KINDS = {
    "store": Kind(_make_store, _read_store),
    "demonstrations": Kind(_make_demonstrations, _read_demonstrations),
    "episodes": Kind(_make_episodes, _read_episodes, lambda before, after: before[: len(after)] == after),
    "checkpoint": Kind(_make_checkpoint, _read_checkpoint),
    "pictures": Kind(_make_pictures, _read_store),
    "bundle": Kind(_make_bundle, _read_bundle),
    "metrics": Kind(_make_metrics, _resume_metrics),
}


def main() -> None:
    """Print a line for each kind, and every case that went wrong."""
    given = dict(argument.split("=", 1) for argument in sys.argv[1:])
    for name in given.get("kinds", ",".join(KINDS)).split(","):
        outcomes, wrong = run(name, int(given.get("count", 2000)), int(given.get("seed", 0)))
        print(f"{name}: {dict(outcomes)}", flush=True)
        for line in wrong[: int(given.get("show", 10))]:
            print(f"    {line}", flush=True)


if __name__ == "__main__":
    main()
