"""The whole sampler as one ONNX graph: normalise, all blocks and steps, denormalise. Noise is an input.

A block's network is translated once, into a function whose weights are arguments; each evaluation is a call of it. The
graph holds no weights of its own: it refers to those in the bundle's model.safetensors, and computes in float32.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import FunctionProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper
from onnx.external_data_helper import set_external_data
from torch import Tensor, nn

from lfm_policy.bundles.onnx_policy import ACTIONS, FRAMES, NOISE, OBSERVATIONS, PARTS_KEY, WEIGHTS_KEY, described_by
from lfm_policy.bundles.program import condition_of, example, require_fixed
from lfm_policy.bundles.translate import (
    BATCH,
    DOMAIN,
    OPSET,
    SightOf,
    translate,
    velocity,
)
from lfm_policy.data.normalizers.affine import AffineNormalizer
from lfm_policy.files import sha256
from lfm_policy.flow import FlowChain
from lfm_policy.flow.ode import TABLEAUX
from lfm_policy.models.bundle import PARTS, WEIGHTS
from lfm_policy.models.one_way import SteppingChain
from lfm_policy.models.policy import LFMPolicy
from lfm_policy.models.rotations import RotationRows
from lfm_policy.models.sight import Sight

_TYPES = {"F32": TensorProto.FLOAT, "F16": TensorProto.FLOAT16, "BF16": TensorProto.BFLOAT16}
"""Number formats as safetensors and as ONNX name them."""


def write_graph(policy: LFMPolicy, path: Path) -> None:
    """Write the sampler of a bundle's own policy beside its model.safetensors."""
    require_fixed(policy)
    graph = _Graph(path.with_name(WEIGHTS))
    history = [policy.observation_steps, policy.contract.observation_dim]
    seen = graph.affine(OBSERVATIONS, policy.encoding.observation_normalizer)
    if policy.encoding.rotations is not None:
        seen = graph.rotations(seen, policy.encoding.rotations)
    width = policy.condition(example(policy)[0]).shape[1]
    cond = graph.add("Reshape", seen, graph.constant(np.array([-1, width])))
    inputs = [_value(OBSERVATIONS, history), _value(NOISE, list(policy.noise_shape))]
    if policy.sight is not None:
        assert policy.contract.frames_shape is not None
        inputs.append(_value(FRAMES, list(policy.contract.frames_shape), TensorProto.UINT8))
        cond = graph.add("Concat", cond, graph.sight(policy.sight), axis=1)
    x = graph.sample(policy, cond)
    if policy.encoding.hands is None:
        graph.inverse(x, policy.encoding.action_normalizer, ACTIONS)
    else:
        newest = graph.add("Gather", OBSERVATIONS, graph.constant(np.array([history[0] - 1])), axis=1)
        anchor = graph.add("MatMul", newest, graph.constant(policy.encoding.hands.numpy()))
        graph.add("Add", graph.inverse(x, policy.encoding.action_normalizer), anchor, output=ACTIONS)
    model = graph.model(inputs, [_value(ACTIONS, list(policy.noise_shape))])
    described = described_by({name: sha256(path.with_name(name)) for name in PARTS})
    helper.set_model_props(model, {WEIGHTS_KEY: sha256(path.with_name(WEIGHTS)), PARTS_KEY: described})
    path.write_bytes(model.SerializeToString())


