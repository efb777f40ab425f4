"""An environment of one's own, as Gymnasium has them: a cart on a rail that is to stop at a mark."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces


class Cart(gymnasium.Env):
    """The action is the cart's acceleration [m/s²]; the reward is 1 at the mark and falls with the distance."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012 (Gymnasium's form)

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.action_space = spaces.Box(-2.0, 2.0, (1,), np.float32)
        part = spaces.Box(-10.0, 10.0, (1,), np.float64)
        self.observation_space = spaces.Dict({"place": part, "speed": part, "mark": part})

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Put the cart and the mark somewhere."""
        super().reset(seed=seed)
        self.place, self.mark = self.np_random.uniform(-1, 1, 2)
        self.speed = 0.0
        return self._seen(), {}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Accelerate for 0.05 s."""
        self.speed += 0.05 * float(np.clip(action[0], -2, 2))
        self.place += 0.05 * self.speed
        away = abs(self.place - self.mark)
        stopped = away < 0.03 and abs(self.speed) < 0.05
        return self._seen(), 1 - min(away, 1.0), stopped, False, {"is_success": stopped}

    def render(self) -> np.ndarray:
        """Draw the rail, the mark in green and the cart in black: uint8 (40, 200, 3)."""
        image = np.full((40, 200, 3), 255, np.uint8)
        for x, colour in ((self.mark, (60, 160, 90)), (self.place, (0, 0, 0))):
            column = int(np.clip(100 + 60 * x, 3, 196))
            image[10:30, column - 3 : column + 3] = colour
        return image

    def _seen(self) -> dict[str, np.ndarray]:
        return {name: np.array([getattr(self, name)]) for name in ("place", "speed", "mark")}


if "cart/Cart-v0" not in gymnasium.registry:
    gymnasium.register("cart/Cart-v0", "cart:Cart", max_episode_steps=150)
