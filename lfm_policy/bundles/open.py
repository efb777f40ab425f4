"""The one door to every policy: checkpoints, bundles, students by name, repositories of the hub, policy servers.

policy = open_policy("outputs/lift")                   # torch
policy = open_policy("lift", runtime="onnx")           # onnxruntime, no torch
policy = open_policy("ws://robot:8000")                # a PolicyClient
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lfm_policy.choices import Products, Sampling, Weights
from lfm_policy.contract import Contract
from lfm_policy.errors import CheckpointError, ConfigError
from lfm_policy.models import bundle
from lfm_policy.models.sources import is_server, locate
from lfm_policy.protocols import ChunkPolicy

if TYPE_CHECKING:
    from lfm_policy.bundles.onnx_policy import OnnxPolicy
    from lfm_policy.models.density import FlowModel
    from lfm_policy.models.policy import LFMPolicy

Runtime = Literal["torch", "onnx", "auto"]
"""Who computes: torch, onnxruntime a bundle's graph, or the latter where there is one and it does what is asked."""


def open_policy(
    source: str | Path,
    *,
    runtime: Runtime = "torch",
    weights: Weights = "ema",
    precision: Products = "float32",
    sampling: Sampling | None = None,
    device: str = "cpu",
    threads: int | None = 1,
    trust_code: bool = False,
    expected: Contract | None = None,
    api_key: str | None = None,
) -> ChunkPolicy:
    """Open a policy, whatever it is stored as and wherever it computes.

    Args:
        source: a folder of a run, checkpoint or bundle; the name of an installed bundle ("lift"); "user/repository" of
            the Hugging Face hub; or the address of a policy server ("ws://host:8000").
        runtime: who computes; a server decides for itself.
        weights: of a checkpoint, the moving average or the weights as trained.
        precision: number format of the products inside the networks; bfloat16 is for torch alone.
        sampling: solver and temperature, where they are not to be the checkpoint's; for torch alone.
        device: of torch.
        threads: CPU threads of one call; None: as many as torch or onnxruntime take by themselves.
        trust_code: allow a network class from outside this package.
        expected: the contract of the environment or robot it is meant for.
        api_key: where the server asks for one.

    Raises:
        CheckpointError: there is nothing of that name, or it is damaged.
        ConfigError: a setting does not go with the source, or torch cannot compute on that device.
        ContractError: the policy has another contract than `expected`.
        ServingError: no policy server answers there.
    """
    asked = {} if sampling is None else sampling.asked
    told = {} if precision == "float32" else {"precision": precision}
    if is_server(source):
        # Not above: a robot that runs a graph itself needs no websockets.
        from lfm_policy.server.client import PolicyClient

        _require_nothing(asked | told, "a server's sampler", "serve")
        return PolicyClient(str(source), api_key=api_key, contract=expected)
    stored = _stored(source, expected)
    has_graph = isinstance(stored, bundle.Bundle) and bool(stored.graphs)
    if runtime == "onnx" and told:
        raise ConfigError(f"a graph computes in float32: precision={precision} goes with runtime=torch")
    if runtime == "onnx" or (runtime == "auto" and has_graph and not asked and not told):
        _require_nothing(asked, "a graph's sampler", "export")
        return _graph(stored, threads)
    policy = require_policy(_model(stored, weights, sampling, device, threads, trust_code, expected), source)
    if told:
        policy.narrow()
    return policy


def open_model(
    source: str | Path,
    *,
    weights: Weights = "ema",
    sampling: Sampling | None = None,
    device: str = "cpu",
    threads: int | None = 1,
    trust_code: bool = False,
    expected: Contract | None = None,
) -> "LFMPolicy | FlowModel":
    """Open a model in torch: as `open_policy`, for what looks inside, and for densities too."""
    return _model(_stored(source, expected), weights, sampling, device, threads, trust_code, expected)


def open_torch(source: str | Path, **options: Any) -> "LFMPolicy":
    """Open a policy in torch; see `open_model`. Raises CheckpointError where the source is a density."""
    return require_policy(open_model(source, **options), source)


def require_policy(model: "LFMPolicy | FlowModel", source: str | Path) -> "LFMPolicy":
    """Return `model`; raise CheckpointError if it is a density."""
    from lfm_policy.models.policy import LFMPolicy

    if not isinstance(model, LFMPolicy):
        raise CheckpointError(f"{source} holds a density, expected a policy: name a run on demonstrations")
    return model


def _stored(source: str | Path, expected: Contract | None) -> bundle.Bundle | Path:
    """Return a bundle, read once, or the folder of what should be a checkpoint."""
    directory = locate(source)
    return bundle.read(directory, expected) if bundle.is_bundle(directory) else directory