class _Graph:
    """Nodes, constants and references to stored weights, as they are added."""

    def __init__(self, weights: Path) -> None:
        self._stored = _Stored(weights)
        self._nodes: list[NodeProto] = []
        self._count = 0
        self._tensors: dict[str, TensorProto] = {}
        self._functions: dict[str, FunctionProto] = {}

    def add(self, kind: str, *inputs: str, output: str = "", domain: str = "", **attributes: Any) -> str:
        """Add a node; return the name of its output."""
        self._count += 1  # over all loops: names inside may not be those outside
        output = output or f"{kind}_{self._count}"
        self._nodes.append(helper.make_node(kind, list(inputs), [output], domain=domain, **attributes))
        return output

    def constant(self, value: np.ndarray | float) -> str:
        """Keep a tensor in the graph, float32 unless integer; return its name."""
        array = np.asarray(value)
        array = array if array.dtype == np.int64 else array.astype(np.float32)
        name = f"constant_{len(self._tensors)}"
        self._tensors[name] = numpy_helper.from_array(array, name)
        return name

    def weight(self, name: str) -> str:
        """Return the name of a stored weight, as float32."""
        if name not in self._tensors:
            self._tensors[name] = self._stored.reference(name)
            if self._tensors[name].data_type != TensorProto.FLOAT:
                self.add("Cast", name, output=f"{name}.float32", to=TensorProto.FLOAT)
        return name if self._tensors[name].data_type == TensorProto.FLOAT else f"{name}.float32"

    def affine(self, x: str, normalizer: AffineNormalizer) -> str:
        """Add x * scale + offset."""
        scaled = self.add("Mul", x, self.constant(normalizer.scale.numpy()))
        return self.add("Add", scaled, self.constant(normalizer.offset.numpy()))

    def rotations(self, x: str, rows: RotationRows) -> str:
        """Add `RotationRows.forward`."""
        keep, left, right, mix, constant = (
            self.constant(matrix.numpy()) for matrix in (rows.keep, rows.left, rows.right, rows.mix, rows.constant)
        )
        products = self.add("Mul", self.add("MatMul", x, left), self.add("MatMul", x, right))
        kept = self.add("Add", self.add("MatMul", x, keep), constant)
        return self.add("Add", kept, self.add("MatMul", products, mix))

    def inverse(self, x: str, normalizer: AffineNormalizer, output: str = "") -> str:
        """Add (x - offset) / scale."""
        shifted = self.add("Sub", x, self.constant(normalizer.offset.numpy()))
        return self.add("Div", shifted, self.constant(normalizer.scale.numpy()), output=output)

    def sight(self, sight: Sight) -> str:
        """Add the features of the pictures: `Sight.forward`."""
        shape = (2, len(sight.encoders), *sight.whole, 3)
        call = translate(SightOf(sight), sight, "Sight", (torch.zeros(shape, dtype=torch.uint8),), ({0: BATCH},))
        self._functions[call.function.name] = call.function
        weights = [self.weight(f"sight.{name}") for name in call.weights]
        return self.add(call.function.name, FRAMES, *weights, domain=DOMAIN)

    def sample(self, policy: LFMPolicy, cond: str) -> str:
        """Add the way from noise to normalised actions: the chain's `to_data`."""
        noise, condition = example(policy)[1], condition_of(policy)
        if isinstance(policy.chain, SteppingChain):
            cond = self._told(cond, condition.shape[1], policy.chain.code(policy.chain.solver))
            condition = policy.chain.told(condition, noise, policy.chain.solver)
            assert condition is not None
        keys = {id(value): key for key, value in policy.state_dict(keep_vars=True).items()}
        x, call = NOISE, None
        if policy.spec.temperature != 1:
            x = self.add("Mul", NOISE, self.constant(policy.spec.temperature))
        for n in reversed(range(len(policy.chain.blocks))):
            block = policy.chain.blocks[n]
            if call is None or not _same(block, policy.chain.blocks[n + 1]):
                call = velocity(block, f"Velocity{n}", noise, condition)
                self._functions[call.function.name] = call.function
            state = block.state_dict(keep_vars=True)
            weights = [self.weight(keys[id(state[name])]) for name in call.weights]
            network = _Call(call.function.name, cond, weights, list(policy.noise_shape))
            if isinstance(policy.chain, SteppingChain):
                x = self._take_steps(x, policy.chain, network)
            else:
                x = self._solve(x, policy.chain, n, network)
        return x

    def _told(self, cond: str, width: int, code: Sequence[float]) -> str:
        """Add `SteppingChain.told`."""
        if not code:
            return cond
        none = self.add("MatMul", cond, self.constant(np.zeros((width, len(code)))))
        return self.add("Concat", cond, self.add("Add", none, self.constant(np.array([code]))), axis=1)

    def _take_steps(self, x: str, chain: SteppingChain, network: "_Call") -> str:
        """Add `SteppingChain.to_data`."""
        for t, inner, keep, gain in chain.steps(chain.solver):
            guess = network(self, self.add("Mul", x, self.constant(inner)), self.constant(t))
            kept, moved = self.add("Mul", x, self.constant(keep)), self.add("Mul", guess, self.constant(gain))
            x = self.add("Add", kept, moved)
        return x

    def _solve(self, x: str, chain: FlowChain, n: int, velocity: "_Call") -> str:
        """Carry x through block n from t = 1 to t = 0: `ode.integrate` of `FlowChain.velocity` with a fixed step.

        Several steps are a loop of one, since onnxruntime's time to load a graph grows faster than the graph.
        """
        (count,) = chain.solver.of_block(n).counts
        if count == 1:
            return self._step(x, chain, n, velocity, lambda values: self.constant(values[0]))
        before, self._nodes = self._nodes, []
        state, k, on = f"state_{n}", f"step_{n}", f"on_{n}"
        after = self._step(
            state, chain, n, velocity, lambda values: self.add("Gather", self.constant(np.array(values)), k)
        )
        going = self.add("Identity", on)
        inputs = [_scalar(k, TensorProto.INT64), _scalar(on, TensorProto.BOOL), _value(state, velocity.shape)]
        outputs = [_scalar(going, TensorProto.BOOL), _value(after, velocity.shape)]
        body = helper.make_graph(self._nodes, f"Block{n}", inputs, outputs)
        self._nodes = before
        return self.add("Loop", self.constant(np.array(count)), "", x, body=body)

    def _step(self, x: str, chain: FlowChain, n: int, velocity: "_Call", at: Callable[[Sequence[float]], str]) -> str:
        """Add one step of the solver; `at` gives the current step's one of as many numbers as there are steps."""
        along = chain.solver.method == "gaussian"
        stages, gains = TABLEAUX["euler" if along else chain.solver.method]
        (count,) = chain.solver.of_block(n).counts
        step, slopes = -1 / count, list[str]()
        for offset, before in stages:
            times = [1 + (k + offset) * step for k in range(count)]
            point, t = self._advance(x, slopes, before, step), at(times)
            if not chain.precondition:
                slopes.append(velocity(self, point, t))
                continue
            factors = [[f.item() for f in chain.preconditioning(n, torch.tensor(time))] for time in times]
            inner, skip, outer = (at(values) for values in zip(*factors, strict=True))
            guess = velocity(self, self.add("Mul", point, inner), t)
            slopes.append(self.add("Add", self.add("Mul", point, skip), self.add("Mul", guess, outer)))
        if along:
            factors = [chain.gaussian_step(n, 1 + k * step, max(0.0, 1 + (k + 1) * step)) for k in range(count)]
            keep, gain = (at(values) for values in zip(*factors, strict=True))
            return self.add("Add", self.add("Mul", x, keep), self.add("Mul", slopes[0], gain))
        return self._advance(x, slopes, gains, step)

    def _advance(self, x: str, slopes: Sequence[str], gains: Sequence[float], step: float) -> str:
        for slope, gain in zip(slopes, gains, strict=True):
            if gain:
                x = self.add("Add", x, self.add("Mul", slope, self.constant(step * gain)))
        return x

    def model(self, inputs: list[ValueInfoProto], outputs: list[ValueInfoProto]) -> onnx.ModelProto:
        """Return the graph as a model, its functions included."""
        graph = helper.make_graph(self._nodes, "sampler", inputs, outputs, list(self._tensors.values()))
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, 1)]
        return helper.make_model(
            graph,
            functions=list(self._functions.values()),
            opset_imports=opsets,
            ir_version=10,
            producer_name="lfm-policy",
        )


