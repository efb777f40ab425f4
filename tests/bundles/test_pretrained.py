"""The bundles that come with the repository: whole, small, and made for today's environments."""

import importlib.util
from functools import partial

import numpy as np
import pytest

from lfm_policy.bundles.onnx_policy import OnnxPolicy
from lfm_policy.bundles.open import open_torch
from lfm_policy.models import bundle

NAMES = sorted(path.parent.name for path in bundle.PRETRAINED.glob(f"*/{bundle.CHECKSUMS}"))
QUICK = ("lift", "can")
"""Those whose episodes take seconds."""
MEGABYTE = 10**6


def test_there_are_some_and_they_are_small() -> None:
    sizes = {name: sum(f.stat().st_size for f in (bundle.PRETRAINED / name).iterdir()) for name in NAMES}
    assert "lift" in sizes
    assert max(sizes.values()) <= 5 * MEGABYTE
    assert sum(sizes.values()) <= 25 * MEGABYTE


@pytest.mark.parametrize("name", NAMES)
def test_each_plans_and_both_runtimes_agree(name: str) -> None:
    graph, torch_policy = OnnxPolicy(name), open_torch(name)
    generator = np.random.default_rng(0)
    history = (1, graph.observation_steps, graph.contract.observation_dim)
    histories = generator.standard_normal(history).astype(np.float32)
    noise = generator.standard_normal((1, *graph.noise_shape)).astype(np.float32)
    found, expected = graph.predict(histories, noise), torch_policy.predict(histories, noise)
    assert (found.nfe, expected.nfe) == (1, 1)
    np.testing.assert_allclose(found.actions, expected.actions, atol=1e-4)


@pytest.mark.sim
@pytest.mark.skipif(importlib.util.find_spec("robosuite") is None, reason="robosuite is not installed")
@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name not in QUICK)) for name in NAMES])
def test_each_fits_todays_environment_and_succeeds(name: str) -> None:
    import lfm_envs
    from lfm_policy.rollout.runner import Runner, RunnerOptions

    policy = OnnxPolicy(name)
    results = Runner(policy, partial(lfm_envs.make, f"robosuite/{name}"), RunnerOptions(workers=1)).run(range(4))
    assert sum(result.success for result in results) >= 3
