"""Specifications: every format that there has been is read as today's, and digests of old models stay."""

from pathlib import Path

import numpy as np
import pytest
import torch

from lfm_policy.bundles.open import open_model, open_torch
from lfm_policy.flow import Solver
from lfm_policy.models import bundle
from lfm_policy.models.density import FlowModel
from lfm_policy.models.policy import LFMPolicy
from lfm_policy.models.spec import ChainSpec, PolicySpec

OLD = Path(__file__).parent / "first_format"
"""Written by the version before the formats changed; the numbers below are its own."""


def test_a_policy_of_the_first_format_is_what_it_was(tmp_path: Path) -> None:
    policy = open_torch(OLD / "policy")
    assert policy.digest() == "9d700ab2c515e848"
    ones = np.ones((1, 2, 19), np.float32), np.ones((1, 8, 10), np.float32)
    assert policy.predict(*ones).actions.sum() == pytest.approx(69.37853, abs=1e-3)
    assert (policy.spec.anchored, policy.spec.quaternions, policy.spec.temperature) == (True, (3, 13), 0.5)
    assert policy.spec.chain.solver == policy.chain.solver == Solver("heun", 2)
    policy.save_pretrained(tmp_path / "policy")
    again = LFMPolicy.from_pretrained(tmp_path / "policy")
    assert (again.spec, again.digest(), again.spec.format) == (policy.spec, policy.digest(), "lfm-policy/2")


def test_a_density_of_the_first_format_is_what_it_was() -> None:
    model = open_model(OLD / "density")
    assert isinstance(model, FlowModel)
    assert model.digest() == "a133d819d5d7582d"
    torch.testing.assert_close(model.sample(torch.ones(1, 2)).x, torch.tensor([[5.2765, 2.7677]]), atol=1e-3, rtol=0)


@pytest.mark.parametrize(("name", "digest"), [("lift", "d15269c0e2a5c0e3"), ("can", "f7ea3f3686250644")])
def test_bundles_of_the_first_format_are_what_they_were(name: str, digest: str) -> None:
    read = bundle.read(name)
    assert '"lfm-bundle/1"' in (read.directory / "config.json").read_text()
    assert read.config.policy.anchored
    assert open_torch(name).digest() == LFMPolicy.from_pretrained(name).digest() == digest


def test_a_slip_in_a_chain_is_named() -> None:
    """Of a typed record, where a free mapping would be silent."""
    with pytest.raises(ValueError, match=r"chain\.anchord"):
        PolicySpec.model_validate({"chain": {"gammas": [], "network": {"_target_": "a.B"}, "anchord": True}})


def test_a_chain_has_as_many_blocks_as_its_networks() -> None:
    network = {"_target_": "lfm_policy.networks.VelocityMlp", "width": 4, "layers": 1}
    spec = ChainSpec(gammas=(0.1, 0.2), network=network)
    chain = spec.build(spec.networks(trust_code=False, dim=2))
    assert len(chain.blocks) == spec.blocks == chain.schedule.blocks == 3
