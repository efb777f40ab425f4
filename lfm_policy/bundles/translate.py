"""A network as an ONNX function of its inputs and of its weights, translated once and called many times."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from onnx import FunctionProto, helper
from torch import Tensor, nn

from lfm_policy.bundles.program import BATCH
from lfm_policy.models.sight import Sight

OPSET = 20
DOMAIN = "lfm"
"""Domain of the function that is a block's network."""


class Translated(NamedTuple):
    """A network as an ONNX function of its inputs and its weights."""

    function: FunctionProto
    weights: Sequence[str]
    """Their names in the network's state, in the function's order."""


def velocity(network: nn.Module, name: str, x: Tensor, cond: Tensor) -> Translated:
    """Translate v(x, t, cond), at one time for all samples, so that one function serves all blocks."""
    return translate(VelocityOf(network), network, name, (x, torch.tensor(0.5), cond), ({0: BATCH}, None, {0: BATCH}))


def translate(
    function: nn.Module, network: nn.Module, name: str, inputs: tuple[Tensor, ...], shapes: tuple[Any, ...]
) -> Translated:
    """Translate a function of inputs and of a network's weights, which become arguments."""
    weights = dict(network.state_dict())
    with torch.no_grad(), _quiet():
        exported = torch.export.export(function, (*inputs, weights), dynamic_shapes=(*shapes, dict.fromkeys(weights)))
        translated = torch.onnx.export(exported, dynamo=True, opset_version=OPSET, verbose=False)
    assert translated is not None
    graph = translated.model_proto.graph
    for node in graph.node:  # stack traces of this machine
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    constants = [helper.make_node("Constant", [], [value.name], value=value) for value in graph.initializer]
    made = helper.make_function(
        DOMAIN,
        name,
        [value.name for value in graph.input],
        [value.name for value in graph.output],
        [*constants, *graph.node],
        [helper.make_opsetid("", OPSET)],
    )
    return Translated(made, list(weights))


class SightOf(nn.Module):
    """Encoders as a function of their weights."""

    def __init__(self, sight: Sight) -> None:
        super().__init__()
        self.sight = [sight]  # in a list: no part of this module's state

    def forward(self, frames: Tensor, weights: dict[str, Tensor]) -> Tensor:
        return torch.func.functional_call(self.sight[0], weights, (frames,))


class VelocityOf(nn.Module):
    """A network as a function of its weights, at one time for all samples."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = [network]  # in a list: no part of this module's state

    def forward(self, x: Tensor, t: Tensor, cond: Tensor, weights: dict[str, Tensor]) -> Tensor:
        return torch.func.functional_call(self.network[0], weights, (x, t.expand(x.shape[0]), cond))


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's warnings of its own deprecations, and of operators of libraries that are not installed."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        logger.setLevel(level)
