"""Bundles: what is written is what is read, and every damage is one clear error that names the file."""

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from lfm_envs.tasks import TASKS
from lfm_policy.bundles.export import export
from lfm_policy.bundles.onnx_policy import OnnxPolicy
from lfm_policy.bundles.open import open_torch
from lfm_policy.errors import CheckpointError, ConfigError, ContractError, LFMError
from lfm_policy.files import sha256
from lfm_policy.models import bundle
from lfm_policy.models.policy import LFMPolicy
from tests.bundles.policies import policy


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundles") / "lift"
    export(policy(), out, dtype="float16", graphs=["float32"], samples=2)
    return out


@pytest.fixture
def copy(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "lift"))


def _chunk(made: LFMPolicy) -> np.ndarray:
    generator = np.random.default_rng(1)
    histories = generator.standard_normal((3, 2, made.contract.observation_dim)).astype(np.float32)
    return made.predict(histories, generator.standard_normal((3, *made.noise_shape)).astype(np.float32)).actions


def test_in_float32_a_bundle_is_the_policy_bit_for_bit(tmp_path: Path) -> None:
    made = policy()
    export(made, tmp_path / "lift", graphs=[])
    loaded = open_torch(tmp_path / "lift", expected=TASKS["lift"].contract)
    np.testing.assert_array_equal(_chunk(loaded), _chunk(made))
    assert (loaded.spec, loaded.contract, loaded.training) == (made.spec, made.contract, False)


@pytest.mark.parametrize(("dtype", "digits"), [("float16", 11), ("bfloat16", 8)])
def test_half_formats_round_the_weights_and_nothing_else(tmp_path: Path, dtype: str, digits: int) -> None:
    made = policy()
    found = export(made, tmp_path / "lift", dtype=dtype, graphs=[])
    loaded = open_torch(tmp_path / "lift")
    for name, value in made.state_dict().items():
        other = loaded.state_dict()[name]
        assert value.dtype == other.dtype
        torch.testing.assert_close(other, value, rtol=2.0**-digits if name.startswith("chain") else 0, atol=1e-7)
    assert found.sizes["model.safetensors"] < 2 * sum(p.numel() for p in made.parameters()) + 40_000  # the header


def test_the_files_are_the_documented_ones_and_none_is_a_pickle(exported: Path) -> None:
    names = {path.name for path in exported.iterdir()}
    assert names == {*bundle.PARTS, "sampler.float32.onnx", "checksums.json", "README.md"}
    for path in exported.iterdir():
        assert not path.read_bytes().startswith((b"\x80\x02", b"\x80\x04", b"\x80\x05", b"PK"))


def test_the_card_says_what_was_measured(tmp_path: Path) -> None:
    results = {
        "success": 0.97,
        "episodes": 100,
        "interval": [0.915, 0.99],
        "mean_steps": 41.25,
        "nfe": 2.0,
        "ms_per_chunk": 3.5,
        "run": {"environment": "robosuite/lift", "seed": 100000},
    }
    export(policy(), tmp_path / "lift", graphs=[], results=results)
    text = (tmp_path / "lift" / "README.md").read_text()
    assert "0.970 over 100 episodes" in text
    assert "[0.915, 0.990]" in text
    assert "| run: seed | 100000 |" in text


def test_weights_that_a_format_cannot_hold_are_refused_and_the_old_bundle_stays(copy: Path) -> None:
    made, before = policy(), (copy / "checksums.json").read_bytes()
    with torch.no_grad():
        made.chain.blocks[0].out[1].bias[0] = 1e6
    with pytest.raises(ConfigError, match="not finite in float16"):
        export(made, copy, dtype="float16", graphs=[])
    assert (copy / "checksums.json").read_bytes() == before


def test_bundles_of_the_repository_are_found_by_name(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "PRETRAINED", exported.parent)
    monkeypatch.chdir(tmp_path)
    assert bundle.read("lift").directory == exported
    with pytest.raises(CheckpointError, match=r"no bundle in lfit.*name one of \['lift'\]"):
        bundle.read("lfit")


def _seal(directory: Path) -> None:
    """Make the checksums true again, as someone would who edits a bundle by hand."""
    names = json.loads((directory / "checksums.json").read_text())
    sums = {name: sha256(directory / name) for name in names if (directory / name).exists()}
    (directory / "checksums.json").write_text(json.dumps(sums))


