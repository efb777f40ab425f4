"""Environments for LFM policies: robosuite tasks, a tiny point mass, those of Gymnasium, and your own."""

from importlib.util import find_spec

from lfm_envs.registry import contract_for, factory_for, make, name_for, names, register, view_for
from lfm_envs.tasks import Task, register_task

__all__ = ["Task", "contract_for", "factory_for", "make", "name_for", "names", "register", "register_task", "view_for"]

if find_spec("gymnasium") is not None:
    from lfm_envs.to_gymnasium import register_all

    register_all()
