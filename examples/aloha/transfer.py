"""Aloha's transfer of a cube, seen as states, joints and the cube's pose: no picture is drawn."""

import gymnasium
import numpy as np
from gym_aloha.env import AlohaEnv
from gym_aloha.tasks.sim import TransferCubeTask
from gymnasium.spaces import Box, Dict


class States(TransferCubeTask):
    """The task without its three cameras."""

    def get_observation(self, physics):
        """Return joints and grippers (14,) as actions count them, and the cube's position [m] and quaternion wxyz."""
        return {"agent_pos": self.get_qpos(physics), "cube": self.get_env_state(physics)}


class TransferCube(AlohaEnv):
    """An action is the 14 targets of both arms' joints [rad] and grippers (0 closed, 1 open)."""

    def __init__(self, render_mode=None):
        super().__init__("transfer_cube", "pixels_agent_pos", render_mode)
        self._env._task = States()
        self.observation_space = Dict(agent_pos=Box(-10, 10, (14,), np.float64), cube=Box(-10, 10, (7,), np.float64))
        self.action_space = Box(-np.pi, np.pi, (14,), np.float32)

    def _format_raw_obs(self, raw_obs):
        return dict(raw_obs)


if "transfer/Cube-v0" not in gymnasium.registry:
    gymnasium.register("transfer/Cube-v0", "transfer:TransferCube", max_episode_steps=300)