def _edit(name: str, change: Callable[[dict], object], *, seal: bool = True) -> Callable[[Path], None]:
    def damage(directory: Path) -> None:
        values = json.loads((directory / name).read_text())
        change(values)
        (directory / name).write_text(json.dumps(values))
        if seal:
            _seal(directory)

    return damage


def _policy(**changes: object) -> Callable[[Path], None]:
    return _edit("config.json", lambda v: v["policy"].update(changes))


def _chain(**changes: object) -> Callable[[Path], None]:
    return _edit("config.json", lambda v: v["policy"]["chain"].update(changes))


def _write(name: str, content: bytes, *, seal: bool = True) -> Callable[[Path], None]:
    def damage(directory: Path) -> None:
        (directory / name).write_bytes(content)
        if seal:
            _seal(directory)

    return damage


def _truncate(name: str, *, seal: bool) -> Callable[[Path], None]:
    def damage(directory: Path) -> None:
        content = (directory / name).read_bytes()
        _write(name, content[: len(content) // 2], seal=seal)(directory)

    return damage


def _flip_one_bit(directory: Path) -> None:
    content = bytearray((directory / "model.safetensors").read_bytes())
    content[-100] ^= 1
    (directory / "model.safetensors").write_bytes(bytes(content))


def _cast(directory: Path) -> None:
    tensors = load_file(directory / "model.safetensors")
    save_file({name: value.double() for name, value in tensors.items()}, directory / "model.safetensors")
    _seal(directory)


def _drop_a_tensor(directory: Path) -> None:
    tensors = load_file(directory / "model.safetensors")
    tensors.pop(next(iter(tensors)))
    save_file(tensors, directory / "model.safetensors")
    _seal(directory)


DAMAGES = [
    ("no directory", shutil.rmtree, "no bundle in"),
    ("no checksums", lambda d: (d / "checksums.json").unlink(), "expected a directory with checksums.json"),
    *[
        (f"no {name}", lambda d, name=name: (d / name).unlink(), f"incomplete: {name} is missing in the directory")
        for name in (*bundle.PARTS, "sampler.float32.onnx")
    ],
    ("checksums that are no JSON", _write("checksums.json", b"{", seal=False), "is no JSON"),
    ("checksums that are a list", _write("checksums.json", b"[]", seal=False), "expected file names and their SHA-256"),
    (
        "checksums of other folders",
        _edit("checksums.json", lambda v: v.update({"../x": "0"}), seal=False),
        "lists ['../x']",
    ),
    (
        "a part without checksum",
        _edit("checksums.json", lambda v: v.pop("contract.json"), seal=False),
        "contract.json is missing in checksums.json",
    ),
    ("a bit of the weights", _flip_one_bit, "model.safetensors is damaged or was changed: expected SHA-256"),
    ("half the weights", _truncate("model.safetensors", seal=False), "model.safetensors is damaged or was changed"),
    (
        "half the weights, sealed",
        _truncate("model.safetensors", seal=True),
        "missing or damaged: ",
    ),
    ("half the graph", _truncate("sampler.float32.onnx", seal=False), "sampler.float32.onnx is damaged or was changed"),
    ("half the graph, sealed", _truncate("sampler.float32.onnx", seal=True), "onnxruntime cannot run"),
    ("an empty config", _write("config.json", b""), "config.json is no JSON"),
    ("a config in another encoding", _write("config.json", b"\xff\xfe{\x00"), "config.json is no JSON"),
    ("a config that is a list", _write("config.json", b"[]"), "expected a JSON object, found list"),
    ("an edited config", _edit("config.json", lambda v: v.update(nfe=8), seal=False), "config.json is damaged or was"),
    (
        "an unknown key",
        _policy(horizn=16),
        "unknown key 'policy.horizn': did you mean 'horizon'?",
    ),
    ("an unknown key of the chain", _chain(gamas=[0.1]), "gamas"),
    ("a missing key", _edit("config.json", lambda v: v.pop("policy")), "'policy' is missing"),
    ("an unknown format", _edit("config.json", lambda v: v.update(format="lfm-bundle/9")), "'format': Input should be"),
    ("an unknown dtype", _edit("config.json", lambda v: v.update(dtype="int4")), "'dtype': Input should be 'float32'"),
    ("another dtype", _edit("config.json", lambda v: v.update(dtype="bfloat16")), "where config.json says bfloat16"),
    ("double weights", _cast, "holds ['torch.float64'] where config.json says float16"),
    ("a tensor too few", _drop_a_tensor, "do not fit its config.json"),
    (
        "more blocks",
        _chain(gammas=[0.1, 0.1]),
        "do not fit its config.json",
    ),
    (
        "a bad schedule",
        _chain(gammas=[-1.0]),
        "'policy.chain.gammas.0': Input should be greater than 0",
    ),
    (
        "a network that is code",
        _edit(
            "config.json",
            lambda v: v["policy"]["chain"].update(network={"_target_": "subprocess.Popen", "args": ["true"]}),
        ),
        "code from outside this package",
    ),
    (
        "more actions than the chunk has",
        _policy(action_steps=16),
        "do not fit a chunk",
    ),
    (
        "no steps",
        _policy(action_steps=0),
        "'policy.action_steps': Input should be greater",
    ),
    ("another horizon", _policy(horizon=32), "its graph maps"),
    ("another action", _edit("contract.json", lambda v: v.update(action_dim=9)), "need action_dim 10, found 9"),
    ("an unknown contract key", _edit("contract.json", lambda v: v.update(kp=1)), "unknown key 'kp'"),
    (
        "quaternions that are not there",
        _policy(quaternions=[17]),
        "no policy that can be built: quaternions take four columns each of the 19",
    ),
    ("a shorter contract", _edit("contract.json", lambda v: v["observations"].pop()), "normaliser has width 19"),
    (
        "a contract of another robot",
        _edit("contract.json", lambda v: v.update(robots=["Sawyer"])),
        "robots: bundle",
    ),
    (
        "a shorter normaliser",
        _edit("normalizer.json", lambda v: v["action"]["scale"].pop()),
        "9 scales and 10 offsets",
    ),
    (
        "a scale of zero",
        _edit("normalizer.json", lambda v: v["action"]["scale"].__setitem__(0, 0.0)),
        "scales must be finite and not 0",
    ),
    ("no normaliser of actions", _edit("normalizer.json", lambda v: v.pop("action")), "'action' is missing"),
    (
        "a header longer than the file",
        _write("model.safetensors", struct.pack("<Q", 2**60) + b"{}"),
        "missing or damaged: ",
    ),
]


def _run_both_ways(directory: Path) -> None:
    LFMPolicy.of_bundle(bundle.read(directory, expected=TASKS["lift"].contract))
    OnnxPolicy(directory, expected=TASKS["lift"].contract)


@pytest.mark.parametrize(("damage", "message"), [row[1:] for row in DAMAGES], ids=[row[0] for row in DAMAGES])
def test_every_damage_is_one_clear_error(copy: Path, damage: Callable[[Path], object], message: str) -> None:
    """The form that the damage concerns, torch or onnxruntime, refuses it."""
    damage(copy)
    with pytest.raises(LFMError) as caught:
        _run_both_ways(copy)
    assert isinstance(caught.value, CheckpointError | ContractError)
    assert message in str(caught.value)
    assert "\n  File" not in str(caught.value)


def test_a_graph_of_other_weights_is_refused(copy: Path) -> None:
    """They lie where the graph looks for them, and the checksums are right."""
    made = policy()
    with torch.no_grad():
        made.chain.blocks[0].out[1].bias += 1
    export(made, copy.with_name("other"), dtype="float16", graphs=[])
    shutil.copy(copy.with_name("other") / "model.safetensors", copy)
    _seal(copy)
    with pytest.raises(CheckpointError, match="its graph was made for other weights"):
        OnnxPolicy(copy)


def test_a_bundle_for_another_task_is_refused(exported: Path) -> None:
    with pytest.raises(ContractError, match=r"the contracts of bundle .* and the robot differ"):
        bundle.read(exported, expected=TASKS["can"].contract)


@pytest.mark.parametrize("precision", ["int8", "float64", "../sampler.float32"])
def test_a_graph_that_is_not_there_is_named(exported: Path, precision: str) -> None:
    with pytest.raises(CheckpointError, match=r"holds no sampler.*found \['float32'\]"):
        OnnxPolicy(exported, precision)


def test_a_bundle_without_graphs_says_how_to_get_one(tmp_path: Path) -> None:
    export(policy(), tmp_path / "lift", graphs=[])
    with pytest.raises(CheckpointError, match="holds no graph for onnxruntime: export it"):
        OnnxPolicy(tmp_path / "lift")
