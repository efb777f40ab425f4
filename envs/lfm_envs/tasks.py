"""robosuite tasks: names, horizons, observations, controllers, contracts; robomimic's five, and yours.

A task of your own is one `Task` in a file of yours, for any environment and robots of robosuite, and is named by its
address, "my_module:TASK", wherever a command takes a task or an environment; or registered (`register_task`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any, Literal

from lfm_envs.lookup import is_address, load_object
from lfm_policy.actions.poses import ARM_WIDTH
from lfm_policy.contract import ArmController, Camera, Contract, ObservationKey
from lfm_policy.errors import ConfigError, nearest

CONTROL_HZ = 20
PROPRIOCEPTION = ("eef_pos", "eef_quat", "gripper_qpos")
"""What a policy sees of each robot, in robosuite's names and in this order."""
_CONTROLLER = ArmController()


@dataclass(frozen=True)
class Task:
    """One task as robomimic runs it: single arms with grippers, each behind an operational-space controller."""

    name: str
    """robomimic's name ("lift")."""
    environment: str
    """robosuite's class name ("Lift")."""
    horizon: int
    """Steps after which an episode counts as failed."""
    object_dim: int
    """Width of the observation `object` (robosuite's `object-state`)."""
    robots: tuple[str, ...] = ("Panda",)
    cameras: tuple[str, ...] = ("agentview", "robot0_eye_in_hand")
    """Cameras whose pictures robomimic's policies see."""
    image_size: int = 84
    """Height and width of these pictures [pixels]."""
    options: tuple[tuple[str, Any], ...] = ()
    """Further keyword arguments of the robosuite environment."""
    gripper_dim: int = 2
    """Width of each gripper's observation `gripper_qpos`: 2 for Panda's, 6 for Robotiq's."""
    control_hz: int = CONTROL_HZ
    controller: ArmController = _CONTROLLER
    """Controller of every arm."""
    expert: Callable[..., Any] | str | None = None
    """The scripted expert that `lfm collect` asks (see lfm_envs.experts.Expert), or its address; None without one."""
    modes: str | None = None
    """Address of the ways in which it can be done (`lfm_envs.modes.Modes`); None where one is known."""
    made_by: str | None = None
    """The address that `lfm_envs.make` knows this task by; filled in where the task is looked up."""

    @property
    def arms(self) -> int:
        """Number of controlled arms."""
        return len(self.robots)

    @property
    def observations(self) -> tuple[ObservationKey, ...]:
        """The policy's observation: object first, then each arm's pose and fingers, in robomimic's names."""
        seen = list(zip(PROPRIOCEPTION, (3, 4, self.gripper_dim), strict=True))
        arms = [(f"robot{arm}_{name}", dim) for arm in range(self.arms) for name, dim in seen]
        return tuple(ObservationKey(name=name, dim=dim) for name, dim in [("object", self.object_dim), *arms])

    @property
    def contract(self) -> Contract:
        """What actions and observations of this task mean, with absolute actions in the world frame."""
        return Contract(
            suite_version=version("robosuite"),
            environment=self.environment,
            robots=self.robots,
            control_hz=self.control_hz,
            controllers=(self.controller,) * self.arms,
            action_dim=ARM_WIDTH * self.arms,
            observations=self.observations,
            made_by=self.made_by,
        )

    def view(self, cameras: Sequence[Camera] = (), objects: bool = True, modes: Sequence[str] = ()) -> Contract:
        """Make the contract of a policy that sees these cameras, the objects' poses or not, and takes these ways."""
        seen = tuple(key for key in self.observations if objects or key.name != "object")
        differing = {"observations": seen, "cameras": tuple(cameras), "modes": tuple(modes)}
        return Contract.model_validate(dict(self.contract) | differing)

    def env_kwargs(self, input_type: Literal["absolute", "delta"] = "absolute") -> dict[str, Any]:
        """Return keyword arguments of `robosuite.make` (and of robomimic's `env_args`), plain JSON values only."""
        configs = [controller_config(arm, input_type) for arm in self.contract.controllers]
        return {
            "robots": list(self.robots) if self.arms > 1 else self.robots[0],
            "controller_configs": configs if self.arms > 1 else configs[0],
            "control_freq": self.control_hz,
            "lite_physics": self.contract.lite_physics,
            "has_renderer": False,
            "has_offscreen_renderer": False,
            "use_camera_obs": False,
            "use_object_obs": True,
            "reward_shaping": False,
            "ignore_done": True,
            **dict(self.options),
        }


