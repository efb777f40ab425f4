"""Policies that see: how fast pictures are drawn and read, and what seeing costs of a chunk."""

import itertools
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from lfm_cli.benchmarks import Ratio, Settings, Skipped, alternate
from lfm_envs.robosuite_env import RobosuiteEnvironment
from lfm_envs.tasks import TASKS, task
from lfm_policy.contract import Camera, Contract, Drawing
from lfm_policy.data.windows.disk import StreamedWindows
from lfm_policy.data.windows.frames import read_frames
from lfm_policy.data.windows.memory import Windows
from lfm_policy.data.windows.store import Episode, open_store, write_store

SIDE, CAMERAS = 84, ("agentview", "robot0_eye_in_hand")
BATCH = 64
EPISODES, LENGTH = 40, 100
"""Of the synthetic data set that windows are read from."""
SEED = 100000


def measure(settings: Settings) -> Iterator[Ratio | Skipped]:
    """Yield the suite's ratios."""
    for name in ("lift", "can"):
        yield _frames(name, settings)
    yield _reset(settings)
    yield _windows(settings)
    yield _chunk(settings)


def _frames(name: str, settings: Settings) -> Ratio:
    sides = [_environment(name, drawing) for drawing in ("coarse", "full")]
    for side in sides:
        side.reset(SEED)
    times = alternate([side.look for side in sides], settings.repeats, settings.seconds)
    for side in sides:
        side.close()
    ours, theirs = (len(CAMERAS) / seconds for seconds in times)
    note = f"pictures of {SIDE} x {SIDE} of {' and '.join(CAMERAS)}, one process; theirs: robosuite's full drawing"
    return Ratio(f"pictures.frames_{name}", ours / theirs, None, ours, theirs, "frames/s", note)


def _reset(settings: Settings) -> Ratio:
    kept, seeds = _environment("lift", "coarse"), itertools.count(SEED)

    def again() -> None:
        kept.reset(next(seeds))
        kept.look()

    def anew() -> None:
        fresh = _environment("lift", "coarse")
        fresh.reset(next(seeds))
        fresh.look()
        fresh.close()

    ours, theirs = (1e3 * seconds for seconds in alternate([again, anew], settings.repeats, settings.seconds))
    kept.close()
    note = "Lift: reset and the first pictures of both cameras; theirs: with a new simulation and renderer"
    return Ratio("pictures.reset_lift", theirs / ours, None, ours, theirs, "ms", note)


def _environment(name: str, drawing: Drawing) -> RobosuiteEnvironment:
    cameras = tuple(Camera(name=camera, height=SIDE, width=SIDE, drawing=drawing) for camera in CAMERAS)
    return RobosuiteEnvironment(task(name), cameras=cameras)


def _windows(settings: Settings) -> Ratio:
    """Measure random batches of windows with their pictures, held in memory and read from disk."""
    with tempfile.TemporaryDirectory(prefix="lfm-benchmark-") as folder:
        path = Path(folder) / "pictures.zarr"
        cameras = tuple(Camera(name=name, height=SIDE, width=SIDE) for name in CAMERAS)
        contract = Contract.model_validate(dict(TASKS["lift"].contract) | {"cameras": cameras})
        write_store(path, _episodes(contract), contract, {"train": range(EPISODES)}, {})
        store = open_store(path)
        held = Windows.from_store(store, frames=read_frames(store))
        streamed = StreamedWindows.from_store(store, frames=read_frames(store, resident=False))
        sides = [lambda: _batch(held), lambda: _batch(streamed)]
        ours, theirs = (BATCH / seconds for seconds in alternate(sides, settings.repeats, settings.seconds))
    note = f"random windows with two pictures each in batches of {BATCH}, in memory; theirs: from unpacked files"
    return Ratio("pictures.windows", ours / theirs, None, ours, theirs, "windows/s", note)


def _episodes(contract: Contract) -> Iterator[Episode]:
    random, shape = np.random.default_rng(0), cast(Sequence[int], contract.frames_shape)
    for _ in range(EPISODES):
        observation = random.standard_normal((LENGTH, contract.observation_dim), np.float32)
        action = random.standard_normal((LENGTH, contract.action_dim), np.float32)
        yield Episode(observation, action, random.integers(0, 256, (LENGTH, *shape), np.uint8))


def _batch(windows: Windows | StreamedWindows) -> None:
    windows.gather(torch.randint(len(windows), (BATCH,)))


def _chunk(settings: Settings) -> Ratio | Skipped:
    from lfm_policy.bundles.open import open_policy

    policy: Any = None if settings.policy is None else open_policy(settings.policy)
    if getattr(policy, "sight", None) is None:
        return Skipped("pictures.chunk", "no policy with cameras given: policy=DIR")
    frames = torch.zeros(1, *policy.contract.frames_shape, dtype=torch.uint8)
    history = torch.zeros(1, policy.observation_steps, policy.contract.observation_dim)
    noise = torch.zeros(1, *policy.noise_shape)
    with policy.computing():
        condition = policy.condition(history, policy.see(frames))
        sides = [lambda: policy.see(frames), lambda: policy.chain.to_data(noise, condition)]
        seeing, acting = (1e3 * seconds for seconds in alternate(sides, settings.repeats, settings.seconds))
        nfe = policy.chain.to_data(noise, condition).nfe
    note = f"of one chunk: all encoders once; theirs: the chain's {nfe} evaluations"
    return Ratio("pictures.chunk", acting / seeing, None, seeing, acting, "ms", note)
