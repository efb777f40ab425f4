"""One door: whatever names a policy, and whoever computes, the chunks are the same; what cannot be opened says why."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from lfm_envs.tasks import TASKS
from lfm_policy.bundles.export import export
from lfm_policy.bundles.onnx_policy import OnnxPolicy
from lfm_policy.bundles.open import dress, form_of, open_model, open_policy, open_torch
from lfm_policy.choices import Sampling, SolverChange
from lfm_policy.errors import CheckpointError, ConfigError, ContractError
from lfm_policy.flow import Solver
from lfm_policy.models import bundle
from lfm_policy.models.density import FlowModel
from lfm_policy.models.policy import LFMPolicy
from lfm_policy.models.spec import ChainSpec, FlowSpec
from lfm_policy.protocols import ChunkPolicy
from lfm_policy.server.client import PolicyClient
from tests.bundles.policies import policy
from tests.hub import COMMIT, elsewhere, hub, online
from tests.server.served import served


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run, its checkpoint, a bundle with a graph, one without, and a density."""
    root = tmp_path_factory.mktemp("open")
    made = policy(blocks=1)
    made.save_pretrained(root / "run" / "checkpoint")
    export(made, root / "graph", samples=1)
    export(made, root / "weights", graphs=(), samples=1)
    network = {"_target_": "lfm_policy.networks.VelocityMlp", "width": 8, "layers": 2}
    FlowModel(FlowSpec(dim=2, chain=ChainSpec(gammas=(), network=network))).save_pretrained(root / "density")
    names = {name: root / name for name in ("run", "graph", "weights", "density")}
    return names | {"checkpoint": root / "run" / "checkpoint"}


def chunks(of: ChunkPolicy) -> np.ndarray:
    generator = np.random.default_rng(0)
    histories = generator.standard_normal((3, 2, of.contract.observation_dim)).astype(np.float32)
    return of.predict(histories, generator.standard_normal((3, *of.noise_shape)).astype(np.float32)).actions


@pytest.mark.parametrize("name", ["run", "checkpoint", "graph", "weights"])
def test_every_folder_holds_the_policy(places: dict[str, Path], name: str) -> None:
    opened = open_policy(str(places[name]), expected=TASKS["lift"].contract)
    assert isinstance(opened, LFMPolicy)
    np.testing.assert_array_equal(chunks(opened), chunks(policy(blocks=1)))


@pytest.mark.parametrize(("name", "kind"), [("graph", OnnxPolicy), ("weights", LFMPolicy), ("run", LFMPolicy)])
def test_auto_takes_the_graph_where_there_is_one(places: dict[str, Path], name: str, kind: type) -> None:
    opened = open_policy(places[name], runtime="auto")
    assert isinstance(opened, kind)
    np.testing.assert_allclose(chunks(opened), chunks(policy(blocks=1)), atol=1e-4)
    assert isinstance(
        open_policy(places[name], runtime="auto", sampling=Sampling(solver=SolverChange(steps=2))), LFMPolicy
    )


def test_installed_students_have_a_name() -> None:
    graph, opened = open_policy("lift", runtime="onnx"), open_policy("lift")
    np.testing.assert_allclose(chunks(graph), chunks(opened), atol=1e-4)
    assert form_of(graph) == {"checkpoint": graph.digest(), "runtime": "onnx", "precision": "float32"}
    assert form_of(opened)["solver"] == "euler"


@pytest.mark.parametrize("name", ["run", "graph"])
def test_products_in_bfloat16_are_of_torch_and_another_form(places: dict[str, Path], name: str) -> None:
    plain, opened = open_policy(places[name]), open_policy(places[name], runtime="auto", precision="bfloat16")
    assert isinstance(opened, LFMPolicy)
    difference = np.abs(chunks(opened) - chunks(plain))
    assert 0 < difference.max() < 0.05
    assert form_of(opened)["precision"] == "bfloat16"
    with pytest.raises(ConfigError, match="a graph computes in float32"):
        open_policy(places["graph"], runtime="onnx", precision="bfloat16")


def test_a_folder_comes_before_an_installed_student_of_its_name(
    places: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "can").symlink_to(places["run"])
    assert form_of(open_policy("can")) == form_of(open_policy(places["run"]))
    assert form_of(LFMPolicy.from_pretrained("can")) == form_of(open_policy(places["run"]))


