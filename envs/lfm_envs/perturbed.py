"""Environments in which something goes wrong on purpose, to see whether a monitor notices."""

from collections.abc import Callable, Mapping
from typing import Any, get_args

import numpy as np

from lfm_policy.choices import Perturbation
from lfm_policy.errors import ConfigError, nearest
from lfm_policy.protocols import Environment, Observation, SeeingEnvironment, StepResult, TellingEnvironment

NOISE = 0.2
"""Standard deviation of a noisy sensor, as a share of the distance that "moved" shifts."""
COVERED = 0.5
"""Height and width of what hides a camera's view, as shares of the picture's."""
OPENED = -1.0
"""Command of an open gripper, in every contract."""


CAMERAS = {"occluded": 1, "swapped": 2}
"""How many cameras a disturbance needs."""


class Perturbed:
    """An environment that is disturbed from one step of each episode on. Implements `Environment`.

    Args:
        environment: the undisturbed one.
        kind: "moved" shifts the objects (of a point mass: the goal) sideways, once. "order" gives the numbers of the
            observation in the reverse order of the keys. "frozen" repeats the first observation key's last value,
            "noisy" adds white noise to it. "loose" keeps the fingers open, whatever they are told.
            "occluded" puts a black rectangle over the first camera's pictures, at a place that the episode's seed
            decides. "swapped" shows each camera's pictures as those of the one before it.
        step: the first step whose observation, or action, is disturbed.
        distance_m: how far "moved" shifts, in a direction that the episode's seed decides [m]; of "noisy" the standard
            deviation is a fifth of it.

    Raises:
        ConfigError: unknown kind (names the nearest one), or there is nothing to move, or there are no fingers or
            cameras that it needs.
    """

    def __init__(self, environment: Environment, kind: str, step: int, distance_m: float = 0.08) -> None:
        if kind not in get_args(Perturbation):
            raise ConfigError(f"unknown perturbation '{kind}': {nearest(kind, get_args(Perturbation))}")
        self._environment, self._kind, self._from, self._distance = environment, kind, step, distance_m
        self.contract, self.horizon = environment.contract, environment.horizon
        if kind == "loose" and not self.contract.grippers:
            raise ConfigError(f"{self.contract.environment} has no fingers that could stay open")
        if (needed := CAMERAS.get(kind, 0)) > len(self.contract.cameras):
            found = len(self.contract.cameras)
            raise ConfigError(f"{self.contract.environment}: '{kind}' needs {needed} camera(s), found {found}")

    def reset(self, seed: int) -> Observation:
        """Start the episode of `seed`, undisturbed unless `step` is 0."""
        angle = np.random.default_rng((seed, 2)).uniform(0, 2 * np.pi)
        self._shift = self._distance * np.array([np.cos(angle), np.sin(angle)])
        self._rng = np.random.default_rng((seed, 3))
        self._corner = np.random.default_rng((seed, 4)).uniform(0, 1 - COVERED, 2)
        self._steps = 0
        self._frozen: np.ndarray | None = None
        return self._seen(self._environment.reset(seed))

    def step(self, action: np.ndarray) -> StepResult:
        """Make one step; the object moves before it, what is observed is disturbed after it."""
        self._steps += 1
        if self._kind == "moved" and self._steps == self._from:
            shift_objects(self._environment, self._shift)
        if self._kind == "loose" and self._steps >= self._from:
            action = np.array(action)
            action[list(self.contract.grippers)] = OPENED
        result = self._environment.step(action)
        return StepResult(self._seen(result.observation), result.reward, result.success)

    def look(self) -> Mapping[str, np.ndarray]:
        """Return what the cameras see, disturbed as what is observed."""
        assert isinstance(self._environment, SeeingEnvironment)
        pictures = dict(self._environment.look())
        if self._steps < self._from:
            return pictures
        keys = [camera.key for camera in self.contract.cameras]
        if self._kind == "occluded":
            pictures[keys[0]] = self._covered(pictures[keys[0]])
        if self._kind == "swapped":
            pictures |= {key: pictures[other] for key, other in zip(keys, keys[1:] + keys[:1], strict=True)}
        return pictures

    def mode(self) -> str | None:
        """Tell which of the contract's modes the episode has taken, as it really is."""
        assert isinstance(self._environment, TellingEnvironment)
        return self._environment.mode()

    def render(self, width: int, height: int) -> np.ndarray:
        """Return the scene as it really is."""
        return self._environment.render(width, height)

    def close(self) -> None:
        """Release the simulator."""
        self._environment.close()

    def _seen(self, observation: Observation) -> Observation:
        if self._kind == "order" and self._steps >= self._from:
            return self._reordered(observation)
        if self._kind == "noisy" and self._steps >= self._from:
            key = self.contract.observations[0].name
            exact = np.asarray(observation[key])
            return {**observation, key: exact + NOISE * self._distance * self._rng.standard_normal(exact.shape)}
        if self._kind == "frozen":
            key = self.contract.observations[0].name
            if self._steps < self._from or self._frozen is None:
                self._frozen = np.array(observation[key])
            return {**observation, key: self._frozen}
        return observation

    def _covered(self, picture: np.ndarray) -> np.ndarray:
        """Return a picture (height, width, 3) with a black rectangle."""
        sides = np.array(picture.shape[:2])
        top, left = (self._corner * sides).astype(int)
        height, width = (COVERED * sides).astype(int)
        covered = picture.copy()
        covered[top : top + height, left : left + width] = 0
        return covered

    def _reordered(self, observation: Observation) -> Observation:
        keys = self.contract.observations
        numbers = np.concatenate([np.asarray(observation[key.name]) for key in reversed(keys)])
        ends = np.cumsum([key.dim for key in keys])[:-1]
        parts: Mapping[str, Any] = dict(zip([key.name for key in keys], np.split(numbers, ends), strict=True))
        return {**observation, **parts}


def perturbed(make: Callable[[], Environment], kind: str, step: int) -> Perturbed:
    """Make an environment and disturb it: what another process can be given."""
    return Perturbed(make(), kind, step)


def shift_objects(environment: Environment, shift_m: np.ndarray) -> None:
    """Move everything that lies loose by `shift_m` (2,) in the horizontal plane [m]; a point mass: its goal.

    Raises:
        ConfigError: the environment has nothing loose.
    """
    from lfm_envs.point_mass import PointMass

    if isinstance(environment, PointMass):
        environment._goal = np.clip(environment._goal + shift_m, -1, 1)
        return
    import mujoco

    sim = environment.simulation.sim  # pyright: ignore[reportAttributeAccessIssue]
    model, data = sim.model._model, sim.data._data
    loose = np.flatnonzero(model.jnt_type == mujoco.mjtJoint.mjJNT_FREE)  # pyright: ignore[reportAttributeAccessIssue]
    if not len(loose):
        raise ConfigError(f"{environment.contract.environment} has no loose object that could be moved")
    for joint in loose:
        first = model.jnt_qposadr[joint]
        data.qpos[first : first + 2] += shift_m
    mujoco.mj_forward(model, data)  # pyright: ignore[reportAttributeAccessIssue]
