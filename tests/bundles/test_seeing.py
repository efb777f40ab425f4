"""Bundles of policies with cameras: encoders inside the one graph, bytes in, actions out."""

import numpy as np
import pytest
import torch

from lfm_policy.bundles.export import export
from lfm_policy.bundles.onnx_policy import FRAMES, OnnxPolicy
from lfm_policy.bundles.program import Sampler, example, program
from lfm_policy.errors import ContractError
from lfm_policy.models.policy import LFMPolicy
from tests.models.test_sight import frames, policy


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    made = policy()
    made.sight.fit_scale(frames(20))
    return made, export(made, tmp_path_factory.mktemp("bundle") / "seeing", samples=8)


def test_the_graph_sees_what_torch_sees(exported):
    made, result = exported
    assert result.parity["float32"] < 1e-4
    graph = OnnxPolicy(result.bundle.directory)
    (seen,) = [value for value in graph._session.get_inputs() if value.name == FRAMES]
    assert (seen.type, list(seen.shape)[1:]) == ("tensor(uint8)", [1, 32, 32, 3])
    inputs = [rows.numpy() for rows in example(made, batch=5)]
    ours, theirs = made.predict(*inputs), graph.predict(*inputs)
    np.testing.assert_allclose(theirs.actions, ours.actions, atol=1e-4)
    assert not np.allclose(graph.predict(*inputs[:2], 255 - inputs[2]).actions, theirs.actions, atol=1e-3)
    loaded = LFMPolicy.from_pretrained(result.bundle.directory)
    np.testing.assert_array_equal(loaded.predict(*inputs).actions, ours.actions)


def test_pictures_of_another_form_are_refused(exported):
    graph = OnnxPolicy(exported[1].bundle.directory)
    histories, noise, seen = (rows.numpy() for rows in example(exported[0]))
    for bad, found in ((None, "none"), (seen[:, :, :8], r"uint8 \(2, 1, 8, 32, 3\)"), (seen / 255, "float64")):
        with pytest.raises(ContractError, match=f"expected pictures uint8 .*found {found}"):
            graph.predict(histories, noise, bad)


def test_the_exported_program_takes_pictures(exported):
    made, inputs = exported[0], example(exported[0], batch=3)
    with torch.no_grad():
        torch.testing.assert_close(program(made).module()(*inputs), Sampler(made)(*inputs))
