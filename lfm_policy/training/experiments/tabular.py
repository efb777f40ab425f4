"""What a tabular run trains: a flow model on a prepared table, reported by its validation and test likelihood."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lfm_policy.data.tables import Table, as_published, load_table
from lfm_policy.files import sha256
from lfm_policy.flow import Hutchinson
from lfm_policy.models.density import FlowModel
from lfm_policy.training.experiments.data_settings import TabularData
from lfm_policy.training.experiments.experiment import Experiment
from lfm_policy.training.experiments.settings import TrainSettings
from lfm_policy.training.experiments.vectors import batched_log_prob, vector_experiment

SUBSET_SEED = 10**9
"""Seed that chooses the points that are measured: the same for every run on a table."""


def tabular_experiment(settings: TrainSettings, data: TabularData, device: torch.device) -> Experiment[FlowModel]:
    """Build a model with fresh weights, and the training points of a table.

    Raises:
        DataError: there is no such file, or it does not hold the table.
    """
    table = load_table(data.table, data.path, data.noise_seed)
    source = {"sha256": sha256(data.path)}
    report = partial(tabular_report, data=data, table=table, source=source)
    return vector_experiment(settings, torch.from_numpy(table.train), data.normalizer, report, source, device)


def tabular_report(model: FlowModel, data: TabularData, table: Table, source: Mapping[str, Any]) -> Mapping[str, Any]:
    """Report negative log-likelihood of validation and test points in the table's units [nats], and evaluations."""
    estimator = None if data.probes is None else Hutchinson(data.probes, seed=SUBSET_SEED)
    valid = batched_log_prob(model, _some(table.valid, data.valid), estimator)
    test = batched_log_prob(model, _some(table.test, data.test), estimator)
    noise = torch.randn(1000, model.spec.dim, generator=torch.Generator().manual_seed(SUBSET_SEED))
    return {
        "nll": test.nll,
        "nll_standard_error": test.standard_error,
        "valid_nll": valid.nll,
        "valid_nll_standard_error": valid.standard_error,
        "test_points": len(test.log_prob),
        "valid_points": len(valid.log_prob),
        "divergence": "exact" if estimator is None else f"Hutchinson, {estimator.probes} probes",
        "as_published": as_published(data.table, table),
        "source": dict(source),
        "initial_diffusion": model.spec.chain.initial_diffusion,
        "nfe_likelihood": test.nfe,
        "nfe_sample": model.sample(noise.to(model.device)).nfe,
    }


def _some(points: np.ndarray, count: int | None) -> Tensor:
    """Take at most `count` of the points, the same ones at every call."""
    order = np.random.default_rng(SUBSET_SEED).permutation(len(points))
    return torch.from_numpy(points if count is None else points[order[:count]])
