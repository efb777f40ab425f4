"""Graphs compute what torch computes, for every task's shapes; torch.export's program does too."""

import io
import pickle
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lfm_policy.bundles import graph
from lfm_policy.bundles.export import TOLERANCE, export
from lfm_policy.bundles.onnx_policy import OnnxPolicy
from lfm_policy.bundles.open import open_torch
from lfm_policy.bundles.program import example, program
from lfm_policy.bundles.translate import Translated
from lfm_policy.chunks.horizon import RecedingHorizon
from lfm_policy.errors import ConfigError, ContractError
from lfm_policy.flow import Solver
from lfm_policy.models import bundle
from lfm_policy.networks.shared import Indexed
from tests.bundles.policies import NETWORK, policy

SMALL = {**NETWORK, "dims": [16]}
CASES = [
    ("lift", 4, Solver(), NETWORK),
    ("can", 4, Solver(), SMALL),
    ("square", 4, Solver(), SMALL),
    ("transport", 2, Solver(), SMALL),
    ("tool_hang", 4, Solver(), SMALL),
    ("lift", 2, Solver(), NETWORK),  # students
    ("lift", 1, Solver(), NETWORK),
    ("lift", 2, Solver("euler", 3), NETWORK),
    ("lift", 2, Solver("midpoint", 2), NETWORK),
    ("lift", 1, Solver("heun", 2), NETWORK),
    ("lift", 1, Solver("rk4", 1), NETWORK),
]


@pytest.fixture(scope="module", autouse=True)
def _translate_once() -> Iterator[None]:
    """A network of the same description and shapes is translated once in all these tests: it takes seconds."""
    known: dict[tuple, Translated] = {}
    translate = graph.velocity

    def cached(network: nn.Module, name: str, x: Tensor, cond: Tensor) -> Translated:
        if isinstance(network, Indexed):
            return translate(network, name, x, cond)
        key = (repr(network), x.shape[1:], cond.shape[1:])
        if key not in known:
            known[key] = translate(network, "Translated", x, cond)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graph, "velocity", cached)
        yield


PICKLES = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundles") / "lift"
    export(policy(), out, samples=2)
    return out


@pytest.mark.parametrize(("task", "blocks", "solver", "network"), CASES)
def test_the_graph_is_the_sampler(tmp_path: Path, task: str, blocks: int, solver: Solver, network: dict) -> None:
    made = policy(task, blocks, solver, network)
    exported = export(made, tmp_path / task, samples=16)
    translated = OnnxPolicy(tmp_path / task)
    histories, noise = (value.numpy() for value in example(made, batch=7))
    ours, theirs = made.predict(histories, noise), translated.predict(histories, noise)
    assert ours.nfe == theirs.nfe
    assert np.abs(ours.actions - theirs.actions).max() <= TOLERANCE  # real units
    assert exported.parity["float32"] <= TOLERANCE  # normalised units
    assert np.abs(ours.actions).max() > 0.1


def test_the_graph_anchors_chunks_at_both_hands_and_knows_the_temperature(tmp_path: Path) -> None:
    made = policy("transport", 2, anchored=True)
    made.set_temperature(0.25)
    export(made, tmp_path / "transport", samples=4)
    histories, noise = (value.numpy() for value in example(made, batch=3))
    expected = made.predict(histories, noise).actions
    assert "| noise | standard normal at temperature 0.25 |" in (tmp_path / "transport" / bundle.CARD).read_text()
    assert np.abs(expected - OnnxPolicy(tmp_path / "transport").predict(histories, noise).actions).max() <= TOLERANCE
    np.testing.assert_array_equal(expected, open_torch(tmp_path / "transport").predict(histories, noise).actions)


def test_the_graph_writes_quaternions_as_rotation_rows(tmp_path: Path) -> None:
    made = policy("lift", 2, quaternions=(3, 13))
    export(made, tmp_path / "lift", samples=4)
    histories, noise = (value.numpy() for value in example(made, batch=3))
    expected = made.predict(histories, noise).actions
    assert np.abs(expected - OnnxPolicy(tmp_path / "lift").predict(histories, noise).actions).max() <= TOLERANCE
    histories[:, :, 13:17] *= -1  # the same rotation
    assert np.abs(expected - OnnxPolicy(tmp_path / "lift").predict(histories, noise).actions).max() <= TOLERANCE


@pytest.mark.parametrize("solver", [Solver("euler", (3, 1)), Solver("rk4", 1)])
def test_the_graph_preconditions(tmp_path: Path, solver: Solver) -> None:
    made = policy("lift", 2, solver, precondition=True)
    plain = policy("lift", 2, solver)
    export(made, tmp_path / "lift", samples=4)
    histories, noise = (value.numpy() for value in example(made, batch=3))
    expected = made.predict(histories, noise).actions
    assert np.abs(expected - OnnxPolicy(tmp_path / "lift").predict(histories, noise).actions).max() <= TOLERANCE
    assert np.abs(expected - plain.predict(histories, noise).actions).max() > 100 * TOLERANCE


def test_a_chain_of_many_evaluations_loads_at_once(tmp_path: Path) -> None:
    """Steps are a loop: 5 of them make a graph as large as 2, which onnxruntime reads in less than 2 s."""
    sizes = []
    for steps in (2, 5):
        out = tmp_path / str(steps)
        export(policy(blocks=4, solver=Solver("euler", steps)), out, samples=1)
        sizes.append((out / "sampler.float32.onnx").stat().st_size)
    assert sizes[1] - sizes[0] < 1000
    started = time.process_time()
    assert OnnxPolicy(tmp_path / "5").bundle.config.nfe == 20
    assert time.process_time() - started < 2


