"""Scripted experts: one per task, driven through the same controller and rate as human demonstrations."""

from lfm_envs.experts.base import Command, Expert
from lfm_envs.lookup import load_object
from lfm_envs.tasks import TASKS, task
from lfm_policy.errors import ConfigError

__all__ = ["Command", "Expert", "expert"]


def expert(name: str) -> Expert:
    """Find the expert that the task of this name or address says.

    Raises:
        ConfigError: there is no such task, or it has none.
    """
    found = task(name).expert
    if found is None:
        known = ", ".join(name for name, entry in TASKS.items() if entry.expert)
        raise ConfigError(
            f"no scripted expert for task '{name}': give its Task an expert; tasks that have one: {known}"
        )
    return load_object(found) if isinstance(found, str) else found
