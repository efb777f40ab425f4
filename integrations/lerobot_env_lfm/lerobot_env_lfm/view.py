"""A task's episodes with the names that LeRobot gives to observations."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

import lfm_envs  # noqa: F401 (registers lfm/Lift-v0 and the others)
from lfm_envs.tasks import TASKS
from lfm_policy.data.lerobot.info import ENV_STATE, STATE
from lfm_policy.data.lerobot.names import columns_of

KEYS = {STATE: "agent_pos", ENV_STATE: "environment_state"}
"""What LeRobot's environments call a feature of its data sets."""
BLACK = (64, 64, 3)
"""Shape of a picture that is not drawn."""
SENTENCES = {
    "lift": "lift the cube",
    "can": "put the can into its bin",
    "square": "put the square nut onto its peg",
    "transport": "hand the hammer over into the other bin",
    "tool_hang": "assemble the stand and hang the tool on it",
}


class LeRobotView(gymnasium.ObservationWrapper):
    """Observations by LeRobot's names; the episodes are those of the environment inside, bit for bit.

    Args:
        env: one of ours, with its flat observations.
        task: its name.
        render: draw pictures; False: black ones.
    """

    def __init__(self, env: gymnasium.Env, task: str, render: bool) -> None:
        super().__init__(env)
        self.task, self.task_description, self._draws = task, SENTENCES.get(task, task), render
        self._columns = {KEYS[key]: columns for key, columns in columns_of(TASKS[task].contract).items()}
        self.observation_space = spaces.Dict(
            {key: spaces.Box(-np.inf, np.inf, (len(columns),), np.float32) for key, columns in self._columns.items()}
        )

    def observation(self, observation: np.ndarray) -> dict[str, np.ndarray]:
        """Divide a flattened observation."""
        return {key: observation[columns] for key, columns in self._columns.items()}

    def render(self) -> Any:
        """Show the scene as uint8 (height, width, 3)."""
        return self.env.render() if self._draws else np.zeros(BLACK, np.uint8)


def make_view(task: str, render: bool = True) -> LeRobotView:
    """Make one task's environment."""
    env = gymnasium.make(f"lfm/{TASKS[task].environment}-v0", disable_env_checker=True, render_mode="rgb_array")
    return LeRobotView(env, task, render)
