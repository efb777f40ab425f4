"""Run an exported sampler with numpy and onnxruntime; torch is not needed, nor imported."""

import hashlib
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from lfm_policy.contract import Contract
from lfm_policy.errors import CheckpointError, ContractError
from lfm_policy.models.bundle import PARTS, WEIGHTS, Bundle, read
from lfm_policy.models.sources import locate
from lfm_policy.protocols import ChunkBatch

OBSERVATIONS, NOISE, FRAMES, ACTIONS = "observations", "noise", "frames", "actions"
"""Names of the graph's inputs (B, To, observation_dim), (B, T, action_dim) and, where the contract has cameras, uint8
(B, cameras, height, width, 3); and of its output (B, T, action_dim)."""

WEIGHTS_KEY = "weights_sha256"
"""In the graph's metadata: the checksum of the file whose weights it refers to."""


PARTS_KEY = "parts_sha256"
"""The same of the files that describe the policy; graphs of before it was written lack it."""

PATIENCE_S = 60.0
"""Longest time that a graph may take to load, and then for its first chunk [s]."""


class OnnxPolicy:
    """A `ChunkPolicy` whose sampler is one ONNX graph, from normalising to denormalising.

    Args:
        bundle: one that was read already, or what names one: a folder, an installed one ("lift"), a hub id.
        precision: which of its graphs to run; None: the most exact one.
        threads: CPU threads of one call; None: a thread per core.
        expected: the contract of the environment or robot it is meant for.

    Raises:
        CheckpointError: the bundle is damaged, or has no such graph.
        ContractError: it was trained under another contract than `expected`.

    Example:
        horizon = RecedingHorizon(OnnxPolicy("outputs/bundles/lift"), seed=0)
        action = horizon.act(contract.flatten(observation))
    """

    def __init__(
        self,
        bundle: Bundle | str | Path,
        precision: str | None = None,
        *,
        threads: int | None = 1,
        expected: Contract | None = None,
    ) -> None:
        self.bundle = bundle if isinstance(bundle, Bundle) else read(locate(bundle))
        if expected is not None:
            self.contract.require_match(expected, f"bundle {self.bundle.directory}", "the robot")
        if precision is None and not self.bundle.graphs:
            raise CheckpointError(
                f"{self.bundle.directory} holds no graph for onnxruntime: export it with onnx=[float32], "
                "or use runtime=torch"
            )
        self.precision = precision or self.bundle.graphs[0]
        self.threads = threads
        self._session = _session(self.bundle.graph(self.precision), threads)
        _require_signature(self._session, self.bundle)
        _try(self._session, self.bundle)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle what it was made from: a session cannot go to another process, which opens the graph again."""
        return _again, (self.bundle, self.precision, self.threads)

    @property
    def portable(self) -> bool:
        """`PortablePolicy`."""
        return self.threads == 1

    @property
    def contract(self) -> Contract:
        """What its observations and actions mean."""
        return self.bundle.contract

    @property
    def observation_steps(self) -> int:
        """To."""
        return self.bundle.config.policy.observation_steps

    @property
    def action_steps(self) -> int:
        """Ta."""
        return self.bundle.config.policy.action_steps

    @property
    def noise_shape(self) -> tuple[int, int]:
        """(T, action_dim)."""
        return (self.bundle.config.policy.horizon, self.contract.action_dim)

    def predict(self, histories: np.ndarray, noise: np.ndarray, frames: np.ndarray | None = None) -> ChunkBatch:
        """Predict as a `ChunkPolicy`: histories (B, To, D) and noise (B, T, A) as float32 arrays; see protocols.py.

        Raises:
            ContractError: an array has another shape.
        """
        for name, array, shape in (
            ("histories", histories, (self.observation_steps, self.contract.observation_dim)),
            ("noise", noise, self.noise_shape),
        ):
            if array.ndim != 3 or array.shape[1:] != shape or len(array) != len(noise):
                raise ContractError(f"expected {name} (B, {shape[0]}, {shape[1]}), found {array.shape}")
        feed = {OBSERVATIONS: histories.astype(np.float32), NOISE: noise.astype(np.float32)}
        expected, found = self.contract.frames_shape, None if frames is None else frames.shape[1:]
        if found != expected or (frames is not None and frames.dtype != np.uint8):
            raise ContractError(
                f"expected pictures uint8 (B, cameras, height, width, 3) of {expected}, "
                f"found {'none' if frames is None else f'{frames.dtype} {frames.shape}'}"
            )
        if frames is not None:
            feed[FRAMES] = frames
        (actions,) = self._session.run([ACTIONS], feed)
        return ChunkBatch(np.asarray(actions), self.bundle.config.nfe)

    def digest(self) -> str:
        """Hash of all that decides what the policy does."""
        return self.bundle.digest("onnxruntime", self.precision)


def _again(bundle: Bundle, precision: str, threads: int | None) -> OnnxPolicy:
    return OnnxPolicy(bundle, precision, threads=threads)


def _session(path: Path, threads: int | None) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what goes wrong is raised
    session, failure = [], []

    def load() -> None:
        try:
            session.append(onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]))
        except Exception as error:  # onnxruntime's errors share no other base class
            failure.append(error)

    # In a thread that nobody waits for: constants are computed on loading, and a stranger's may take for ever.
    loading = threading.Thread(target=load, daemon=True)
    loading.start()
    loading.join(PATIENCE_S)
    if not session:
        reason = failure[0] if failure else f"it is not loaded after {PATIENCE_S:g} s"
        raise CheckpointError(f"onnxruntime cannot run {path}: {reason}")
    return session[0]


def described_by(checksums: Mapping[str, str]) -> str:
    """Hash of the files that a graph's constants and shapes come from."""
    return hashlib.sha256("".join(checksums[name] for name in PARTS).encode()).hexdigest()


