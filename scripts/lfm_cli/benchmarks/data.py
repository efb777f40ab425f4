"""Window reading against robomimic's own data set class at equal outputs, and data that stay on disk.

Both sides serve batches of all windows in a fresh order: 16 observations and 16 actions, episodes padded by repetition.
The data are synthetic, in the files' real formats, as large as Lift's 200 demonstrations.
"""

import contextlib
import io
import itertools
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import Progress
from torch.utils.data import DataLoader

from lfm_cli.benchmarks import Ratio, Settings, Skipped, alternate
from lfm_envs import episodes, prepare
from lfm_envs.replay import from_axis_angle
from lfm_envs.tasks import TASKS
from lfm_policy.data.demos.file import open_demos
from lfm_policy.data.windows.disk import StreamedWindows
from lfm_policy.data.windows.memory import WindowBatch, WindowIndex, Windows
from lfm_policy.data.windows.store import Episode, open_store, write_store

TARGET = 20.0
BATCH, HORIZON, STACK = 256, 16, 2
TASK = TASKS["lift"]
EPISODES, LENGTH = 200, 60
LARGE = 1_000_000
"""Steps of the data set that is read from disk."""
BATCHES = 100
"""Random batches drawn from it in each measurement."""


def measure(settings: Settings) -> Iterator[Ratio | Skipped]:
    """Yield the suite's ratios."""
    with tempfile.TemporaryDirectory(prefix="lfm-benchmark-") as folder:
        try:
            import robomimic.utils.dataset as _  # noqa: F401
        except ImportError as error:
            for name in ("windows", "loading", "prepare"):
                yield Skipped(f"data.{name}_vs_robomimic", f"robomimic cannot be imported: {error}")
        else:
            yield from _robomimic(Path(folder), settings)
        yield from _streamed(Path(folder))


def _robomimic(folder: Path, settings: Settings) -> Iterator[Ratio]:
    file, store = folder / "demos.hdf5", folder / "demos.zarr"
    write_demonstrations(file)
    prepare_store(file, store)
    held, theirs = windows(store), sequence_dataset(file, "all")
    require_equal(held, theirs)
    note = f"{len(held)} windows in batches of {BATCH} at equal outputs; "
    sides = [lambda: _pass(held), lambda: _pass_theirs(theirs)]
    yield _ratio("windows", sides, len(held), settings, note + "theirs with hdf5_cache_mode=all, both caches loaded")

    def load_theirs() -> None:
        _pass_theirs(sequence_dataset(file, "low_dim"))

    sides = [lambda: _pass(windows(store)), load_theirs]
    yield _ratio("loading", sides, len(held), settings, note + "from the file to the end of the first pass")

    fresh = (folder / f"{number}.zarr" for number in itertools.count())

    def prepare_and_load() -> None:
        store = next(fresh)
        prepare_store(file, store)
        _pass(windows(store))

    note += "ours with the conversion from HDF5, once for all runs, to the end of the first pass"
    yield _ratio("prepare", [prepare_and_load, load_theirs], len(held), settings, note)


def _ratio(name: str, sides: list[Callable[[], None]], count: int, settings: Settings, note: str) -> Ratio:
    ours, theirs = (count / seconds for seconds in alternate(sides, settings.repeats, settings.seconds))
    return Ratio(f"data.{name}_vs_robomimic", ours / theirs, TARGET, ours, theirs, "windows/s", note)


def write_demonstrations(file: Path, count: int = EPISODES, length: int = LENGTH) -> None:
    """Write random numbers as a file of lfm collect."""
    random, parts = np.random.default_rng(0), []
    for number in range(count):
        episode = episodes.Episode(number, "", success=True)
        rows = {"actions": 7, "actions_abs": 7, "states": 32}
        episode.steps = [
            {key: random.uniform(-1, 1, width) for key, width in rows.items()} | {"rewards": 0.0, "dones": 0}
            for _ in range(length)
        ]
        episode.observations = [
            {key.name: random.standard_normal(key.dim) for key in TASK.observations} for _ in range(length + 1)
        ]
        parts.append(file.with_name(f"{number}.hdf5"))
        episodes.write_episode(parts[-1], episode)
    episodes.assemble(file, parts, TASK, {}, valid=[])