def _graph(stored: bundle.Bundle | Path, threads: int | None) -> "OnnxPolicy":
    try:
        from lfm_policy.bundles.onnx_policy import OnnxPolicy
    except ModuleNotFoundError as error:
        raise ConfigError(f"runtime=onnx needs {error.name}: pip install 'lfm-policy[deploy]'") from None
    return OnnxPolicy(stored, threads=threads)


def _model(
    stored: bundle.Bundle | Path,
    weights: Weights,
    sampling: Sampling | None,
    device: str,
    threads: int | None,
    trust_code: bool,
    expected: Contract | None,
) -> "LFMPolicy | FlowModel":
    try:
        from lfm_policy.bundles.weights import load
        from lfm_policy.models.device import usable_device
        from lfm_policy.models.policy import LFMPolicy
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"runtime=torch needs {error.name}: pip install 'lfm-policy[train]', or use runtime=onnx with a bundle"
        ) from None
    place = usable_device(device)
    if isinstance(stored, Path):
        model = load(stored, weights, place, trust_code)
    elif weights == "raw":
        raise ConfigError(f"weights=raw: the bundle {stored.directory} holds one set of weights; use weights=ema")
    else:
        model = LFMPolicy.of_bundle(stored, place, trust_code)
    if isinstance(model, LFMPolicy):
        model.threads = threads
        if expected is not None:
            model.contract.require_match(expected, f"checkpoint {stored}", "the robot")
    _change(model, sampling or Sampling())
    return model


def _change(model: "LFMPolicy | FlowModel", sampling: Sampling) -> None:
    model.chain.solver = sampling.solver(model.chain.solver)
    if sampling.temperature is not None:
        require_policy(model, "temperature is for policies, and the source").set_temperature(sampling.temperature)


def _require_nothing(asked: dict[str, Any], what: str, verb: str) -> None:
    if asked:
        settings = " ".join(f"{name}={_typed(value)}" for name, value in asked.items())
        raise ConfigError(f"{what} is fixed: {verb} again with {settings}, or use runtime=torch")


def _typed(value: Any) -> str:
    """Write a setting as one types it: [5,1], and 4 for a list of one."""
    if not isinstance(value, tuple):
        return str(value)
    return str(value[0]) if len(value) == 1 else f"[{','.join(map(str, value))}]"


def form_of(policy: ChunkPolicy) -> dict[str, Any]:
    """Return what decides an opened policy's chunks, as plain values."""
    digest = {"checkpoint": policy.digest()}  # pyright: ignore[reportAttributeAccessIssue]
    if (precision := getattr(policy, "precision", None)) is not None:
        return digest | {"runtime": "onnx", "precision": precision}
    if (chain := getattr(policy, "chain", None)) is None:
        return digest | {"runtime": "server"}
    temperature = policy.spec.temperature  # pyright: ignore[reportAttributeAccessIssue]
    solver, steps = chain.solver, chain.solver.steps
    counts = steps if isinstance(steps, int) else list(steps)  # as JSON gives them back
    told = {"solver": solver.method, "steps": counts, "tolerance": solver.tolerance}
    products = {"precision": "bfloat16"} if policy.narrowed else {}  # pyright: ignore[reportAttributeAccessIssue]
    return digest | told | {"temperature": temperature} | products


def dress(policy: ChunkPolicy, seam: str, warm_blocks: int | None, best_of: int) -> tuple[ChunkPolicy, dict[str, Any]]:
    """Return the policy as the seam and the best of several chunks ask for it, and what of that decides its chunks.

    Raises:
        ConfigError: both are asked for, or of what only a torch policy with a long enough chain can do.
    """
    if best_of > 1 and seam == "warm":
        raise ConfigError("seam=warm: the best of several chunks cannot begin at the running chunk; use seam=switch")
    if best_of > 1:
        from lfm_policy.chunks.best_of import BestOf

        return BestOf(_torch(policy, f"best_of={best_of}"), best_of), {"best_of": best_of}
    if seam == "warm":
        from lfm_policy.chunks.warm import WarmStart

        warm = WarmStart(_torch(policy, "seam=warm"), warm_blocks)
        return warm, {"warm_blocks": warm.blocks}
    return policy, {}


def _torch(policy: ChunkPolicy, setting: str) -> "LFMPolicy":
    from lfm_policy.models.policy import LFMPolicy

    if not isinstance(policy, LFMPolicy):
        raise ConfigError(f"{setting} looks inside the policy, which a graph or a server hides: use runtime=torch")
    return policy