def controller_config(arm: ArmController, input_type: Literal["absolute", "delta"]) -> dict[str, Any]:
    """Return robosuite's composite controller for a robot with one arm and a gripper."""
    reach = [arm.delta_position_m] * 3 + [arm.delta_rotation_rad] * 3
    part = {
        "type": arm.type,
        "input_max": 1,
        "input_min": -1,
        "output_max": reach,
        "output_min": [-value for value in reach],
        "kp": arm.kp,
        "damping_ratio": arm.damping_ratio,
        "impedance_mode": "fixed",
        "kp_limits": [0, 300],
        "damping_ratio_limits": [0, 10],
        "position_limits": None,
        "orientation_limits": None,
        "uncouple_pos_ori": arm.uncouple_pos_ori,
        "input_type": input_type,
        "input_ref_frame": arm.frame,
        "interpolation": None,
        "ramp_ratio": 0.2,
        "gripper": {"type": "GRIP"},
    }
    return {"type": "BASIC", "body_parts": {"right": part}}


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task("lift", "Lift", horizon=400, object_dim=10, expert="lfm_envs.experts.lift:lift"),
        Task(
            "can",
            "PickPlaceCan",
            horizon=400,
            object_dim=14,
            expert="lfm_envs.experts.can:can",
            modes="lfm_envs.experts.can_two_ways:MODES",
        ),
        Task("square", "NutAssemblySquare", horizon=400, object_dim=14, expert="lfm_envs.experts.square:square"),
        Task(
            "transport",
            "TwoArmTransport",
            horizon=700,
            object_dim=41,
            robots=("Panda", "Panda"),
            cameras=("shouldercamera0", "robot0_eye_in_hand", "shouldercamera1", "robot1_eye_in_hand"),
            options=(("env_configuration", "opposed"),),
            expert="lfm_envs.experts.transport:transport",
        ),
        Task(
            "tool_hang",
            "ToolHang",
            horizon=700,
            object_dim=44,
            cameras=("sideview", "robot0_eye_in_hand"),
            image_size=240,
            expert="lfm_envs.experts.tool_hang:tool_hang",
        ),
    )
}


def register_task(task: Task) -> Task:
    """Make a task known as "robosuite/NAME", in this process; the address "my_module:TASK" is known in every one.

    Raises:
        ConfigError: another task has that name.
    """
    named = replace(task, made_by=f"robosuite/{task.name}")
    if TASKS.setdefault(task.name, named) != named:
        raise ConfigError(f"there is a robosuite task '{task.name}' already: choose another name")
    return named


def task(name: str) -> Task:
    """Find the task of a name ("lift", "robosuite/lift") or an address ("my_module:TASK").

    Raises:
        ConfigError: no such task; names the nearest one.
    """
    name = name.removeprefix("robosuite/")
    if is_address(name):
        found = load_object(name)
        if not isinstance(found, Task):
            raise ConfigError(f"'{name}' is no lfm_envs.tasks.Task, found {type(found).__name__}")
        return replace(found, made_by=name)
    if name not in TASKS:
        raise ConfigError(f"unknown task '{name}': {nearest(name, TASKS)}, or package.module:TASK for one of your own")
    return TASKS[name]


def task_of_environment(environment: str) -> Task:
    """Find the first task whose robosuite class is `environment` ("NutAssemblySquare").

    Raises:
        ConfigError: none uses it; names the nearest one.
    """
    by_environment = {task.environment: task for task in reversed(TASKS.values())}
    if environment not in by_environment:
        raise ConfigError(f"unknown robosuite environment '{environment}': {nearest(environment, by_environment)}")
    return by_environment[environment]
