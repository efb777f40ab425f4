"""The compiled simulation against robosuite's own: control steps on one core, and whole evaluations."""

import functools
import importlib
import time
from collections.abc import Iterator
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

import lfm_envs
from lfm_cli.benchmarks import Ratio, Settings, Skipped
from lfm_envs.tasks import TASKS
from lfm_policy.processes import usable_cores

if TYPE_CHECKING:
    import gymnasium

    from lfm_envs.robosuite_env import RobosuiteEnvironment
    from lfm_policy.models.policy import LFMPolicy

TARGETS = {"transport": 2.5}
TARGET, ROLLOUTS_TARGET, PHYSICS_TARGET = 3.0, 10.0, 0.75
STEPS = 120
"""Control steps of one measurement: an expert at work, so that things are touched as in use."""
SEED = 100000
PLAIN_EPISODES = 5
"""Every plain rollout takes all its steps, so that a few tell what one costs."""


def measure(settings: Settings) -> Iterator[Ratio | Skipped]:
    """Yield each task's steps per second and their share of bare physics, then rollouts of the checkpoint on Lift."""
    for name in TASKS:
        yield _steps(name, settings)
        yield _physics(name, settings)
    yield _threads("lift", settings)
    if settings.policy is None:
        yield Skipped("simulation.rollouts_lift", "no policy given: policy=DIR or policy=lift")
    else:
        yield _rollouts(settings.policy, settings)


def _steps(name: str, settings: Settings) -> Ratio:
    sides: list[Any] = [lfm_envs.make(f"robosuite/{name}", simulation=kind) for kind in ("compiled", "robosuite")]
    actions = _expert_actions(sides[0], name)
    for side in sides:
        _seconds_per_step(side, actions[:3])
    rounds = [[_seconds_per_step(side, actions) for side in sides] for _ in range(settings.repeats)]
    ours, theirs = (1 / median(times) for times in zip(*rounds, strict=True))
    for side in sides:
        side.close()
    note = f"control steps of an expert's episode, {len(actions)} at a time, one core; the states are the same bits"
    return Ratio(f"simulation.steps_{name}", ours / theirs, TARGETS.get(name, TARGET), ours, theirs, "steps/s", note)


def _physics(name: str, settings: Settings) -> Ratio:
    """Measure the compiled control step against its limit: nothing but MuJoCo's physics steps from the same states."""
    env = lfm_envs.make(f"robosuite/{name}", simulation="compiled")
    actions = _expert_actions(env, name)
    rounds = [beside_physics(env, actions) for _ in range(settings.repeats)]
    env.close()
    whole, bare = (median(seconds) for seconds in zip(*rounds, strict=True))
    note = f"compiled control steps against their physics steps alone, {len(actions)} at a time, CPU time of one thread"
    return Ratio(f"simulation.physics_{name}", bare / whole, PHYSICS_TARGET, 1 / whole, 1 / bare, "steps/s", note)


def beside_physics(env: "RobosuiteEnvironment", actions: np.ndarray) -> tuple[float, float]:
    """Play delta actions; after each go back and take the same number of physics steps under the commands of its end.

    Returns:
        CPU seconds of a control step, and of its physics alone.
    """
    mujoco: Any = importlib.import_module("mujoco")  # its stubs miss half of the names below
    env.reset(SEED)
    simulation = env.simulation
    model, data = simulation.sim.model._model, simulation.sim.data._data
    steps = int(simulation.control_timestep / simulation.model_timestep)
    kind = mujoco.mjtState.mjSTATE_INTEGRATION
    before, after = np.empty((2, mujoco.mj_stateSize(model, kind)))
    whole, bare, clock = 0.0, 0.0, time.thread_time
    for action in actions:
        mujoco.mj_getState(model, data, before, kind)
        started = clock()
        env.step_delta(action)
        whole += clock() - started
        mujoco.mj_getState(model, data, after, kind)
        commands = data.ctrl.copy()
        mujoco.mj_setState(model, data, before, kind)
        data.ctrl[:] = commands
        started = clock()
        mujoco.mj_step(model, data, nstep=steps)
        bare += clock() - started
        mujoco.mj_setState(model, data, after, kind)
    return whole / len(actions), bare / len(actions)


