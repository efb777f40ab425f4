"""The model card of a policy: what it is, what was measured, how to use it; and what the hub reads of it."""

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
    graphs: bool | None = None,
) -> str:
    """Return the Markdown text.

    Args:
        name: of the bundle, or of the repository that holds the policy.
        config: its config.json.
        contract: its contract.json.
        sizes: bytes of each of its files.
        parity: of each graph, the largest difference between its actions and the torch policy's [normalised units].
        results: summary.json of an evaluation of this policy; None when none was made.
        graphs: whether onnxruntime can run it; None: where there is a parity.
    """
    parts = [
        f"# {name}\n\nA Local Flow Matching policy (arXiv 2410.02548) for `{contract.suite}/{contract.environment}`.",
        _table("Policy", _facts(config, contract)),
        _measured(name, results) if results else "Success has not been measured for this policy.",
        _table("Files [bytes]", [(file, f"{size:,}") for file, size in sizes.items()]),
        _table("Largest difference from torch [normalised actions]", [(k, f"{v:.1e}") for k, v in parity.items()]),
        _usage(name, bool(parity) if graphs is None else graphs),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def from_hub(text: str, repository: str) -> str:
    """Return the card that lies in a bundle, with the call that opens it from the hub before it."""
    return f'From the hub: `open_policy("{repository}")`, or `lfm evaluate policy={repository}`.\n\n{text}'


def metadata(name: str, contract: Contract, results: Mapping[str, Any] | None) -> str:
    """Return the head of a card that the hub reads: library, tags, and the success rate where it was measured.

    Raises:
        ModuleNotFoundError: huggingface_hub is not installed.
    """
    from huggingface_hub import EvalResult, ModelCardData

    environment = f"{contract.suite}/{contract.environment}"
    found = []
    if results is not None:
        low, high = results["interval"]
        says = f"success rate ({results['episodes']} episodes, Wilson 95 % [{low:.3f}, {high:.3f}])"
        found.append(
            EvalResult(
                task_type="robotics",
                dataset_type=environment,
                dataset_name=environment,
                metric_type="success_rate",
                metric_name=says,
                metric_value=round(float(results["success"]), 4),
            )
        )
    tags = ["robotics", "flow-matching", "imitation-learning", "arxiv:2410.02548", contract.environment]
    said = {"library_name": "lfm-policy", "pipeline_tag": "robotics", "tags": tags}
    data = ModelCardData(**said, **({"model_name": name, "eval_results": found} if found else {}))
    return f"---\n{data.to_yaml()}\n---\n\n"


def _measured(name: str, results: Mapping[str, Any]) -> str:
    """Return the table of an evaluation, and the command that repeats it."""
    run = results.get("run", {})
    told = {
        "policy": name,
        "environment": run.get("environment"),
        "episodes": results["episodes"],
        "seed": run.get("seed"),
    }
    changed = {"runtime": run.get("runtime"), "temperature": run.get("temperature")}
    if run.get("solver") is not None:
        changed |= {"solver.method": run["solver"], "solver.steps": run.get("steps")}
    words = " ".join(f"{key}={value}" for key, value in (told | changed).items() if value is not None)
    return f"{_table('Measured', measured(results))}\n\n```sh\nlfm evaluate {words}\n```"


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