def test_a_batch_is_its_rows(exported: Path) -> None:
    translated = OnnxPolicy(exported)
    histories, noise = (value.numpy() for value in example(policy(), batch=5))
    rows = [translated.predict(histories[n : n + 1], noise[n : n + 1]).actions[0] for n in range(5)]
    np.testing.assert_allclose(translated.predict(histories, noise).actions, rows, atol=1e-5)


def test_an_episode_of_a_seed_has_the_same_noise_in_every_form(exported: Path) -> None:
    """So that evaluations of checkpoint, bundle and graph can be compared seed by seed."""
    forms = (policy(), open_torch(exported), OnnxPolicy(exported))
    observations = np.random.default_rng(0).standard_normal((12, 19)).astype(np.float32)
    actions = []
    for form in forms:
        horizon = RecedingHorizon(form, seed=100000)
        actions.append([horizon.act(observation) for observation in observations])
    np.testing.assert_array_equal(actions[0], actions[1])
    np.testing.assert_allclose(actions[0], actions[2], atol=TOLERANCE)


@pytest.mark.filterwarnings("ignore:No complete tensor found in the group")  # weights that lie transposed in memory
def test_torch_exports_program_is_the_sampler_and_survives_a_round_trip() -> None:
    """In memory: a .pt2 file would hold a pickle of the example inputs."""
    made = policy(blocks=1, network=SMALL)
    exported, inputs = program(made), example(made, batch=3)
    expected = torch.from_numpy(made.predict(*(value.numpy() for value in inputs)).actions)
    torch.testing.assert_close(exported.module()(*inputs), expected, atol=1e-5, rtol=1e-5)
    exported.example_inputs = None
    archive = io.BytesIO()
    torch.export.save(exported, archive)
    with zipfile.ZipFile(archive) as files:
        assert not any(files.read(name).startswith(PICKLES) for name in files.namelist())
    archive.seek(0)
    torch.testing.assert_close(torch.export.load(archive).module()(*inputs), expected, atol=1e-5, rtol=1e-5)


def test_an_adaptive_solver_is_no_graph(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="dopri5 chooses its steps while it runs"):
        export(policy(solver=Solver("dopri5")), tmp_path / "lift")
    assert not (tmp_path / "lift").exists()


@pytest.mark.parametrize("shapes", [((1, 2, 18), (1, 16, 10)), ((2, 19), (16, 10)), ((1, 2, 19), (2, 16, 10))])
def test_arrays_of_another_shape_are_refused(exported: Path, shapes: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(ContractError, match="expected histories"):
        OnnxPolicy(exported).predict(*(np.zeros(shape, np.float32) for shape in shapes))


RUN_WITHOUT_TORCH = """
import sys
ABSENT = {"torch", "torchdiffeq", "hydra", "zarr", "h5py", "jaxtyping", "safetensors", "onnx"}
class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ABSENT:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, NotInstalled())
import numpy as np
from lfm_policy.bundles.onnx_policy import OnnxPolicy
from lfm_policy.bundles.open import open_torch
from lfm_policy.actions.poses import decode_absolute, matrix_to_rotvec
from lfm_policy.chunks.horizon import RecedingHorizon
import lfm_policy.protocols, lfm_policy.contract
horizon = RecedingHorizon(OnnxPolicy(sys.argv[1]), seed=3)
action = horizon.act(np.ones(19, np.float32))
position, matrix, gripper = decode_absolute(action)
assert matrix_to_rotvec(matrix).shape == (3,)
print(" ".join(map(repr, action.tolist())))
"""


def test_a_robot_needs_neither_torch_nor_what_trains(exported: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", RUN_WITHOUT_TORCH, str(exported)], check=False, capture_output=True, text=True
    )
    assert (result.returncode, result.stderr) == (0, "")
    action = [float(value) for value in result.stdout.split()]
    expected = RecedingHorizon(policy(), seed=3).act(np.ones(19, np.float32))
    np.testing.assert_allclose(action, expected, atol=TOLERANCE)


@pytest.mark.slow
def test_a_network_that_all_blocks_share_is_exported_with_each_blocks_code(tmp_path: Path) -> None:
    made = policy(share=True, network=SMALL)
    assert export(made, tmp_path / "lift", samples=4).parity["float32"] <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize(("objective", "steps"), [("regression", 1), ("mip", 2), ("shortcut", 4)])
def test_a_baseline_of_few_steps_is_exported_and_answers_alike(objective: str, steps: int, tmp_path: Path) -> None:
    made = policy(blocks=1, network=SMALL, objective=objective, solver=Solver(steps=steps))
    report = export(made, tmp_path / "lift", samples=4)
    assert report.parity["float32"] <= TOLERANCE
    assert OnnxPolicy(tmp_path / "lift").bundle.config.nfe == steps


def test_a_graph_goes_to_another_process_as_what_it_was_made_from(exported: Path) -> None:
    here = OnnxPolicy(exported)
    there = pickle.loads(pickle.dumps(here))
    generator = np.random.default_rng(0)
    history = generator.standard_normal((1, here.observation_steps, here.contract.observation_dim), np.float32)
    noise = generator.standard_normal((1, *here.noise_shape), np.float32)
    np.testing.assert_array_equal(there.predict(history, noise).actions, here.predict(history, noise).actions)
    assert here.portable
    assert (there.precision, there.digest()) == (here.precision, here.digest())
