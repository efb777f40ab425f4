"""The robot's side of closed-loop control: observe, ask for chunks, send one judged command at every tick."""

import gc
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pydantic import Field

from lfm_policy.actions.motion import hold, seam_jerk
from lfm_policy.chunks.band import Band
from lfm_policy.chunks.delayed import Inference as Mode
from lfm_policy.chunks.horizon import EpisodeInputs
from lfm_policy.chunks.timeline import Seam, Timeline, require_seam
from lfm_policy.control.clock import Clock, MonotonicClock, Pace, Tick, Ticker
from lfm_policy.control.inference import Answer, Inference, Request
from lfm_policy.control.robot import Robot
from lfm_policy.control.safety import Gate, Refusal
from lfm_policy.protocols import ChunkPolicy
from lfm_policy.settings import Frozen

Event = Mapping[str, Any]


class LoopOptions(Frozen):
    """How the loop runs."""

    rate_hz: float = Field(
        default=20.0, gt=0, description="commands per second; a simulator steps at the same rate, on its own"
    )
    inference: Mode = Field(
        default="async",
        description="async: the next chunk is computed while this one runs; sync: the loop waits",
    )
    seam: Seam = Field(
        default="switch",
        description="from chunk to chunk: switch to the newest, ensemble (average), warm (begin at the running one)",
    )
    episode_s: float | None = Field(
        default=None, gt=0, description="end an episode after so long; null: when the robot says that it is over [s]"
    )
    tolerance_ms: float = Field(
        default=10.0, gt=0, description="lateness of a command that counts as a missed deadline [ms]"
    )
    alarm_stops: bool = Field(default=False, description="an unusual chunk pulls the emergency stop")


class ControlOptions(LoopOptions):
    """How the loop runs, and what a monitor calls unusual."""

    alarm: Band | None = None
    """A monitor's score above its level at the step is recorded."""


@dataclass
class Episode:
    """What happened between a reset and the end."""

    seed: int
    pace: Pace
    success: bool = False
    stopped: str = ""
    """Why the emergency stop was pulled."""
    chunks: int = 0
    nfe: int = 0
    dropped: int = 0
    """Actions that came too late for their step."""
    lost: int = 0
    """Chunks that never came."""
    held: int = 0
    """Ticks at which the robot was told to stay."""
    scores: list[float] = field(default_factory=list)
    """The monitor's, of each chunk that followed another."""
    alarms: int = 0
    answer_ms: list[float] = field(default_factory=list)
    commands: list[np.ndarray] = field(default_factory=list)
    seams: list[int] = field(default_factory=list)
    refusals: Counter[str] = field(default_factory=Counter)