OPENED = """
import sys
import numpy as np
import lfm_policy.rollout.report
from lfm_policy.bundles.open import open_torch

policy = open_torch("lift")
history = np.zeros((1, policy.observation_steps, policy.contract.observation_dim), np.float32)
policy.predict(history, np.zeros((1, *policy.noise_shape), np.float32))
slow = {"torch._dynamo", "torch._inductor", "sympy", "scipy.stats"} & set(sys.modules)
assert not slow, slow
"""


def test_opening_a_policy_imports_neither_torchs_compiler_nor_what_takes_as_long() -> None:
    subprocess.run([sys.executable, "-c", OPENED], check=True, timeout=120)


def test_an_address_is_a_client_of_the_server_there(places: dict[str, Path]) -> None:
    made = policy(blocks=1)
    with served(made) as server:
        address = f"ws://127.0.0.1:{server.port}"
        with open_policy(address, expected=made.contract) as remote:
            assert isinstance(remote, PolicyClient)
            np.testing.assert_array_equal(chunks(remote), chunks(made))
            assert form_of(remote)["runtime"] == "server"
        with pytest.raises(ConfigError, match=r"a server's sampler is fixed.*temperature=0\.5"):
            open_policy(address, sampling=Sampling(temperature=0.5))


def test_sampling_changes_the_solver_and_the_noise(places: dict[str, Path]) -> None:
    opened = open_torch(places["run"], sampling=Sampling(solver=SolverChange(method="heun", steps=3), temperature=0.5))
    assert (opened.chain.solver, opened.spec.temperature) == (Solver("heun", 3), 0.5)
    opened = open_torch(places["run"], sampling=Sampling(solver=SolverChange(steps=(5,))))
    assert form_of(opened)["steps"] == 5  # what a list of one says
    with pytest.raises(ConfigError, match=r"a graph's sampler is fixed: export again with solver.steps=2"):
        open_policy(places["graph"], runtime="onnx", sampling=Sampling(solver=SolverChange(steps=2)))


