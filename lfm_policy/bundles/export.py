"""From a torch policy to a bundle: files, graphs, the proof that they agree, checksums and card."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from lfm_policy.bundles.card import card
from lfm_policy.bundles.graph import write_graph
from lfm_policy.bundles.onnx_policy import OnnxPolicy
from lfm_policy.bundles.program import example
from lfm_policy.bundles.weights import config_of, normalizer_of, rounded, store
from lfm_policy.errors import ConfigError
from lfm_policy.files import read_json, replaced_or_same, sha256
from lfm_policy.models import bundle as layout
from lfm_policy.models.bundle import Bundle, Dtype, Precision, graph_name
from lfm_policy.models.policy import LFMPolicy

TOLERANCE = 1e-4
"""Largest difference allowed between a graph that computes in float32 and torch [normalised units]."""


@dataclass(frozen=True)
class Exported:
    """What an export made."""

    bundle: Bundle
    sizes: dict[str, int]
    """Bytes of each file."""
    parity: dict[str, float]
    """Largest difference between each graph's actions and the bundle's torch policy [normalised units]."""


class Step(NamedTuple):
    """A part of an export that takes long."""

    name: str
    run: Callable[[], None]


Track = Callable[[Sequence[Step]], Iterable[Step]]
"""Passes steps on as they come, and may show how far it is."""


def export(
    policy: LFMPolicy,
    out: str | Path,
    *,
    dtype: Dtype = "float32",
    graphs: Sequence[Precision] = ("float32",),
    results: Mapping[str, Any] | None = None,
    samples: int = 64,
    track: Track = iter,
) -> Exported:
    """Write the bundle of a policy, with the solver that it has now; an earlier bundle in `out` is replaced at the end.

    Args:
        policy: on the CPU.
        out: directory of the bundle.
        dtype: number format of the stored weights; the graphs hold the same rounded values.
        graphs: precisions of the ONNX graphs to write.
        results: summary.json of an evaluation of this policy, for the card.
        samples: random observations on which graphs and torch are compared.
        track: passes the steps on, by name, and may show how far it is.

    Raises:
        ConfigError: the policy cannot be written like that, or a graph differs from torch.
        ContractError: a normaliser was never fitted.
    """
    out, normalizer = Path(out), normalizer_of(policy)
    with replaced_or_same(out, _same) as directory:
        config = config_of(policy, dtype, evaluations(policy))
        _write_json(directory / layout.CONFIG, config.model_dump(mode="json"))
        _write_json(directory / layout.CONTRACT, policy.contract.model_dump(mode="json"))
        _write_json(directory / layout.NORMALIZER, normalizer.model_dump(mode="json"))
        store(rounded(policy, dtype), directory / layout.WEIGHTS)
        _write_checksums(directory)
        stored = LFMPolicy.of_bundle(layout.read(directory), trust_code=True)  # the policy has its code already
        parity = _write_graphs(stored, directory, graphs, samples, track)
        sizes = {path.name: path.stat().st_size for path in sorted(directory.iterdir())}
        text = card(out.name, config, policy.contract, sizes, parity, results)
        (directory / layout.CARD).write_text(text)
    return Exported(layout.read(out), sizes, parity)


def _same(new: Path, old: Path) -> bool:
    return (old / layout.CHECKSUMS).is_file() and read_json(new / layout.CHECKSUMS) == read_json(old / layout.CHECKSUMS)


def _write_graphs(
    policy: LFMPolicy, directory: Path, graphs: Sequence[Precision], samples: int, track: Track
) -> dict[str, float]:
    """Write the graphs of a stored policy, and return by how much each differs from it.

    Raises:
        ConfigError: a graph differs too much.
    """
    parity: dict[str, float] = {}

    def write(precision: Precision) -> None:
        write_graph(policy, directory / graph_name(precision))
        _write_checksums(directory)

    def compare(precision: Precision) -> None:
        parity[precision] = difference(policy, OnnxPolicy(directory, precision), samples)

    steps = [Step(f"writing the {graph} graph", partial(write, graph)) for graph in graphs]
    steps += [Step(f"comparing the {graph} graph with torch", partial(compare, graph)) for graph in graphs]
    for step in track(steps):
        step.run()
    _require_parity(parity)
    return parity


def difference(policy: LFMPolicy, other: OnnxPolicy, samples: int = 64, seed: int = 0) -> float:
    """Return the largest difference between two forms' chunks over random observations [normalised units]."""
    generator = np.random.default_rng(seed)
    normalised = generator.standard_normal((samples, policy.observation_steps, policy.contract.observation_dim))
    histories = policy.encoding.observation_normalizer.denormalize(
        torch.from_numpy(normalised.astype(np.float32))
    ).numpy()
    noise = generator.standard_normal((samples, *policy.noise_shape)).astype(np.float32)
    inputs = [histories, noise]
    if policy.contract.frames_shape is not None:
        inputs.append(generator.integers(0, 256, (samples, *policy.contract.frames_shape), dtype=np.uint8))
    ours, theirs = (torch.from_numpy(form.predict(*inputs).actions) for form in (policy, other))
    normalize = policy.encoding.action_normalizer.normalize
    gap = normalize(ours) - normalize(theirs)
    return float(gap.abs().max())


def evaluations(policy: LFMPolicy) -> int:
    """Return the number of network evaluations that the chain and its solver spend on a chunk."""
    return policy.predict(*(rows.numpy() for rows in example(policy, batch=1))).nfe


def _require_parity(parity: Mapping[str, float]) -> None:
    for precision, gap in parity.items():
        if precision == "float32" and not gap <= TOLERANCE:
            raise ConfigError(
                f"the {precision} graph's actions differ from torch's by up to {gap:.1e} (normalised), "
                f"more than {TOLERANCE:.0e}: the network computes something that ONNX "
                "renders otherwise; export without graphs (onnx=[]), and run the bundle with runtime=torch"
            )


def _write_checksums(directory: Path) -> None:
    """Write the checksums of all files that decide what the policy does."""
    files = [path for path in sorted(directory.iterdir()) if path.name not in (layout.CHECKSUMS, layout.CARD)]
    _write_json(directory / layout.CHECKSUMS, {path.name: sha256(path) for path in files})


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", encoding="utf-8")