class ControlLoop:
    """Controls one robot with one policy, episode by episode.

    Args:
        policy: what the chunks come from; asked through `inference` only.
        robot: moves in its own time.
        inference: runs the policy.
        gate: judges every command, at the same rate.
        options: rate, and how chunks follow one another.
        record: hears every refusal, lost chunk and missed deadline, as plain values.
        clock: where time comes from.

    Raises:
        ContractError: policy and robot disagree.
        ConfigError: the policy cannot continue chunks, but is asked to.
    """

    def __init__(
        self,
        policy: ChunkPolicy,
        robot: Robot,
        inference: Inference,
        gate: Gate,
        options: ControlOptions | None = None,
        *,
        record: Callable[[Event], Any] = lambda event: None,
        clock: Clock | None = None,
    ) -> None:
        policy.contract.require_match(robot.contract, "the policy", "the robot")
        self._options = options or ControlOptions()
        require_seam(policy, self._options.seam)
        self._policy, self._robot, self._inference, self._gate = policy, robot, inference, gate
        self._record, self._clock = record, clock or MonotonicClock()

    def run(self, seed: int) -> Episode:
        """Run the episode of `seed` until the robot says that it is over, or the emergency stop is pulled."""
        self._episode = Episode(seed, Pace(self._options.tolerance_ms))
        if self._gate.stop.ask():
            self._episode.stopped = self._gate.stop.reason
            return self._episode
        self._inputs = EpisodeInputs(self._policy, seed)
        self._timeline = Timeline(self._policy.observation_steps, self._options.seam)
        self._observed = self._next_ask = 0
        reading = self._robot.reset(seed)
        self._inputs.observe(reading.rows, reading.frames)
        self._gate.reset(reading.rows[-1])
        refused = Counter(self._gate.refused)
        try:
            with _undisturbed():
                self._first_chunk()
                self._ticker = Ticker(self._options.rate_hz, self._clock)
                while self._tick(self._ticker.wait()):
                    pass
        finally:
            self._inference.drop()
        self._episode.refusals = Counter(self._gate.refused) - refused
        return self._episode

    def _first_chunk(self) -> None:
        """Let the robot rest until there is something to do; the episode's clock starts then."""
        while self._timeline.running(0) is None and not self._gate.stop.ask():
            self._ask(0)
            self._accept(self._inference.take(), 0)

    def _tick(self, tick: Tick) -> bool:
        """Control for one period; return False when it was the last."""
        if self._gate.stop.ask():
            return self._stop(tick)
        reading, episode = self._robot.read(), self._episode
        self._inputs.observe(reading.rows, reading.frames)
        episode.success |= reading.success
        if reading.over or self._out_of_time(tick):
            return False
        self._gate.hold(tick.skipped)
        step = self._chunks(tick.index)
        action = self._timeline.at(step)
        age_s = (step - self._observed) / self._options.rate_hz
        last = episode.commands[-1] if episode.commands else None
        action = self._gate.admit(action, age_s, step)
        if self._gate.stop.pulled:
            return self._stop(tick)
        if action is None:
            action = None if last is None else hold(self._policy.contract, last)
            episode.held += 1
        if action is not None:
            self._robot.send(action, tick.due)
            episode.commands.append(action)
        self._serve(tick)
        return True

    def _out_of_time(self, tick: Tick) -> bool:
        limit = self._options.episode_s
        return limit is not None and tick.index >= round(limit * self._options.rate_hz)

    def _chunks(self, step: int) -> int:
        """Take a chunk that has come, ask for one where it is time; return the step that it is now."""
        if answer := self._inference.poll():
            self._accept(answer, step)
        if step < self._next_ask or self._inference.busy:
            return step
        self._ask(step)
        if self._options.inference == "sync":
            answer = self._inference.take()
            asked, step = step, max(step, self._ticker.catch_up())
            self._gate.hold(step - asked)
            self._episode.pace.skipped += step - asked
            self._accept(answer, step)
        elif answer := self._inference.poll():
            self._accept(answer, step)
        return step

    def _ask(self, step: int) -> None:
        running = self._timeline.running(step) if self._options.seam == "warm" else None
        remainder = self._timeline.remainder(step)
        inputs = self._inputs
        self._inference.ask(Request(step, inputs.history, inputs.noise, running, remainder, inputs.frames))
        self._next_ask = step + self._policy.action_steps

    def _accept(self, answer: Answer, step: int) -> None:
        episode, asked = self._episode, answer.request.step
        if answer.chunk is None:
            episode.lost += 1
            self._next_ask = step
            self._record({"event": "lost", "seed": episode.seed, "step": step, "reason": answer.reason})
            return
        # who waits executes the chunk from its beginning, however late
        self._observed = step if self._options.inference == "sync" else asked
        episode.dropped += self._timeline.add(answer.chunk, self._observed, arrival=step)
        episode.seams.append(len(episode.commands))
        self._next_ask = self._observed + self._policy.action_steps
        self._inputs.answered()
        episode.chunks, episode.nfe = episode.chunks + 1, episode.nfe + answer.nfe
        episode.answer_ms.append(1000 * answer.seconds)
        if answer.score is not None:
            self._watch(answer.score, asked, step)

    def _watch(self, score: float, asked: int, step: int) -> None:
        """Note the monitor's score of what was seen at step `asked`."""
        episode, band = self._episode, self._options.alarm
        episode.scores.append(score)
        if band is None or score <= (alarm := band.level(asked)):
            return
        episode.alarms += 1
        event = {"event": "unusual", "seed": episode.seed, "step": step}
        self._record(event | {"score": round(score, 4), "alarm": round(alarm, 4)})
        if self._options.alarm_stops:
            self._gate.stop.pull(f"unusual: score {score:.4g}, alarm {alarm:.4g}")

    def _serve(self, tick: Tick) -> None:
        moment, pace = self._clock.now(), self._episode.pace
        pace.served(tick, moment)
        late_ms = 1000 * (moment - tick.due)
        if late_ms > pace.tolerance_ms or tick.skipped:
            event = {"event": "late", "seed": self._episode.seed, "step": tick.index}
            self._record(event | {"late_ms": round(late_ms, 3), "skipped": tick.skipped})

    def _stop(self, tick: Tick) -> bool:
        """Stop the robot, to which nothing more is sent; return False: the episode is over."""
        stop = self._gate.stop
        self._robot.stop()
        self._record({"event": "stopped", "seed": self._episode.seed, "step": tick.index, "reason": stop.reason})
        self._episode.stopped = stop.reason
        return False


def refusal_event(refusal: Refusal) -> Event:
    """Write a refusal as plain values."""
    return {"event": "refused", "step": refusal.step, "reason": refusal.reason, "found": refusal.found}


def describe(episode: Episode, policy: ChunkPolicy) -> dict[str, Any]:
    """Write an episode as plain values."""
    seam, inner = seam_jerk(policy.contract, np.array(episode.commands), episode.seams) if episode.commands else (0, 0)
    answers = np.array(episode.answer_ms or [0.0])
    return {
        "seed": episode.seed,
        "success": episode.success,
        **({"stopped": episode.stopped} if episode.stopped else {}),
        **episode.pace.summary(),
        "chunks": episode.chunks,
        "nfe": episode.nfe,
        "answer_ms_p50": round(float(np.median(answers)), 3),
        "answer_ms_max": round(float(answers.max()), 3),
        "dropped": episode.dropped,
        "lost": episode.lost,
        "held": episode.held,
        "refusals": dict(episode.refusals),
        **({"alarms": episode.alarms, "score_max": round(max(episode.scores), 4)} if episode.scores else {}),
        "seam_jerk": seam and round(seam, 3),
        "inner_jerk": inner and round(inner, 3),
    }


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Let the loop run before the policy's thread when its tick is due, and collect no garbage in between."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(5e-4)
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        sys.setswitchinterval(before)
