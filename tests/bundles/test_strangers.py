"""Checkpoints and bundles from strangers: each is refused in one clear sentence, soon, and before memory is taken."""

import json
import os
import resource
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper
from safetensors.torch import load_file, save_file

from lfm_policy.bundles import onnx_policy
from lfm_policy.bundles.export import export
from lfm_policy.bundles.onnx_policy import OnnxPolicy
from lfm_policy.bundles.open import open_policy
from lfm_policy.errors import CheckpointError, LFMError
from lfm_policy.models import bundle
from lfm_policy.models.density import FlowModel
from lfm_policy.models.policy import LFMPolicy
from lfm_policy.models.pretrained import seal
from lfm_policy.models.spec import ChainSpec, FlowSpec
from tests.bundles.policies import policy

Damage = Callable[[Path], object]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("honest")
    policy(blocks=1).save_pretrained(root / "checkpoint")
    export(policy(blocks=1), root / "bundle", samples=1)
    return {name: root / name for name in ("checkpoint", "bundle")}


def edit(name: str, change: Callable[[dict[str, Any]], object]) -> Damage:
    def damage(directory: Path) -> None:
        values = json.loads((directory / name).read_text())
        change(values)
        (directory / name).write_text(json.dumps(values))

    return damage


def write(name: str, content: bytes) -> Damage:
    return lambda directory: (directory / name).write_bytes(content)


def network(**arguments: object) -> Damage:
    return edit("config.json", lambda v: described(v)["chain"]["network"].update(arguments))


def chain(**values: object) -> Damage:
    return edit("config.json", lambda v: described(v)["chain"].update(values))


def spec(**values: object) -> Damage:
    return edit("config.json", lambda v: described(v).update(values))


def contract(**values: object) -> Damage:
    return edit("contract.json", lambda v: v.update(values))


def described(values: dict[str, Any]) -> dict[str, Any]:
    return values.get("policy", values)


def tensors(pattern: str, value: float) -> Damage:
    def damage(directory: Path) -> None:
        state = load_file(directory / "model.safetensors")
        for name in state:
            if pattern in name:
                state[name].view(-1)[0] = value
        save_file(state, directory / "model.safetensors")

    return damage


def fifo(name: str) -> Damage:
    def damage(directory: Path) -> None:
        (directory / name).unlink()
        os.mkfifo(directory / name)

    return damage


def device(name: str) -> Damage:
    def damage(directory: Path) -> None:
        (directory / name).unlink()
        (directory / name).symlink_to("/dev/zero")

    return damage


def folder(name: str) -> Damage:
    def damage(directory: Path) -> None:
        (directory / name).unlink()
        (directory / name).mkdir()

    return damage