@dataclass(frozen=True)
class _Call:
    """A block's network: the function, its condition and weights."""

    function: str
    cond: str
    weights: Sequence[str]
    shape: list[int]
    """Shape of a sample."""

    def __call__(self, graph: _Graph, x: str, t: str) -> str:
        return graph.add(self.function, x, t, self.cond, *self.weights, domain=DOMAIN)


class _Stored:
    """Where the tensors of a safetensors file lie."""

    def __init__(self, path: Path) -> None:
        self._name = path.name
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            self._header: Mapping[str, Any] = json.loads(file.read(length))
        self._first = 8 + length

    def reference(self, name: str) -> TensorProto:
        """Return a tensor whose data are in the file."""
        entry = self._header[name]
        begin, end = entry["data_offsets"]
        tensor = TensorProto(name=name, data_type=_TYPES[entry["dtype"]], dims=entry["shape"], raw_data=b"")
        set_external_data(tensor, self._name, offset=self._first + begin, length=end - begin)
        tensor.ClearField("raw_data")
        return tensor


def _same(block: nn.Module, other: nn.Module) -> bool:
    """Say whether two blocks differ in nothing but their weights.

    A module's `repr` lists its arguments by convention; one that computes with a number it does not list would share a
    graph wrongly, which the comparison of every exported graph with torch then refuses.
    """
    return repr(block) == repr(other) and not any(isinstance(value, Tensor) for value in vars(block).values())


def _value(name: str, shape: list[int], kind: int = TensorProto.FLOAT) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, ["batch", *shape])


def _scalar(name: str, kind: int) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, [])