def test_a_bundle_is_read_once(places: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[str] = []
    sha256 = bundle.sha256
    monkeypatch.setattr(bundle, "sha256", lambda path: hashed.append(path.name) or sha256(path))
    for runtime in ("torch", "onnx", "auto"):
        hashed.clear()
        open_policy(places["graph"], runtime=runtime)
        assert len(hashed) == len({*bundle.PARTS, "sampler.float32.onnx"})


def test_densities_are_models_and_no_policies(places: dict[str, Path]) -> None:
    assert isinstance(open_model(places["density"]), FlowModel)
    with pytest.raises(CheckpointError, match="holds a density, expected a policy"):
        open_policy(places["density"])
    with pytest.raises(CheckpointError, match="temperature is for policies"):
        open_model(places["density"], sampling=Sampling(temperature=0.5))


@pytest.mark.parametrize(
    ("source", "options", "error", "message"),
    [
        ("nowhere", {}, CheckpointError, "there is no policy 'nowhere': .* an installed one .*lift"),
        ("RUN/../litf", {}, CheckpointError, "there is no policy"),
        ("density/..", {}, CheckpointError, "no checkpoint in"),
        ("run", {"device": "gpu"}, ConfigError, "device=gpu: torch cannot compute there on this machine; use device="),
        ("run", {"device": "meta"}, ConfigError, "device=meta: torch cannot compute there"),
        ("run", {"expected": TASKS["can"].contract}, ContractError, "and the robot differ"),
        ("graph", {"expected": TASKS["can"].contract}, ContractError, "and the robot differ"),
        ("graph", {"weights": "raw"}, ConfigError, "holds one set of weights"),
        ("weights", {"runtime": "onnx"}, CheckpointError, "holds no graph for onnxruntime: export it"),
        ("run", {"runtime": "onnx"}, CheckpointError, "no bundle in"),
    ],
)
def test_what_cannot_be_opened_says_why(
    places: dict[str, Path], source: str, options: dict, error: type[Exception], message: str
) -> None:
    known = places.get(source) or (places["density"] / ".." if source == "density/.." else source)
    with pytest.raises(error, match=message):
        open_policy(known, **options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
@pytest.mark.parametrize("device", ["cuda", "cuda:1", "mps"])
def test_devices_that_are_not_there_have_one_message(places: dict[str, Path], device: str) -> None:
    for load in (open_policy, LFMPolicy.from_pretrained):
        with pytest.raises(ConfigError, match=f"device={device}: torch cannot compute there on this machine"):
            load(places["checkpoint"], device=device)


def test_only_torch_looks_inside(places: dict[str, Path]) -> None:
    for seam, best_of in (("warm", 1), ("switch", 4)):
        with pytest.raises(ConfigError, match="use runtime=torch"):
            dress(open_policy(places["graph"], runtime="onnx"), seam, None, best_of)
    with pytest.raises(ConfigError, match="seam=warm"):
        dress(open_policy(places["run"]), "warm", None, 4)


def test_code_from_outside_runs_where_it_is_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network of the user's own opens through every door with trust_code, and through none without."""
    (tmp_path / "strange_network.py").write_text(
        "from lfm_policy.networks import ConditionalUnet1d\n\n\nclass Net(ConditionalUnet1d):\n    pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    network = {"_target_": "strange_network.Net", "dims": [8, 16], "time_dim": 8}
    made = policy(blocks=1, network=network)
    made.save_pretrained(tmp_path / "checkpoint")
    export(made, tmp_path / "bundle", graphs=(), samples=1)
    for name in ("checkpoint", "bundle"):
        with pytest.raises((CheckpointError, ConfigError), match="say trust_code=true"):
            open_policy(tmp_path / name)
        np.testing.assert_array_equal(chunks(open_policy(tmp_path / name, trust_code=True)), chunks(made))


# The hub: its cache on disk, and a stand-in of it.

OPEN = "import sys; from lfm_policy.bundles.open import open_policy; print(open_policy(sys.argv[1]).digest())"


def test_a_repository_in_the_hubs_cache_needs_no_network(places: dict[str, Path], tmp_path: Path) -> None:
    stored = tmp_path / "models--user--policy"
    (stored / "refs").mkdir(parents=True)
    (stored / "refs" / "main").write_text(COMMIT)
    shutil.copytree(places["graph"], stored / "snapshots" / COMMIT)
    offline = {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path)}
    found = elsewhere("-c", OPEN, "user/policy", **offline)
    assert found.stdout.strip() == open_torch(places["graph"]).digest(), found.stderr
    lost = elsewhere("-c", OPEN, "user/other", **offline)
    assert "its cache holds no user/other" in lost.stderr


def test_a_revision_of_a_repository(places: dict[str, Path], tmp_path: Path) -> None:
    stored, tagged = tmp_path / "models--user--policy", "f" * 40
    (stored / "refs").mkdir(parents=True)
    for name, commit, place in (("main", COMMIT, "graph"), ("v1", tagged, "run")):
        (stored / "refs" / name).write_text(commit)
        shutil.copytree(places[place], stored / "snapshots" / commit)
    code = (
        "from lfm_policy import LFMPolicy\n"
        "for revision in (None, 'v1'): print(LFMPolicy.from_pretrained('user/policy', revision=revision).digest())"
    )
    found = elsewhere("-c", code, HF_HUB_OFFLINE="1", HF_HUB_CACHE=str(tmp_path))
    assert found.stdout.split() == [open_torch(places[place]).digest() for place in ("graph", "run")], found.stderr
    for source in (places["run"], "user/policy@v2"):
        with pytest.raises(CheckpointError, match=r"revision=v1 goes with USER/REPOSITORY"):
            LFMPolicy.from_pretrained(source, revision="v1")


def test_a_repository_is_fetched_from_the_hub(places: dict[str, Path], tmp_path: Path) -> None:
    with hub(places["weights"], "user/policy") as address:
        found = elsewhere("-c", OPEN, "user/policy", **online(address, tmp_path))
        assert found.stdout.strip() == open_torch(places["weights"]).digest(), found.stderr
        again = elsewhere("-c", OPEN, "user/policy", HF_HUB_OFFLINE="1", HF_HUB_CACHE=str(tmp_path))
        assert again.stdout == found.stdout
        lost = elsewhere("-c", OPEN, "user/other", **online(address, tmp_path))
    assert "the hub says of user/other" in lost.stderr


def test_calls_take_one_thread_and_give_the_others_back(places: dict[str, Path]) -> None:
    inside: list[int] = []
    opened = open_torch(places["run"])
    opened.chain.blocks[0].register_forward_pre_hook(lambda *_: inside.append(torch.get_num_threads()))
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        chunks(opened)
        opened.select_action({"observation.state": np.zeros(opened.contract.observation_dim)})
        assert torch.get_num_threads() == 3
        opened.threads = None
        chunks(opened)
    finally:
        torch.set_num_threads(before)
    assert inside == [1, 1, 3]
