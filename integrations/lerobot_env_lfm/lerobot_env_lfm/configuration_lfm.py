"""The settings of an environment in LeRobot; each is also an argument, `--env.task=lift`."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any

from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.envs import EnvConfig

from lerobot_env_lfm.view import KEYS, make_view
from lfm_envs.tasks import TASKS
from lfm_policy.data.lerobot.info import ACTION, ENV_STATE
from lfm_policy.data.lerobot.names import columns_of
from lfm_policy.errors import ConfigError, nearest

Envs = dict[str, dict[int, VectorEnv]]
_KINDS = {ENV_STATE: FeatureType.ENV}


@EnvConfig.register_subclass("lfm")
@dataclass
class LFMEnvConfig(EnvConfig):
    """One of the tasks, its observations as numbers: the robot's in `observation.state`, the scene's beside it.

    Args:
        task: lift, can, square, transport or tool_hang.
        fps: control steps per second; the task decides.
        render: draw the videos that lerobot-eval writes; False, where no renderer is available: black ones.
        features: of observations and actions; the task decides.
        features_map: their names in policies.
    """

    task: str | None = "lift"
    fps: int = 20
    render: bool = True
    features: dict[str, PolicyFeature] = field(default_factory=dict)
    features_map: dict[str, str] = field(
        default_factory=lambda: {ACTION: ACTION} | {ours: key for key, ours in KEYS.items()}
    )

    def __post_init__(self) -> None:
        """Fill in what the task decides; raise ConfigError where there is no such task."""
        if self.task not in TASKS:
            raise ConfigError(f"env.task={self.task}: expected one of the tasks; {nearest(str(self.task), TASKS)}")
        contract = TASKS[self.task].contract
        self.fps = round(contract.control_hz)
        self.features = {ACTION: PolicyFeature(FeatureType.ACTION, (contract.action_dim,))}
        for key, columns in columns_of(contract).items():
            self.features[KEYS[key]] = PolicyFeature(_KINDS.get(key, FeatureType.STATE), (len(columns),))

    @property
    def gym_kwargs(self) -> dict[str, Any]:
        """Arguments of `make_view`."""
        return {"task": self.task, "render": self.render}

    def create_envs(self, n_envs: int, use_async_envs: bool = False) -> Envs:
        """Make the environments, in processes of their own where asked for; see `EnvConfig`."""
        makers = [partial(make_view, **self.gym_kwargs)] * n_envs
        if use_async_envs and n_envs > 1:
            made = AsyncVectorEnv(makers, context="forkserver", autoreset_mode=AutoresetMode.SAME_STEP)
        else:
            made = SyncVectorEnv(makers, autoreset_mode=AutoresetMode.SAME_STEP)
        return {self.type: {0: made}}
