"""Scripted experts: one a task, driven through the same controller and rate as human demonstrations."""

from lfm_envs.experts.base import Command, Expert
from lfm_envs.experts.can import can
from lfm_envs.experts.lift import lift
from lfm_envs.experts.square import square
from lfm_envs.experts.tool_hang import tool_hang
from lfm_envs.experts.transport import transport
from lfm_policy.errors import ConfigError, nearest

EXPERTS: dict[str, Expert] = {
    "lift": lift,
    "can": can,
    "square": square,
    "transport": transport,
    "tool_hang": tool_hang,
}

__all__ = ["EXPERTS", "Command", "Expert", "expert"]


def expert(task: str) -> Expert:
    """The expert of a task.

    Raises:
        ConfigError: the task has none; names the nearest task that has one.
    """
    if task not in EXPERTS:
        raise ConfigError(f"no scripted expert for task '{task}': {nearest(task, EXPERTS)}")
    return EXPERTS[task]
