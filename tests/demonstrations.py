"""Small files of real demonstrations, recorded in this process as lfm collect does it."""

from pathlib import Path

from lfm_envs.episodes import assemble, perform, write_episode
from lfm_envs.experts import expert
from lfm_envs.robosuite_env import RobosuiteEnvironment


def record(env: RobosuiteEnvironment, path: Path, seeds: list[int], steps: int | None = None) -> Path:
    """Write the expert's episodes of these seeds, or their beginnings, to one file."""
    horizon, parts = env.horizon, [path.with_name(f"{seed}.hdf5") for seed in seeds]
    env.horizon = steps or horizon
    for seed, part in zip(seeds, parts, strict=True):
        episode = perform(env, expert(env.task.name), seed)
        assert episode.success or steps
        episode.success = True
        write_episode(part, episode)
    env.horizon = horizon
    assemble(path, parts, env.task, {}, valid=[])
    return path
