"""What the file says against what its numbers show, trap by trap."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from lfm_envs.doctor.findings import Finding, Trap, compare_contracts
from lfm_envs.doctor.readings import Reading, measure
from lfm_envs.doctor.recorded import Recorded
from lfm_policy.contract import Contract
from lfm_policy.data.demos.file import DemoFile

VISIBLE_GAP = 0.01
"""Median difference of an observation [m] or [1] that reading it a physics step (2 ms) late does not explain."""
HZ_TOLERANCE = 0.01

Readings = Mapping[str, tuple[Reading, ...]]
"""How each array of actions is to be read, by arm."""


def declared_readings(file: DemoFile, episode: Recorded) -> Readings:
    """Say how the file declares that its actions are to be read."""
    recording = file.recording
    arms = [Reading(form, arm.frame) for form, arm in zip(recording.forms, recording.controllers, strict=True)]
    world = tuple(Reading("absolute", "world") for _ in arms)
    return {key: world if key == "actions_abs" else tuple(arms) for key in episode.actions}


def found_readings(declared: Readings, episodes: Sequence[Recorded]) -> Readings:
    """Find how the actions must be read to fit what the arms did."""
    found: dict[str, tuple[Reading, ...]] = {}
    for key in sorted(declared, key="actions_abs".__eq__):  # its poses are held against the deltas' goals
        rows = []
        for arm, reading in enumerate(declared[key]):
            numbers = [arm_of(episode, key, arm) for episode in episodes]
            paths = [episode.arms[arm] for episode in episodes]
            asked = None
            if key == "actions_abs" and found["actions"][arm].form == "delta":
                deltas = [arm_of(episode, "actions", arm) for episode in episodes]
                asked = [path.goals(rows, found["actions"][arm]) for path, rows in zip(paths, deltas, strict=True)]
            rows.append(measure(numbers, paths, asked, reading))
        found[key] = tuple(rows)
    return found


def arm_of(episode: Recorded, key: str, arm: int) -> np.ndarray:
    """Return one arm's share of an array of actions: (L, 7 or 10)."""
    return np.split(episode.actions[key], len(episode.arms), axis=1)[arm]


def check_settings(file: DemoFile, contract: Contract, measured_hz: float | None) -> Iterator[Finding]:
    """Tell what the file's own description gets wrong.

    Args:
        file: the file.
        contract: the task's, here.
        measured_hz: control frequency by the clock in the states; None if they carry none.
    """
    recording = file.recording
    if recording.ignored_control_delta:
        yield Finding(
            "control_delta",
            f"control_delta=False is ignored by robosuite {recording.suite_version}: it takes the actions for deltas",
            "say input_type='absolute' and input_ref_frame='world' on every arm in env_args where the actions are "
            "poses, input_type='delta' where they are deltas",
        )
    if len(set(recording.forms)) > 1:
        arms = ", ".join(f"arm {arm} {form}" for arm, form in enumerate(recording.forms))
        yield Finding("mixed arms", f"the arms' controllers differ: {arms}", _EVERY_ARM)
    for name, theirs, ours in recording.differences(contract):
        if name != "control_hz":
            yield Finding(
                "controller",
                f"{name} is {theirs} in the file and {ours} here",
                f"collect the demonstrations again with {name} {ours}: actions mean other motions under other settings",
            )
    yield from _check_frequency(recording.control_hz, contract.control_hz, measured_hz)
    if file.kind == "native":
        yield from compare_contracts(contract, file.contract, "robosuite here", "the file's contract")


_EVERY_ARM = (
    "give every robot its own controller with the same input_type and input_ref_frame: setting them on the first alone "
    "leaves the others as they were"
)


def clock_hz(episodes: Sequence[Recorded]) -> float | None:
    """Return the control frequency by the time stamps in the states; None if they have none."""
    steps = np.concatenate([np.diff(episode.states[:, 0]) for episode in episodes])
    period = float(np.median(steps))
    return 1 / period if period > 0 else None


def _check_frequency(said: float, here: float, measured: float | None) -> Iterator[Finding]:
    def agree(a: float, b: float) -> bool:
        return abs(a - b) <= HZ_TOLERANCE * b

    actual = said if measured is None else measured
    if not agree(said, actual):
        yield Finding(
            "control frequency",
            f"the file says {said:g} Hz, the clock in its states runs at {actual:.4g} Hz",
            f"correct control_freq in env_args to {actual:.4g}",
        )
    if not agree(actual, here):
        yield Finding(
            "control frequency",
            f"the demonstrations are at {actual:.4g} Hz, the environment here at {here:g} Hz",
            f"collect again with control_freq={here:g}: the same actions at another rate are another motion",
        )


