"""What can be served: bundles in onnxruntime or torch, checkpoints; each through a server as by itself."""

from pathlib import Path

import numpy as np
import pytest

from lfm_policy.bundles.export import export
from lfm_policy.bundles.onnx_policy import OnnxPolicy
from lfm_policy.bundles.open import open_policy
from lfm_policy.errors import CheckpointError
from lfm_policy.models.policy import LFMPolicy
from lfm_policy.protocols import ChunkBatch, ChunkPolicy
from lfm_policy.server.client import PolicyClient
from lfm_policy.server.limits import ServerOptions
from lfm_policy.server.served import ServeSettings, load, metadata
from tests.bundles.policies import policy
from tests.server.served import served

BLOCKS = 1


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A checkpoint, a bundle with a graph, and one without."""
    root = tmp_path_factory.mktemp("served")
    made = policy(blocks=BLOCKS)
    made.save_pretrained(root / "run" / "checkpoint")
    export(made, root / "graph", samples=1)
    export(made, root / "weights", graphs=(), samples=1)
    return {name: root / name for name in ("run", "graph", "weights")}


def chunks(of: ChunkPolicy) -> ChunkBatch:
    generator = np.random.default_rng(0)
    histories = generator.standard_normal((3, 2, of.contract.observation_dim)).astype(np.float32)
    return of.predict(histories, generator.standard_normal((3, *of.noise_shape)).astype(np.float32))


@pytest.mark.parametrize(("name", "kind"), [("run", LFMPolicy), ("graph", OnnxPolicy), ("weights", LFMPolicy)])
def test_the_client_gets_what_the_policy_itself_predicts(places: dict[str, Path], name: str, kind: type) -> None:
    made = load(ServeSettings(policy=str(places[name]), contract=places["run"]), open_policy)
    assert isinstance(made.policy, kind)
    assert (made.name, len(made.digest)) == (name, 16)
    expected = chunks(made.policy)
    with served(made.policy) as server, PolicyClient(f"ws://127.0.0.1:{server.port}") as remote:
        found = chunks(remote)
    np.testing.assert_array_equal(found.actions, expected.actions)
    assert found.nfe == expected.nfe == BLOCKS
    np.testing.assert_allclose(expected.actions, chunks(policy(blocks=BLOCKS)).actions, atol=1e-4)


def test_metadata_is_plain_and_complete(places: dict[str, Path]) -> None:
    made = load(ServeSettings(policy=str(places["run"])), open_policy)
    told = metadata(made, ServerOptions(rate_hz=5.0), 2**16)
    assert told["action_horizon"] == 15
    assert told["noise_shape"] == [16, 10]
    assert told["limits"]["rate_hz"] == 5.0
    assert told["limits"]["max_message_bytes"] == 2**16
    assert told["contract"] == made.policy.contract.model_dump(mode="json")


def test_what_is_no_policy_is_refused(places: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no policy 'nowhere'"):
        load(ServeSettings(policy="nowhere"), open_policy)
    with pytest.raises(CheckpointError, match="no checkpoint in"):
        load(ServeSettings(policy=str(tmp_path)), open_policy)
