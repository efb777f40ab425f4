"""Who listens to the runner."""

from lfm_policy.rollout.records import EpisodeResult, Segment


class Subscriber:
    """Hears what the runner does; override what is of interest. Video, progress and logs are subscribers."""

    def on_start(self, seed: int) -> None:
        """Note that the episode of `seed` begins, or begins again after its worker failed."""

    def on_segment(self, seed: int, segment: Segment) -> None:
        """Note that the start, or a few steps, of the episode of `seed` have happened."""

    def on_end(self, result: EpisodeResult) -> None:
        """Note that an episode is over."""

    def on_failure(self, seed: int, attempt: int, reason: str) -> None:
        """Note that the worker of `seed` failed, and that the episode will be redone."""