DEEP = b"[" * 100_000
BOTH: list[tuple[str, Damage, str]] = [
    ("one level of 10^9 channels", network(dims=[10**9]), "go beyond numbers of"),
    ("levels of 10^5 channels", network(dims=[10**5] * 3), "do not fit its config.json"),
    ("levels of 20,000 channels", network(dims=[20_000] * 3), "do not fit its config.json"),
    ("10^5 levels", network(dims=[8] * 10**5), "lists of 64"),
    ("a wide embedding of time", network(time_dim=10**9), "go beyond numbers of"),
    ("arguments of arguments", network(dims=[[[[[[8]]]]]]), "levels"),
    ("channels below zero", network(dims=[-8, 16]), ""),
    ("no groups", network(groups=0), ""),
    ("an argument that is none", network(colour="red"), "refuses"),
    ("a chunk of 10^9 actions", spec(horizon=10**9), "horizon"),
    ("10^9 observations", spec(observation_steps=10**9), "observation_steps"),
    ("no action executed", spec(action_steps=0), "action_steps"),
    ("fewer than none", spec(action_steps=-3), "action_steps"),
    ("10^9 actions executed", spec(action_steps=10**9), "do not fit a chunk"),
    ("a temperature of 10^300", spec(temperature=1e300), "temperature"),
    ("10^5 blocks", chain(gammas=[0.1] * 10**5), "gammas"),
    ("a negative OU step", chain(gammas=[-0.1]), "gammas"),
    ("an OU step that is none", chain(gammas=[float("nan")]), "gammas"),
    ("10^9 solver steps", chain(solver={"method": "euler", "steps": 10**9, "tolerance": 1e-5}), "solver steps"),
    ("diffusion in two blocks", chain(gammas=[0.1], objective="ddpm"), "one block"),
    ("code", chain(network={"_target_": "os.system", "command": "true"}), "from outside this package"),
    ("no controllers", contract(controllers=[]), "action_dim"),
    ("an observation of 10^9 numbers", contract(observations=[{"name": "x", "dim": 10**9}]), "dim"),
    ("an action of 10^9 numbers", contract(action_dim=10**9), "action_dim"),
    ("a rate of 0", contract(control_hz=0), "control_hz"),
    ("a rate that is none", contract(control_hz=float("nan")), "control_hz"),
    ("a rate below 0", contract(control_hz=-20), "control_hz"),
    ("a rate of 10^9", contract(control_hz=1e9), "control_hz"),
    ("escapes in a name", contract(observations=[{"name": "x\x1b[31m", "dim": 19}]), "name"),
    ("weights that are no numbers", tensors("chain.", float("nan")), "not finite"),
    ("a config nested too deep", write("config.json", DEEP), "nested too deep"),
    ("a config in another encoding", write("config.json", b"\xff\xfe{"), "not UTF-8"),
    ("a config that is a list", write("config.json", b"[]"), ""),
    ("a config of 20 MB", write("config.json", b" " * (20 << 20)), "expected a description"),
    ("a config that is a folder", folder("config.json"), ""),
    ("a config that is a pipe", fifo("config.json"), ""),
    ("a contract without end", device("contract.json"), ""),
    ("weights that are a pipe", fifo("model.safetensors"), ""),
    ("weights without end", device("model.safetensors"), ""),
    ("checksums that are a pipe", fifo("checksums.json"), ""),
    ("checksums without end", device("checksums.json"), ""),
    ("checksums nested too deep", write("checksums.json", DEEP), "nested too deep"),
]
CHECKPOINT = [
    ("a normaliser that is none", tensors("action_normalizer.scale", float("nan")), "not finite"),
    ("a normaliser without end", tensors("observation_normalizer.offset", float("inf")), "not finite"),
    ("a normaliser of 0", tensors("observation_normalizer.scale", 0.0), "scale of 0"),
    ("a normaliser below float32", tensors("observation_normalizer.scale", 1e-300), "scale of 0"),
]
BUNDLE = [
    (name, edit("normalizer.json", lambda v, value=value: v["action"]["scale"].__setitem__(0, value)), "scales must")
    for name, value in (("no number", float("nan")), ("no end", float("inf")), ("0", 0.0), ("below float32", 1e-300))
]
BUNDLE += [
    ("10^9 evaluations", edit("config.json", lambda v: v.update(nfe=10**9)), "nfe"),
    ("a name of 5,000 letters", edit("checksums.json", lambda v: v.update({"x" * 5000: "0"})), "names of files"),
]
CASES = [(kind, *case) for kind, own in (("checkpoint", CHECKPOINT), ("bundle", BUNDLE)) for case in (*BOTH, *own)]


def sealed(directory: Path, kind: str) -> None:
    """Make the checksums true again, as a stranger would."""
    if not all(path.is_file() and not path.is_symlink() for path in directory.iterdir()):
        return
    if kind == "checkpoint":
        seal(directory)
    else:
        names = json.loads((directory / "checksums.json").read_text())
        sums = {name: bundle.sha256(directory / name) for name in names if len(name) < 100}
        (directory / "checksums.json").write_text(json.dumps(sums))


@pytest.mark.parametrize(
    ("kind", "damage", "message"), [(k, d, m) for k, _, d, m in CASES], ids=[f"{k}: {n}" for k, n, _, _ in CASES]
)
def test_what_strangers_send_is_refused(
    places: dict[str, Path], tmp_path: Path, kind: str, damage: Damage, message: str
) -> None:
    copy = Path(shutil.copytree(places[kind], tmp_path / "copy"))
    sums = (copy / "checksums.json").read_bytes()
    damage(copy)
    now = copy / "checksums.json"
    if now.is_file() and not now.is_symlink() and now.read_bytes() == sums:
        sealed(copy, kind)
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(LFMError) as caught:
        LFMPolicy.of_bundle(bundle.read(copy)) if kind == "bundle" else open_policy(copy)
    assert message in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert time.process_time() - started < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 << 10  # KiB


@pytest.mark.parametrize("name", ["config.json", "contract.json", "model.safetensors", "checksums.json"])
def test_a_changed_bit_of_a_checkpoint_is_noticed(places: dict[str, Path], tmp_path: Path, name: str) -> None:
    copy = Path(shutil.copytree(places["checkpoint"], tmp_path / "copy"))
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(bytes(content))
    with pytest.raises(LFMError):
        open_policy(copy)


