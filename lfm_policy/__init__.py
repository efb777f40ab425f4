"""Local Flow Matching policies (arXiv 2410.02548): train, evaluate, distil and deploy robot action generators.

The names below are imported from their modules when they are first used, so that `import lfm_policy` costs nothing and
a robot with onnxruntime alone needs no torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

_HOMES = {
    "Contract": "contract",
    "EpisodeInputs": "chunks.horizon",
    "Evaluation": "rollout.evaluation",
    "FlowChain": "flow",
    "FlowModel": "models.density",
    "LFMPolicy": "models.policy",
    "Link": "chunks.delayed",
    "OnnxPolicy": "bundles.onnx_policy",
    "PolicyClient": "server.client",
    "PolicySpec": "models.spec",
    "RecedingHorizon": "chunks.horizon",
    "Runner": "rollout.runner",
    "RunnerOptions": "rollout.runner",
    "Schedule": "flow",
    "Solver": "flow",
    "open_policy": "bundles.open",
    "push_to_hub": "bundles.push",
}
__all__ = [
    "Contract",
    "EpisodeInputs",
    "Evaluation",
    "FlowChain",
    "FlowModel",
    "LFMPolicy",
    "Link",
    "OnnxPolicy",
    "PolicyClient",
    "PolicySpec",
    "RecedingHorizon",
    "Runner",
    "RunnerOptions",
    "Schedule",
    "Solver",
    "__version__",
    "open_policy",
    "push_to_hub",
]

if TYPE_CHECKING:
    from lfm_policy.bundles.onnx_policy import OnnxPolicy as OnnxPolicy
    from lfm_policy.bundles.open import open_policy as open_policy
    from lfm_policy.bundles.push import push_to_hub as push_to_hub
    from lfm_policy.chunks.delayed import Link as Link
    from lfm_policy.chunks.horizon import EpisodeInputs as EpisodeInputs
    from lfm_policy.chunks.horizon import RecedingHorizon as RecedingHorizon
    from lfm_policy.contract import Contract as Contract
    from lfm_policy.flow import FlowChain as FlowChain
    from lfm_policy.flow import Schedule as Schedule
    from lfm_policy.flow import Solver as Solver
    from lfm_policy.models.density import FlowModel as FlowModel
    from lfm_policy.models.policy import LFMPolicy as LFMPolicy
    from lfm_policy.models.spec import PolicySpec as PolicySpec
    from lfm_policy.rollout.evaluation import Evaluation as Evaluation
    from lfm_policy.rollout.runner import Runner as Runner
    from lfm_policy.rollout.runner import RunnerOptions as RunnerOptions
    from lfm_policy.server.client import PolicyClient as PolicyClient


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    value = globals()[name] = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
