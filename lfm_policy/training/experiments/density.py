"""What a density run trains: a flow model on samples of a density whose entropy is known."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch

from lfm_policy.data.densities import ANALYTIC, Density, MaskDensity
from lfm_policy.files import sha256
from lfm_policy.models.density import FlowModel
from lfm_policy.training.experiments.data_settings import DensityData
from lfm_policy.training.experiments.experiment import Experiment
from lfm_policy.training.experiments.settings import TrainSettings
from lfm_policy.training.experiments.vectors import batched_log_prob, vector_experiment

TEST_SEED, VALID_SEED = 10**9, 10**9 + 1
"""Seeds of the test and the validation points: the same for every run on a density."""


def density_experiment(settings: TrainSettings, data: DensityData, device: torch.device) -> Experiment[FlowModel]:
    """Build a model with fresh weights, and `data.samples` points drawn from the density with the run's seed.

    Raises:
        DataError: there is no such image.
    """
    density = load_density(data)
    points = density.sample(data.samples, torch.Generator().manual_seed(settings.seed))
    report = partial(density_report, data=data, density=density)
    source = {"sha256": sha256(data.mask)} if data.mask else {}
    return vector_experiment(settings, points, data.normalizer, report, source, device)


def load_density(data: DensityData) -> Density:
    """Return the density that the settings name."""
    if data.density == "mask":
        assert data.mask is not None
        return MaskDensity.from_image(data.mask)
    return ANALYTIC[data.density]


def density_report(model: FlowModel, data: DensityData, density: Density) -> Mapping[str, Any]:
    """Report the negative log-likelihood of fresh test points [nats] beside its floor, and the evaluations."""
    valid, points = (
        density.sample(count, torch.Generator().manual_seed(seed))
        for count, seed in ((data.valid, VALID_SEED), (data.test, TEST_SEED))
    )
    found = batched_log_prob(model, points)
    drawn = model.sample(torch.randn(1000, 2, generator=torch.Generator().manual_seed(TEST_SEED)).to(model.device))
    return {
        "data": data.model_dump(mode="json"),
        "nll": found.nll,
        "nll_standard_error": found.standard_error,
        "valid_nll": batched_log_prob(model, valid).nll,
        "floor": density.entropy(),
        "initial_diffusion": model.spec.chain.initial_diffusion,
        "nfe_likelihood": found.nfe,
        "nfe_sample": drawn.nfe,
    }