def replaced(directory: Path, nodes: Callable[[onnx.GraphProto], list[onnx.NodeProto]]) -> None:
    """Put other nodes in the place of a bundle's graph, which keeps its inputs and output."""
    path = directory / "sampler.float32.onnx"
    model = onnx.load(path, load_external_data=False)
    made = nodes(model.graph)
    del model.graph.node[:], model.graph.initializer[:], model.functions[:]
    model.graph.node.extend(made)
    path.write_bytes(model.SerializeToString())
    sealed(directory, "bundle")


def endless(constant: bool) -> Callable[[onnx.GraphProto], list[onnx.NodeProto]]:
    """A loop without end, over the noise or over a constant, which onnxruntime works out while it loads."""

    def nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
        true = helper.make_tensor("true", TensorProto.BOOL, [], [True])
        count = helper.make_tensor("count", TensorProto.INT64, [], [2**62])
        one = helper.make_tensor("one", TensorProto.FLOAT, [1, 1, 1], [1.0])
        scalars = [helper.make_tensor_value_info("k", TensorProto.INT64, [])]
        scalars.append(helper.make_tensor_value_info("on", TensorProto.BOOL, []))
        state = helper.make_tensor_value_info("state", TensorProto.FLOAT, None)
        after = [
            helper.make_tensor_value_info("still", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, None),
        ]
        body = [helper.make_node("Identity", ["on"], ["still"]), helper.make_node("Sin", ["state"], ["next"])]
        loop = helper.make_graph(body, "body", [*scalars, state], after)
        return [
            *(helper.make_node("Constant", [], [value.name], value=value) for value in (true, count, one)),
            helper.make_node("Loop", ["count", "true", "one" if constant else "noise"], ["end"], body=loop),
            helper.make_node("Mul", ["end", "noise"], ["actions"]),
        ]

    return nodes


def greedy(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Four TiB of zeros, added up."""
    shape = helper.make_tensor("shape", TensorProto.INT64, [1], [2**40])
    axes = helper.make_tensor("axes", TensorProto.INT64, [1], [0])
    return [
        *(helper.make_node("Constant", [], [value.name], value=value) for value in (shape, axes)),
        helper.make_node("ReduceSum", ["noise"], ["drawn"], keepdims=0),
        helper.make_node("Expand", ["drawn", "shape"], ["zeros"]),
        helper.make_node("ReduceSum", ["zeros", "axes"], ["sum"], keepdims=0),
        helper.make_node("Mul", ["sum", "noise"], ["actions"]),
    ]


@pytest.mark.parametrize(
    ("nodes", "message"),
    [(endless(constant=False), "no chunk after 2 s"), (greedy, "cannot run the graph")],
    ids=["without end", "greedy"],
)
def test_graphs_that_never_end_or_want_all_memory_are_refused(
    places: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nodes: Any, message: str
) -> None:
    monkeypatch.setattr(onnx_policy, "PATIENCE_S", 2.0)
    copy = Path(shutil.copytree(places["bundle"], tmp_path / "copy"))
    replaced(copy, nodes)
    started = time.perf_counter()
    with pytest.raises(LFMError, match=message):
        OnnxPolicy(copy)
    assert time.perf_counter() - started < 20


def test_a_graph_of_another_normaliser_is_refused(places: dict[str, Path], tmp_path: Path) -> None:
    copy = Path(shutil.copytree(places["bundle"], tmp_path / "copy"))
    edit("normalizer.json", lambda v: v["action"]["scale"].__setitem__(0, 2.5))(copy)
    sealed(copy, "bundle")
    with pytest.raises(LFMError, match=r"its graph was made for another config\.json"):
        OnnxPolicy(copy)


def test_layers_without_number_are_not_built(tmp_path: Path) -> None:
    """A million of them, none of which is wide."""
    small = {"_target_": "lfm_policy.networks.VelocityMlp", "width": 4, "layers": 2}
    FlowModel(FlowSpec(dim=2, chain=ChainSpec(gammas=(), network=small))).save_pretrained(tmp_path / "model")
    network(layers=2**20)(tmp_path / "model")
    seal(tmp_path / "model")
    started = time.process_time()
    with pytest.raises(CheckpointError, match="asks for more than"):
        FlowModel.from_pretrained(tmp_path / "model")
    assert time.process_time() - started < 2
