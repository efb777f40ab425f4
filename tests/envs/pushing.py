"""A small environment of Gymnasium: a cart that is pushed along a line until it is at 0."""

import gymnasium
import numpy as np
from gymnasium import spaces

LIMIT = 30


class Cart(gymnasium.Env):
    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 (Gymnasium's form)

    def __init__(
        self, render_mode: str | None = None, far: float = 1.0, named: bool = False, fails: bool = False
    ) -> None:
        self.render_mode, self._far, self._named, self._fails = render_mode, far, named, fails
        self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        whole = spaces.Box(-10.0, 10.0, (2,), np.float64)
        part = spaces.Box(-10.0, 10.0, (1,), np.float64)
        self.observation_space = spaces.Dict({"speed": part, "place": part}) if named else whole

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._place, self._speed = self._far * float(self.np_random.uniform(0.5, 1)), 0.0
        return self._seen(), {}

    def step(self, action):
        self._speed = 0.2 * float(action[0])
        self._place += self._speed
        done = abs(self._place) < 0.1
        return self._seen(), 1 - abs(self._place), done or self._fails, False, {"is_success": done}

    def render(self):
        return np.full((20, 40, 3), 7, np.uint8)

    def _seen(self):
        values = [self._place], [self._speed]
        return (
            dict(zip(("place", "speed"), map(np.array, values), strict=True)) if self._named else np.concatenate(values)
        )


gymnasium.register("pushing/Cart-v0", "tests.envs.pushing:Cart", max_episode_steps=LIMIT)
