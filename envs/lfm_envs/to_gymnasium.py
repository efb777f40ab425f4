"""The robosuite tasks as environments of Gymnasium: `gymnasium.make("lfm/Lift-v0")`.

`import lfm_envs` registers them. Episodes are those of `lfm_envs.make`, bit for bit, where `reset` is given a seed.
"""

from typing import Any, Literal, SupportsFloat

import gymnasium
import numpy as np
from gymnasium import spaces

from lfm_envs.registry import make
from lfm_envs.tasks import TASKS
from lfm_policy.contract import Contract
from lfm_policy.control.limits import in_metres
from lfm_policy.protocols import Environment, Observation

NAMESPACE = "lfm"
REACH_M = 3.0
"""Farthest commanded position from the origin, along each axis [m]."""
PICTURE = (512, 512)
"""Width and height of `render`'s pictures [pixels]."""


class LFMEnv(gymnasium.Env):
    """An environment of `lfm_envs.make` as Gymnasium asks for it.

    `terminated` is success, `truncated` the horizon (Gymnasium's TimeLimit, `max_episode_steps`); `info["is_success"]`
    is there after every step and reset. Actions are as in `contract`.

    Args:
        environment: name for `lfm_envs.make`.
        obs_type: "state": one float32 vector in the contract's order; "dict": its entries by name, float64.
        render_mode: "rgb_array" or None.
        options: of `lfm_envs.make`.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012 (Gymnasium's form)

    def __init__(
        self,
        environment: str,
        obs_type: Literal["state", "dict"] = "state",
        render_mode: str | None = None,
        **options: Any,
    ) -> None:
        self._environment: Environment = make(environment, **options)
        self.contract: Contract = self._environment.contract
        self.metadata = {**self.metadata, "render_fps": round(self.contract.control_hz)}
        self.render_mode, self._flat = render_mode, obs_type == "state"
        self.action_space = action_space(self.contract)
        keys = self.contract.observations
        parts: dict[str, spaces.Space[Any]] = {key.name: _box(key.dim, np.float64) for key in keys}
        self.observation_space = _box(self.contract.observation_dim, np.float32) if self._flat else spaces.Dict(parts)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start the episode of `seed`; without one, that of the next number that this environment's generator draws."""
        super().reset(seed=seed)
        episode = int(self.np_random.integers(2**31)) if seed is None else seed
        observation = self._environment.reset(episode)
        return self._seen(observation), {"is_success": False, "seed": episode}

    def step(self, action: np.ndarray) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Execute one action for one control period."""
        result = self._environment.step(action)
        return self._seen(result.observation), result.reward, result.success, False, {"is_success": result.success}

    def render(self) -> Any:
        """Show the scene as uint8 (height, width, 3) with render_mode "rgb_array"."""
        return self._environment.render(*PICTURE) if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        """Release the simulator."""
        self._environment.close()

    def _seen(self, observation: Observation) -> Any:
        if self._flat:
            return self.contract.flatten(observation)
        return {key.name: np.array(observation[key.name], np.float64) for key in self.contract.observations}


def action_space(contract: Contract) -> spaces.Box:
    """Bound actions: positions by REACH_M, rows of rotations and grippers by 1, other numbers not at all."""
    high = np.full(contract.action_dim, np.inf)
    if contract.poses:
        turn = [np.pi] * 3 if contract.rotation == "axis_angle" else [1.0] * 6
        high = np.tile([*[REACH_M] * 3, *turn, 1.0], contract.arms)
    elif in_metres(contract):
        high[:] = REACH_M
    return spaces.Box(-high, high, dtype=np.float64)


def register_all() -> None:
    """Register every robosuite task as "lfm/CLASS-v0", and the point mass."""
    for name, task in TASKS.items():
        _register(task.environment, f"robosuite/{name}", task.horizon)
    _register("PointMass", "point_mass", 60)


def _register(identity: str, environment: str, horizon: int) -> None:
    full = f"{NAMESPACE}/{identity}-v0"
    if full in gymnasium.registry:
        return
    gymnasium.register(
        full,
        f"{__name__}:{LFMEnv.__name__}",
        max_episode_steps=horizon,
        kwargs={"environment": environment},
        vector_entry_point="lfm_envs.vector:make_threads",
    )


def _box(width: int, dtype: type) -> spaces.Box:
    return spaces.Box(-np.inf, np.inf, (width,), dtype)
