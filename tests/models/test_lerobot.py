"""Policies in LeRobot's folders: what config.json says, whose weights are taken, and what is no policy."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lfm_policy.bundles.open import open_policy, open_torch
from lfm_policy.errors import CheckpointError, ContractError
from lfm_policy.flow import Solver
from lfm_policy.models.lerobot import AVERAGE, MODEL, Description
from lfm_policy.models.policy import LFMPolicy
from lfm_policy.models.spec import ChainSpec, PolicySpec
from tests.bundles.policies import NETWORK, policy


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """As lerobot-train leaves it: weights twice as large as their average."""
    made = policy(precondition=True)
    average = made.state_dict()
    raw = {name: 2 * value if "chain" in name else value for name, value in average.items()}
    named = {f"{MODEL}{name}": value for name, value in raw.items()}
    named |= {f"{AVERAGE}{name}": value for name, value in average.items()}
    save_file({name: value.contiguous().clone() for name, value in named.items()}, tmp_path / "model.safetensors")
    said = Description.of(made.spec, made.contract).model_dump(mode="json")
    (tmp_path / "config.json").write_text(json.dumps(said | {"device": "cuda", "use_amp": False}))
    return tmp_path


def test_a_description_holds_all_of_a_specification() -> None:
    chain = ChainSpec(
        gammas=(0.3, 0.4),
        interpolant="trigonometric",
        solver=Solver("dopri5", tolerance=1e-3),
        network=NETWORK,
        share=True,
    )
    spec = PolicySpec(chain=chain, horizon=8, action_steps=4, anchored=True, quaternions=(3,), temperature=0.5, crop=20)
    assert Description.of(spec, policy().contract).spec == spec
    baseline = PolicySpec(chain=ChainSpec(gammas=(), network=NETWORK, objective="ddim"))
    with pytest.raises(ContractError, match="a ddim baseline is no flow"):
        Description.of(baseline, policy().contract)


def test_the_average_acts_and_the_weights_as_trained_can_be_asked_for(folder: Path) -> None:
    assert isinstance(open_policy(folder), LFMPolicy)
    made = policy(precondition=True)
    assert open_torch(folder).digest() == made.digest()
    raw = open_torch(folder, weights="raw").chain.state_dict()
    assert all(torch.equal(raw[name], 2 * value) for name, value in made.chain.state_dict().items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"contract": None}, "has no contract: expected a policy that was trained"),
        ({"horizon": 4}, "describes no policy that can be read"),
        ({"network": NETWORK | {"dims": [16, 16]}}, r"do not fit its config\.json"),
        ({"network": {"_target_": "torch.nn.Linear"}}, "code from outside this package"),
    ],
)
def test_what_is_no_policy_says_why(folder: Path, change: dict, message: str) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(Exception, match=message) as refusal:
        open_torch(folder)
    assert refusal.type.__name__ in (CheckpointError.__name__, "ConfigError")