def _try(session: onnxruntime.InferenceSession, bundle: Bundle) -> None:
    """Ask for one chunk, so that what never ends, or wants all memory, is found before a robot waits for it."""
    policy, contract = bundle.config.policy, bundle.contract
    feed: dict[str, np.ndarray] = {
        OBSERVATIONS: np.zeros((1, policy.observation_steps, contract.observation_dim), np.float32),
        NOISE: np.zeros((1, policy.horizon, contract.action_dim), np.float32),
    }
    if contract.frames_shape is not None:
        feed[FRAMES] = np.zeros((1, *contract.frames_shape), np.uint8)
    options = onnxruntime.RunOptions()
    options.log_severity_level = 4
    timer = threading.Timer(PATIENCE_S, setattr, (options, "terminate", True))
    timer.daemon = True
    timer.start()
    try:
        session.run([ACTIONS], feed, options)
    except Exception as error:
        late = "" if timer.is_alive() else f"no chunk after {PATIENCE_S:g} s: "
        raise CheckpointError(f"onnxruntime cannot run the graph of {bundle.directory}: {late}{error}") from None
    finally:
        timer.cancel()


def _require_signature(session: onnxruntime.InferenceSession, bundle: Bundle) -> None:
    """Require that the graph belongs to the weights, and that its inputs and output are those of the contract."""
    config, contract = bundle.config, bundle.contract
    if session.get_modelmeta().custom_metadata_map.get(WEIGHTS_KEY) != bundle.checksums[WEIGHTS]:
        raise CheckpointError(f"{bundle.directory}: its graph was made for other weights; export the bundle again")
    chunk = [config.policy.horizon, contract.action_dim]
    expected = {
        OBSERVATIONS: [config.policy.observation_steps, contract.observation_dim],
        NOISE: chunk,
        ACTIONS: chunk,
    }
    if contract.frames_shape is not None:
        expected[FRAMES] = list(contract.frames_shape)
    found = {value.name: list(value.shape)[1:] for value in (*session.get_inputs(), *session.get_outputs())}
    if found != expected:
        raise CheckpointError(
            f"{bundle.directory}: its graph maps {found}, its contract asks for {expected}; export again"
        )
    described = session.get_modelmeta().custom_metadata_map.get(PARTS_KEY)
    if described not in (None, described_by(bundle.checksums)):
        raise CheckpointError(
            f"{bundle.directory}: its graph was made for another {', '.join(PARTS[:-1])}; export the bundle again"
        )
