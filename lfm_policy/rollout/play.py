"""What a worker does with its environment: step it on demand, or play whole episodes with a policy of its own."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from lfm_policy.chunks.delayed import Link
from lfm_policy.protocols import ChunkPolicy, Environment, Observation, SeeingEnvironment, TellingEnvironment
from lfm_policy.rollout.episode import Episode
from lfm_policy.rollout.planner import Planner
from lfm_policy.rollout.records import EpisodeResult, FrameSize, Segment


@dataclass(frozen=True)
class Player:
    """A policy as it goes to a worker, with what decides its episodes."""

    policy: ChunkPolicy
    link: Link


def play(
    environment: Environment, player: Player, planner: Planner, seed: int, frame: FrameSize
) -> Iterator[Segment | EpisodeResult]:
    """Play the episode of `seed`: yields every segment when it has happened, and the result at the end."""
    horizon = player.link.horizon(player.policy, seed)
    episode = Episode(seed, horizon, environment.contract, environment.horizon)
    segment = start(environment, seed, frame)
    while True:
        episode.absorb(segment)
        yield segment
        if episode.over:
            break
        if horizon.lost:
            actions = episode.go_on()
        else:
            batch, seconds = planner.chunks([horizon])
            actions = episode.plan(batch.actions[0], batch.nfe, seconds)
        segment = execute(environment, actions, frame)
    yield episode.result()


def start(environment: Environment, seed: int, frame: FrameSize) -> Segment:
    """Begin the episode of `seed`."""
    began = time.perf_counter()
    observation = environment.reset(seed)
    return _segment(environment, [observation], [], False, [environment.render(*frame)] if frame else [], began)


def execute(environment: Environment, actions: np.ndarray, frame: FrameSize) -> Segment:
    """Execute actions (k, action_dim), stopping at success."""
    began = time.perf_counter()
    observations, rewards, frames, success = [], [], [], False
    for action in actions:
        result = environment.step(action)
        observations.append(result.observation)
        rewards.append(result.reward)
        if frame:
            frames.append(environment.render(*frame))
        if success := result.success:
            break
    segment = _segment(environment, observations, rewards, success, frames, began)
    return replace(segment, actions=actions[: len(rewards)])


def _segment(
    environment: Environment,
    observations: list[Observation],
    rewards: list[float],
    success: bool,
    frames: list[np.ndarray],
    began: float,
) -> Segment:
    rows = np.stack([environment.contract.flatten(observation) for observation in observations])
    seen = None if success else seen_now(environment)  # a policy gets no others
    shown = np.stack(frames) if frames else None
    mode = mode_now(environment)
    seconds = time.perf_counter() - began
    return Segment(rows, np.asarray(rewards, np.float64), success, shown, seen, seconds, mode=mode)


def seen_now(environment: Environment) -> np.ndarray | None:
    """Draw what the contract's cameras see, uint8 (cameras, height, width, 3); None without cameras."""
    if not environment.contract.cameras:
        return None
    assert isinstance(environment, SeeingEnvironment)
    return environment.contract.stack(environment.look())


def mode_now(environment: Environment) -> str | None:
    """Ask which of the contract's modes the episode has taken so far; None without modes."""
    if not environment.contract.modes:
        return None
    assert isinstance(environment, TellingEnvironment)
    return environment.mode()
