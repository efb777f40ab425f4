"""To the hub and back: what is pushed opens as it did here, the card tells what was measured, refusals are clear."""

import json
from pathlib import Path
from typing import Any

import pytest

from lfm_policy.bundles.open import open_policy
from lfm_policy.bundles.push import Package, package, push
from lfm_policy.errors import CheckpointError, ConfigError, HubError
from lfm_policy.models.bundle import PRETRAINED
from tests.bundles.policies import policy
from tests.hub import elsewhere, hub, online

ELSEWHERE = """
import sys
from lfm_policy.bundles.open import open_policy
from lfm_cli.push import Settings, main
main(Settings(policy=sys.argv[1], repo=sys.argv[2]))
print(open_policy(sys.argv[2]).digest())
"""


LIFT = PRETRAINED / "lift"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run, with a checkpoint."""
    policy(blocks=1).save_pretrained(tmp_path / "run" / "checkpoint")
    return tmp_path / "run"


def summary(digest: str, **run: Any) -> dict[str, Any]:
    """An evaluation's, as far as a card tells of it."""
    found = {"success": 0.98, "episodes": 100, "interval": [0.93, 0.994], "mean_steps": 37.25, "nfe": 4.0}
    where = {"environment": "robosuite/lift", "seed": 100000, "checkpoint": digest, "solver": "euler", "steps": 1}
    return found | {"ms_per_chunk": 2.5, "run": where | run}


def test_what_is_pushed_opens_from_the_hub_and_a_card_tells_of_it(run: Path, tmp_path: Path) -> None:
    digest = open_policy(run).digest()
    (run / "summary.json").write_text(json.dumps(summary(digest)))
    there = tmp_path / "hub"
    there.mkdir()
    with hub(there, "user/lift") as address:
        done = elsewhere("-c", ELSEWHERE, str(run), "user/lift", **online(address, tmp_path / "cache"))
    assert done.stdout.splitlines()[-1:] == [digest], done.stderr
    assert "the card tells of 0.980 over 100 episodes" in done.stdout
    assert {"config.json", "contract.json", "model.safetensors", "checksums.json", "README.md"} == {
        file.name for file in there.iterdir()
    }
    card = (there / "README.md").read_text()
    assert card.startswith("---\n")
    for told in ("[0.930, 0.994]", "pipeline_tag: robotics", "value: 0.98", 'open_policy("user/lift")', "episodes=100"):
        assert told in card


def test_refusals_of_the_hub_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    parcel = Package({"config.json": b"{}"}, None)
    with hub(tmp_path, "user/lift") as address:
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setenv("HF_TOKEN", "hf_wrong")
        with pytest.raises(HubError, match=r"\(401\): log in with hf auth login, or set HF_TOKEN"):
            push(parcel, "user/lift")
    with pytest.raises(HubError, match="cannot be reached"):
        push(parcel, "user/lift")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="HF_HUB_OFFLINE is set"):
        push(parcel, "user/lift")
    with pytest.raises(ConfigError, match="expected USER/NAME"):
        push(parcel, "lift")


def test_a_bundle_goes_with_its_graph_and_its_own_card(tmp_path: Path) -> None:
    parcel = package(LIFT, "user/lift")
    assert {"sampler.float32.onnx", "normalizer.json", "checksums.json", "README.md"} < set(parcel.files)
    card = parcel.files["README.md"]
    assert isinstance(card, bytes)
    assert '`open_policy("user/lift")`' in card.decode()
    assert (LIFT / "README.md").read_text() in card.decode()
    graph = open_policy(LIFT, runtime="onnx").digest()  # pyright: ignore[reportAttributeAccessIssue]
    results = tmp_path / "measured.json"
    results.write_text(json.dumps(summary(graph, runtime="onnx") | {"success": 0.97}))
    told = package(LIFT, "user/lift", results).files["README.md"]
    assert isinstance(told, bytes)
    assert "0.970 over 100 episodes" in told.decode()
    assert 'open_policy("user/lift", runtime="onnx")' in told.decode()


def test_results_of_another_policy_are_refused(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text(json.dumps(summary("0" * 16)))
    with pytest.raises(ConfigError, match="are of the policy 0000000000000000, expected one of"):
        package(LIFT, "user/lift", tmp_path)
    assert package(LIFT, "user/lift", beside=(tmp_path,)).results is None
    (tmp_path / "summary.json").write_text(json.dumps({"valid_loss": 1.0}))
    with pytest.raises(ConfigError, match=r"expected the summary\.json of an evaluation"):
        package(LIFT, "user/lift", tmp_path)


def test_what_is_damaged_stays_here(run: Path) -> None:
    weights = run / "checkpoint" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\x00\x00\x80\x7f")
    with pytest.raises(CheckpointError, match="is damaged or was changed"):
        package(run, "user/lift")
