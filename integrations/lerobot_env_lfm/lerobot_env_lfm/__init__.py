"""robomimic's five tasks in LeRobot, as lfm_envs plays them: `lerobot-eval --env.type=lfm --env.task=lift`.

LeRobot imports this package by itself wherever it is installed.
"""

from lerobot_env_lfm.configuration_lfm import LFMEnvConfig

__all__ = ["LFMEnvConfig"]
