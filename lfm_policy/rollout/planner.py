"""Asking a policy for chunks: in batches of one size, timed, and never while something is compiled."""

import time
from collections.abc import Sequence

import numpy as np

from lfm_policy.chunks.horizon import RecedingHorizon
from lfm_policy.errors import ConfigError
from lfm_policy.protocols import ChunkBatch, ChunkPolicy, WarmChunkPolicy


class Planner:
    """Predicts the chunks of episodes, and measures how long that takes.

    The first call of each kind (from noise, and from the running chunk) is made twice and measured the second time:
    in a fresh process it compiles or loads what the later ones use.

    Args:
        policy: what is asked.
        size: histories per call; smaller groups are padded to it. See `require_row_independence`.
    """

    def __init__(self, policy: ChunkPolicy, size: int = 1) -> None:
        self.policy, self.size = policy, size
        self._warm: set[bool] = set()

    def chunks(self, horizons: Sequence[RecedingHorizon]) -> tuple[ChunkBatch, float]:
        """Predict a chunk for each of at most `size` horizons, which all continue running chunks, or none does.

        Returns:
            The chunks, of which rows behind the last horizon are padding, and the seconds that the call took.
        """
        padded = [*horizons, *[horizons[0]] * (self.size - len(horizons))]
        histories, noise = np.stack([h.history for h in padded]), np.stack([h.noise for h in padded])
        running = [h.running for h in padded if h.running is not None]
        frames = [h.frames for h in padded if h.frames is not None]
        given = [histories, noise]
        given += [np.stack(rows) for rows in (running, frames) if rows]
        if bool(running) not in self._warm:
            self._call(bool(running), *given)
            self._warm.add(bool(running))
        started = time.perf_counter()
        batch = self._call(bool(running), *given)
        return batch, time.perf_counter() - started

    def _call(self, resumed: bool, *given: np.ndarray) -> ChunkBatch:
        if not resumed:
            return self.policy.predict(*given)
        assert isinstance(self.policy, WarmChunkPolicy)  # timeline.require_seam has made sure
        return self.policy.resume(*given)


def require_row_independence(policy: ChunkPolicy, size: int) -> None:
    """Make sure that a row's chunk depends neither on its place in a batch of `size` nor on other rows, bit for bit.

    Raises:
        ConfigError: it does, as with many CPU kernels; episodes would then depend on which workers wait together.
    """
    generator = np.random.default_rng(0)
    shape = (size, policy.observation_steps, policy.contract.observation_dim)
    histories = generator.standard_normal(shape).astype(np.float32)
    noise = generator.standard_normal((size, *policy.noise_shape)).astype(np.float32)
    inputs: list[np.ndarray] = [histories, noise]
    if policy.contract.frames_shape is not None:
        inputs.append(generator.integers(0, 256, (size, *policy.contract.frames_shape), dtype=np.uint8))
    reference = policy.predict(*inputs).actions
    for shift in range(size):
        rolled = policy.predict(*(np.roll(rows, shift, 0) for rows in inputs)).actions
        alone = policy.predict(*(np.repeat(rows[shift : shift + 1], size, 0) for rows in inputs)).actions
        same = np.array_equal(rolled, np.roll(reference, shift, 0)) and (alone == reference[shift]).all()
        if not same:
            raise ConfigError(
                f"policy_batch={size}: on this machine a chunk's bits depend on the rest of its batch, so an episode "
                "would not be a function of its seed alone; expected equal rows, use policy_batch=1"
            )