def check_readings(declared: Readings, found: Readings) -> Iterator[Finding]:
    """Find where the actions are not what the file says they are."""
    for key in declared:
        forms = [reading.form for reading in found[key]]
        if len(set(forms)) > 1:
            arms = ", ".join(f"arm {arm}'s are {reading}" for arm, reading in enumerate(found[key]))
            yield Finding("mixed arms", f"{key}: {arms}", f"{_EVERY_ARM}; then collect or convert the file again")
        for arm, (said, is_) in enumerate(zip(declared[key], found[key], strict=True)):
            trap = _difference(said, is_)
            if trap is not None:
                what = f"{key}: arm {arm}'s numbers are {is_}, the file says {said}"
                yield Finding(trap, what, _fix(trap, key, is_))


def _difference(said: Reading, found: Reading) -> Trap | None:
    if said.form != found.form:
        return "action form"
    if said.frame != found.frame:
        return "frame"
    plain = {"axis_angle", "rot6d_rows"}
    return "rotation" if found.rotation not in plain and found.rotation != said.rotation else None


def _fix(trap: Trap, key: str, found: Reading) -> str:
    if trap == "rotation":
        return (
            f"transpose the rotation matrices of {key} (the first two rows are ours, not columns), or leave {key} out "
            "and let lfm prepare make it from the deltas"
        )
    if key == "actions_abs":
        return "write world-frame poses, or leave actions_abs out and let lfm prepare make it from the deltas"
    settings = f"input_type='{found.form}' and input_ref_frame='{found.frame}'"
    return f"say {settings} on this arm in env_args, as its actions are; robosuite 1.5's default frame is the base"


def check_observations(contract: Contract, episodes: Sequence[Recorded], binding: bool) -> Iterator[Finding]:
    """Find observations that are missing, or hold something else than the simulator shows at the same states.

    Args:
        contract: the task's, here.
        episodes: with observations.
        binding: the file's own observations are trained on, so differences matter.
    """
    simulated = {
        key.name: np.concatenate([episode.simulated[key.name] for episode in episodes]) for key in contract.observations
    }
    for key in contract.observations:
        parts = [episode.observation.get(key.name) for episode in episodes]
        if any(part is None for part in parts):
            yield _keys_finding(f"observation {key.name} is missing")
            continue
        recorded = np.concatenate([part for part in parts if part is not None])
        if recorded.shape[1] != key.dim:
            yield _keys_finding(f"observation {key.name} has width {recorded.shape[1]}, expected {key.dim}")
        elif binding and observation_gap(recorded, simulated[key.name]) > VISIBLE_GAP:
            yield _keys_finding(f"observation {key.name} {_looks_like(key.name, recorded, simulated)}")


def observation_gap(recorded: np.ndarray, simulated: np.ndarray) -> float:
    """Return the median difference of the worst column of (S, dim) each; a quaternion's sign may flip at any state."""
    return float(np.median(np.abs(recorded - simulated), axis=0).max())


def _keys_finding(what: str) -> Finding:
    return Finding(
        "observation keys",
        what,
        "collect again, or delete obs and contract from the file and let lfm prepare read the observations off "
        "the simulator at the recorded states",
    )


def _looks_like(name: str, recorded: np.ndarray, simulated: Mapping[str, np.ndarray]) -> str:
    """Tell what the simulator calls the columns that the file has under `name`."""
    names = [f"{key}[{column}]" for key, array in simulated.items() for column in range(array.shape[1])]
    columns = np.concatenate(list(simulated.values()), axis=1)
    gaps = np.median(np.abs(recorded[:, :, None] - columns[:, None]), axis=0)
    closest = [names[column] if gaps[i, column] < VISIBLE_GAP else "nothing" for i, column in enumerate(gaps.argmin(1))]
    wrong = [f"{name}[{i}] holds {found}" for i, found in enumerate(closest) if found != f"{name}[{i}]"]
    return f"differs from the simulator's at the same states: {', '.join(wrong)}"
