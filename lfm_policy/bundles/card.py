"""The model card of a bundle: what it is, what was measured, how to use it."""

from collections.abc import Mapping
from typing import Any

from lfm_policy.contract import Contract
from lfm_policy.models.bundle import BundleConfig

Rows = list[tuple[str, str]]


def card(
    name: str,
    config: BundleConfig,
    contract: Contract,
    sizes: Mapping[str, int],
    parity: Mapping[str, float],
    results: Mapping[str, Any] | None,
) -> str:
    """Return the Markdown text.

    Args:
        name: of the bundle.
        config: its config.json.
        contract: its contract.json.
        sizes: bytes of each of its files.
        parity: of each graph, the largest difference between its actions and the torch policy's [normalised units].
        results: summary.json of an evaluation of this policy; None when none was made.
    """
    parts = [
        f"# {name}\n\nA Local Flow Matching policy (arXiv 2410.02548) for `{contract.suite}/{contract.environment}`.",
        _table("Policy", _facts(config, contract)),
        _table("Measured", measured(results)) if results else "Success has not been measured for this bundle.",
        _table("Files [bytes]", [(file, f"{size:,}") for file, size in sizes.items()]),
        _table("Largest difference from torch [normalised actions]", [(k, f"{v:.1e}") for k, v in parity.items()]),
        _usage(name, bool(parity)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def measured(results: Mapping[str, Any]) -> Rows:
    """Return what an evaluation's summary.json says, as rows of a table."""
    low, high = results["interval"]
    run = results.get("run", {})
    rows = [
        ("success", f"{results['success']:.3f} over {results['episodes']} episodes"),
        ("Wilson 95 % interval", f"[{low:.3f}, {high:.3f}]"),
        ("mean steps to success", "-" if results["mean_steps"] is None else f"{results['mean_steps']:.1f}"),
        ("network evaluations per chunk", f"{results['nfe']:g}"),
        ("time per chunk, median [ms]", f"{results['ms_per_chunk']:.2f}"),
    ]
    keys = ("environment", "seed", "solver", "steps", "temperature", "runtime", "device", "threads", "checkpoint")
    return rows + [(f"run: {key}", str(run[key])) for key in keys if key in run]


def _facts(config: BundleConfig, contract: Contract) -> Rows:
    policy, chain = config.policy, config.policy.chain
    observations = ", ".join(f"{key.name} {key.dim}" for key in contract.observations)
    return [
        ("blocks", str(chain.blocks)),
        ("network", ", ".join(f"{k} {v}" for k, v in chain.network.items())),
        ("solver", f"{chain.solver.method}, {', '.join(map(str, chain.solver.counts))} step(s) per block"),
        ("noise", f"standard normal at temperature {policy.temperature:g}"),
        ("network evaluations per chunk", str(config.nfe)),
        ("weights", config.dtype),
        ("chunk", f"{policy.horizon} actions, {policy.action_steps} executed, at {contract.control_hz:g} Hz"),
        ("observations", f"{policy.observation_steps} × ({observations})"),
        ("actions", f"{contract.action_dim}, {contract.action_form}, {contract.rotation}"),
        ("robots", f"{', '.join(contract.robots)} ({contract.suite} {contract.suite_version})"),
    ]


def _usage(name: str, graphs: bool) -> str:
    robot = ', runtime="onnx")  # numpy and onnxruntime, no torch' if graphs else ")  # torch"
    return (
        "## Use\n\n```python\nfrom lfm_policy import open_policy\n\n"
        f'policy = open_policy("{name}"{robot}\n```\n\n'
        f"```sh\nlfm evaluate policy={name} episodes=100 seed=100000\n```"
    )


def _table(title: str, rows: Rows) -> str:
    if not rows:
        return ""
    return "\n".join([f"## {title}", "", "| | |", "|---|---|", *(f"| {label} | {value} |" for label, value in rows)])
