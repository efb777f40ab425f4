"""A point that moves to a goal in the plane: a complete task without a simulator, for testing a whole pipeline."""

import numpy as np

from lfm_policy.contract import Contract, ObservationKey
from lfm_policy.errors import ContractError
from lfm_policy.protocols import Observation, StepResult

CONTRACT = Contract(
    suite="builtin",
    suite_version="1",
    environment="PointMass",
    robots=("point",),
    controllers=(),
    rotation="none",
    action_dim=2,
    observations=(ObservationKey(name="position", dim=2), ObservationKey(name="goal", dim=2)),
)

SPEED_M = 0.08
"""Farthest the point moves in one control period [m]."""
REACH_M = 0.04
"""Distance to the goal that counts as success [m]."""


class PointMass:
    """Position control in the square [-1, 1]² [m]: the action is the position to go to; the goal is 0.5 m away or more.

    Implements `lfm_policy.protocols.Environment`. The straight way takes 6 to 35 steps.
    """

    contract = CONTRACT
    horizon = 60

    def __init__(self) -> None:
        self._position = np.zeros(2)
        self._goal = np.zeros(2)

    def reset(self, seed: int) -> Observation:
        """Draw start and goal [m] from `seed` alone."""
        generator = np.random.default_rng(seed)
        self._position, self._goal = generator.uniform(-1, 1, (2, 2))
        while np.linalg.norm(self._goal - self._position) < 0.5:
            self._goal = generator.uniform(-1, 1, 2)
        return self._observe()

    def step(self, action: np.ndarray) -> StepResult:
        """Move towards the target `action`, shape (2,) [m], by at most SPEED_M.

        Raises:
            ContractError: the action has another shape or is not finite.
        """
        action = np.asarray(action, dtype=np.float64)
        if action.shape != (2,) or not np.isfinite(action).all():
            raise ContractError(f"PointMass: expected a finite action of shape (2,), found {action!r}")
        self._position = np.clip(self._position + _limited(action - self._position), -1, 1)
        success = bool(np.linalg.norm(self._goal - self._position) < REACH_M)
        return StepResult(self._observe(), float(success), success)

    def render(self, width: int, height: int) -> np.ndarray:
        """Draw goal (green ring of the size that counts) and point (dark disc) on white: uint8 (height, width, 3)."""
        x, y = np.meshgrid(np.linspace(-1.1, 1.1, width), np.linspace(1.1, -1.1, height))
        image = np.full((height, width, 3), 255, np.uint8)
        to_goal, to_point = (np.hypot(x - centre[0], y - centre[1]) for centre in (self._goal, self._position))
        image[to_goal < 2 * REACH_M] = (60, 160, 90)
        image[to_goal < REACH_M] = (200, 235, 205)
        image[to_point < 0.75 * REACH_M] = (40, 50, 70)
        return image

    def close(self) -> None:
        """Do nothing: there is nothing to release."""

    def _observe(self) -> Observation:
        return {"position": self._position.copy(), "goal": self._goal.copy()}


def expert(observation: Observation) -> np.ndarray:
    """Return the expert's action: the farthest reachable target on the straight way to the goal, shape (2,) [m]."""
    return observation["position"] + _limited(observation["goal"] - observation["position"])


def demonstrations(episodes: int, seed: int, noise_m: float = 0.02) -> list[tuple[dict[str, np.ndarray], np.ndarray]]:
    """Return successful expert episodes: observations (L, 2) by key, and actions float32 (L, 2) [m].

    Normal noise of standard deviation `noise_m` [m] disturbs the executed action; the recorded one stays the expert's,
    so that the data shows how to correct (as DART, arXiv 1703.09327).
    """
    return [_demonstration(seed + number, noise_m) for number in range(episodes)]


def _demonstration(seed: int, noise_m: float) -> tuple[dict[str, np.ndarray], np.ndarray]:
    environment = PointMass()
    generator = np.random.default_rng((seed, 1))
    observation, success = environment.reset(seed), False
    rows, actions = [], []
    while not success:
        action = expert(observation)
        rows.append(observation)
        actions.append(action)
        result = environment.step(action + noise_m * generator.standard_normal(2))
        observation, success = result.observation, result.success
    keys = {key.name: np.stack([row[key.name] for row in rows]).astype(np.float32) for key in CONTRACT.observations}
    return keys, np.stack(actions).astype(np.float32)


def _limited(displacement: np.ndarray) -> np.ndarray:
    return displacement * min(1.0, SPEED_M / max(float(np.linalg.norm(displacement)), 1e-12))