def _threads(name: str, settings: Settings) -> Ratio:
    """Measure a vector of environments in threads of one process against one in processes."""
    import gymnasium

    cores = usable_cores()
    identity = f"lfm/{TASKS[name].environment}-v0"
    sides = [
        gymnasium.make_vec(identity, cores),
        gymnasium.make_vec(identity, cores, "async", vector_kwargs={"context": "spawn"}),
    ]
    rounds = [[_vector_steps(side, cores) for side in sides] for _ in range(settings.repeats)]
    for side in sides:
        side.close()
    ours, theirs = (cores * median(rates) for rates in zip(*rounds, strict=True))
    note = f"{cores} environments in as many threads against as many processes, holding still"
    return Ratio(f"simulation.threads_{name}", ours / theirs, None, ours, theirs, "steps/s", note)


def _vector_steps(side: "gymnasium.vector.VectorEnv", members: int) -> float:
    """Return steps per second of all members at once, on actions that hold where the hands are."""
    seen, _ = side.reset(seed=SEED)
    poses = np.tile([1.0, 0, 0, 0, -1, 0, -1], (members, 1))
    actions = np.concatenate([seen[:, :3].astype(np.float64), poses], axis=1)
    started = time.perf_counter()
    for _ in range(STEPS):
        side.step(actions)
    return STEPS / (time.perf_counter() - started)


def _expert_actions(env: "RobosuiteEnvironment", name: str) -> np.ndarray:
    """Return the delta actions (STEPS at most, 7 * arms) of one episode."""
    from lfm_envs.episodes import perform
    from lfm_envs.experts import expert

    steps = perform(env, expert(name), SEED).steps[:STEPS]
    return np.stack([step["actions_executed"] for step in steps])


def _seconds_per_step(env: "RobosuiteEnvironment", actions: np.ndarray) -> float:
    env.reset(SEED)
    started = time.perf_counter()
    for action in actions:
        env.step_delta(action)
    return (time.perf_counter() - started) / len(actions)


def _rollouts(checkpoint: str, settings: Settings) -> Ratio:
    from lfm_policy.bundles.open import open_torch
    from lfm_policy.rollout.runner import Runner, RunnerOptions

    policy, workers = open_torch(checkpoint), usable_cores()
    factory = functools.partial(lfm_envs.make, "robosuite/lift")
    factory().close()  # compiles what the workers then load
    seeds = range(SEED, SEED + settings.rollouts)
    started = time.perf_counter()
    results = Runner(policy, factory, RunnerOptions(workers=workers)).run(seeds)
    ours = (time.perf_counter() - started) / len(seeds)
    theirs = _plain_rollout_seconds(policy, seeds[:PLAIN_EPISODES])
    success = sum(result.success for result in results) / len(results)
    note = (
        f"{len(seeds)} episodes in {workers} processes, their start included, ended at success ({success:.2f}), "
        f"against all 400 steps of {min(PLAIN_EPISODES, len(seeds))} with plain robosuite in one process; same policy"
    )
    return Ratio("simulation.rollouts_lift", theirs / ours, ROLLOUTS_TARGET, ours, theirs, "s/episode", note)


def _plain_rollout_seconds(policy: "LFMPolicy", seeds: range) -> float:
    """Return the seconds that an episode takes that runs to its horizon, whatever happens."""
    from lfm_policy.chunks.horizon import RecedingHorizon

    env = lfm_envs.make("robosuite/lift", simulation="robosuite")
    started = time.perf_counter()
    for seed in seeds:
        observation, horizon = env.reset(seed), RecedingHorizon(policy, seed)
        for _ in range(env.horizon):
            observation = env.step(horizon.act(env.contract.flatten(observation))).observation
    seconds = (time.perf_counter() - started) / len(seeds)
    env.close()
    return seconds