def prepare_store(file: Path, out: Path) -> None:
    """Do what lfm prepare does."""
    with open_demos(file, {TASK.environment: TASK.contract}) as demos, Progress(disable=True) as bar:
        converted = prepare.convert_all([prepare.Tally(demos, demos.path.name)], prepare.joint_split([demos]), bar)
        write_store(out, converted, demos.contract, demos.split, demos.source())


def windows(path: Path) -> Windows:
    """Make as many windows, and as large, as robomimic's class: one begins at every step, with all observations."""
    store = open_store(path)
    observation, action, ends = (torch.from_numpy(array) for array in store.read("train"))
    index = WindowIndex.of(ends, HORIZON, STACK, HORIZON - STACK + 1)
    return Windows(observation, action, index.rows(torch.arange(len(index))), HORIZON)


def sequence_dataset(file: Path, cache: str) -> Any:
    """Return robomimic's data set of the same windows."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        from robomimic.utils import obs_utils
        from robomimic.utils.dataset import SequenceDataset

        keys = [key.name for key in TASK.observations]
        obs_utils.initialize_obs_utils_with_obs_specs({"obs": {"low_dim": keys}})
        return SequenceDataset(
            str(file),
            obs_keys=keys,
            dataset_keys=["actions_abs"],
            frame_stack=STACK,
            seq_length=HORIZON - STACK + 1,
            hdf5_cache_mode=cache,
            load_next_obs=False,
        )


def require_equal(ours: Windows, theirs: Any) -> None:
    """Raise AssertionError unless every window is the same: observations bit for bit, rotations within 1e-6."""
    whole = ours.gather(torch.arange(len(ours)))
    assert len(ours) == len(theirs)
    for n, item in enumerate(theirs):
        observation = np.concatenate([item["obs"][key.name] for key in TASK.observations], axis=1)
        np.testing.assert_array_equal(whole.observation[n].numpy(), observation.astype(np.float32))
        action = from_axis_angle(item["actions_abs"].astype(np.float64))
        np.testing.assert_allclose(whole.action[n].numpy(), action, atol=1e-6)


def _pass(windows: Windows) -> None:
    for index in torch.randperm(len(windows)).split(BATCH):
        windows.gather(index)


def _pass_theirs(dataset: Any) -> None:
    for _ in DataLoader(dataset, BATCH, shuffle=True):  # in this process: robomimic's default for such data
        pass


def _streamed(folder: Path) -> Iterator[Ratio]:
    path = folder / "large.zarr"
    write_store(path, _large(), TASK.contract, {"train": range(LARGE // 1000)}, {})
    sides = []
    for kind in ("streamed", "resident"):  # a process each, so that each has its own peak
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            sides.append(pool.submit(read_large, str(path), kind).result())
    (ours, our_memory), (theirs, their_memory) = sides
    note = f"random windows of {LARGE:,} steps in batches of {BATCH}, read from disk; theirs: held in memory"
    yield Ratio("data.streamed_vs_resident", ours / theirs, None, ours, theirs, "windows/s", note)
    note = "growth of the process's peak memory by the same, its start included"
    yield Ratio("data.streamed_memory", their_memory / our_memory, None, our_memory, their_memory, "MB", note)


def read_large(path: str, kind: str) -> tuple[float, float]:
    """Return windows per second, and how much more memory the process took at its peak [MB]."""
    torch.set_num_threads(1)
    torch.randn(1000, 1000)
    before, source = _memory("VmRSS"), open_store(path)
    windows = StreamedWindows.from_store(source) if kind == "streamed" else Windows.from_store(source)

    def draw() -> WindowBatch:
        return windows.gather(torch.randint(len(windows), (BATCH,)))

    seconds = alternate([draw], BATCHES, 0.0)[0]
    return BATCH / seconds, _memory("VmHWM") - before


def _large() -> Iterator[Episode]:
    random = np.random.default_rng(0)
    widths = TASK.contract.observation_dim, TASK.contract.action_dim
    for _ in range(LARGE // 1000):
        yield Episode(*(random.standard_normal((1000, width), dtype=np.float32) for width in widths))


def _memory(key: str) -> float:
    """Read the process's memory (on Linux): VmRSS, now in main memory; VmHWM, the most there ever was [MB]."""
    line = next(
        line for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines() if line.startswith(key)
    )
    return int(line.split()[1]) / 1024
