"""Several environments in one process, stepped side by side by threads: `gymnasium.make_vec("lfm/Lift-v0", 8)`.

A compiled control step lets other threads run while it computes, which is two thirds of a step of Lift and five sixths
of one of Transport; the rest is Python, one thread at a time. So threads can be worth three to six processes, start in
no time and share what they import; beyond that, or with an environment in plain Python, take processes
(vectorization_mode="async").
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.vector.utils import iterate
from gymnasium.wrappers import TimeLimit

from lfm_envs.to_gymnasium import LFMEnv
from lfm_policy.processes import usable_cores


class ThreadVectorEnv(SyncVectorEnv):
    """Gymnasium's vector of environments, whose members step side by side; the results are those of its own.

    Resets are made one after the other: robosuite changes its own classes while it builds a scene.

    Args:
        env_fns: make the members.
        threads: members that step at once; as many as there are cores to use if None.
        options: of Gymnasium's `SyncVectorEnv`.
    """

    def __init__(
        self, env_fns: Sequence[Callable[[], gymnasium.Env]], threads: int | None = None, **options: Any
    ) -> None:
        super().__init__([partial(_made, make) for make in env_fns], **options)
        count = min(self.num_envs, threads or usable_cores())
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="lfm-environment")

    def step(self, actions: Any) -> Any:
        """Step every member that is not about to be reset, then collect what came out."""
        waits = self.autoreset_mode == AutoresetMode.NEXT_STEP
        for member, action, over in zip(
            self.envs, iterate(self.action_space, actions), self._autoreset_envs, strict=True
        ):
            if not (waits and over):
                member.begin(self._pool, action)  # pyright: ignore[reportAttributeAccessIssue]
        return super().step(actions)

    def close_extras(self, **kwargs: Any) -> None:
        """Let the steps under way end, then close the members."""
        self._pool.shutdown()
        super().close_extras(**kwargs)


class _Ahead(gymnasium.Wrapper):
    """Steps in another thread, from `begin` on; `step` waits for it."""

    _running: Future[Any] | None = None

    def begin(self, pool: ThreadPoolExecutor, action: np.ndarray) -> None:
        self._running = pool.submit(self.env.step, action)

    def step(self, action: Any) -> Any:
        running, self._running = self._running, None
        return self.env.step(action) if running is None else running.result()


def make_threads(num_envs: int, environment: str, max_episode_steps: int, **options: Any) -> ThreadVectorEnv:
    """Make what `gymnasium.make_vec` asks for.

    Args:
        num_envs: members.
        environment: name for `lfm_envs.make`.
        max_episode_steps: steps after which an episode is truncated.
        options: of `LFMEnv`; `threads` and `autoreset_mode` are the vector's.
    """
    ours = {name: options.pop(name) for name in ("threads", "autoreset_mode") if name in options}
    member = partial(_member, environment, max_episode_steps, options)
    return ThreadVectorEnv([member] * num_envs, **ours)


def _member(environment: str, steps: int, options: dict[str, Any]) -> gymnasium.Env:
    return TimeLimit(LFMEnv(environment, **options), steps)


def _made(make: Callable[[], gymnasium.Env]) -> _Ahead:
    return _Ahead(make())
