"""A point mass whose goal only a camera sees: a complete task for policies with cameras, without a simulator."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lfm_envs.point_mass import CONTRACT as STATE
from lfm_envs.point_mass import PointMass, expert
from lfm_policy.contract import Camera, Contract
from lfm_policy.data.windows.store import Episode, write_store
from lfm_policy.protocols import Observation

SIDE = 32
CONTRACT = Contract.model_validate(
    dict(STATE) | {"observations": STATE.observations[:1], "cameras": (Camera(name="above", height=SIDE, width=SIDE),)}
)


class SeeingPointMass(PointMass):
    """Shows where the point is by numbers, and where the goal is by a picture."""

    contract = CONTRACT

    def look(self) -> dict[str, np.ndarray]:
        return {"above_image": self.render(SIDE, SIDE)}

    def _observe(self) -> Observation:
        return {"position": self._position.copy()}


def made(cameras: Sequence[Camera]) -> SeeingPointMass:
    """Make it as `lfm_envs.make("tests.seeing:made")` does: with the cameras that a contract asks for."""
    assert tuple(cameras) == CONTRACT.cameras
    return SeeingPointMass()


def store(path: Path, episodes: int = 12) -> Path:
    """Write the expert's demonstrations as a prepared data set."""
    rows = [demonstration(seed) for seed in range(episodes)]
    write_store(path, rows, CONTRACT, {"train": range(1, episodes), "valid": [0]}, {"kind": "seeing point mass"})
    return path


def demonstration(seed: int) -> Episode:
    environment, generator, success = SeeingPointMass(), np.random.default_rng((seed, 1)), False
    observation = environment.reset(seed)
    rows, actions, frames = [], [], []
    while not success:
        actions.append(expert(observation | {"goal": environment._goal}))
        rows.append(CONTRACT.flatten(observation))
        frames.append(CONTRACT.stack(environment.look()))
        result = environment.step(actions[-1] + 0.02 * generator.standard_normal(2))
        observation, success = result.observation, result.success
    return Episode(np.stack(rows), np.stack(actions).astype(np.float32), np.stack(frames))
