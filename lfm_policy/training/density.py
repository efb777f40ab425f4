"""What a density run trains: a flow model on samples of a density whose entropy is known."""

import hashlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from lfm_policy.data.densities import ANALYTIC, Density, MaskDensity
from lfm_policy.data.normalize import AffineNormalizer
from lfm_policy.flow import TensorPool
from lfm_policy.flow.likelihood import Likelihood
from lfm_policy.model import FlowModel, FlowSpec
from lfm_policy.training.experiment import Experiment, shrunk, with_diffusion
from lfm_policy.training.settings import DensityData, TrainSettings

TEST_SEED, VALID_SEED = 10**9, 10**9 + 1
"""Of the test and the validation points: the same for every run on a density."""


def density_experiment(settings: TrainSettings, data: DensityData, device: torch.device) -> Experiment[FlowModel]:
    """A model with fresh weights, and `data.samples` points drawn from the density with the run's seed.

    Raises:
        DataError: there is no such image.
    """
    torch.manual_seed(settings.seed)
    density = load_density(data)
    flow = settings.flow
    points = density.sample(data.samples, torch.Generator().manual_seed(settings.seed))
    spec = FlowSpec(
        dim=2,
        gammas=flow.schedule().gammas,
        interpolant=flow.interpolant,
        solver=flow.solver,
        network=settings.block_network,
        share=flow.share,
        initial_diffusion=flow.initial_diffusion,
    )
    model = FlowModel(spec)
    standard = data.normalizer == "standard"
    normalizer = AffineNormalizer.standard(points) if standard else AffineNormalizer.identity(2)
    model.normalizer = shrunk(normalizer, flow.initial_diffusion)
    model = model.to(device)
    pool = with_diffusion(
        TensorPool(model.normalizer.normalize(points.to(device))), flow.initial_diffusion, settings.seed
    )
    load = partial(FlowModel.from_pretrained, device=device, trust_code=True)
    source = {"sha256": hashlib.sha256(Path(data.mask).read_bytes()).hexdigest()} if data.mask else {}
    return Experiment(model, pool, load, partial(density_report, data=data, density=density), source)


def load_density(data: DensityData) -> Density:
    """The density that the settings name."""
    return ANALYTIC[data.density] if data.mask is None else MaskDensity.from_image(data.mask)


def density_report(model: FlowModel, data: DensityData, density: Density) -> Mapping[str, Any]:
    """Negative log-likelihood of fresh test points [nats] beside its floor, and the network evaluations."""
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
        "initial_diffusion": model.spec.initial_diffusion,
        "nfe_likelihood": found.nfe,
        "nfe_sample": drawn.nfe,
    }


def batched_log_prob(model: FlowModel, x: Tensor, batch: int = 4096) -> Likelihood:
    """`FlowModel.log_prob` in parts that fit into memory; on the CPU, with the mean NFE, rounded."""
    parts, hidden = x.split(batch), not Console().is_terminal
    shown = track(parts, "likelihood", transient=True, disable=hidden)
    found = [model.log_prob(part.to(model.device)) for part in shown]
    log_prob = torch.cat([part.log_prob.cpu() for part in found])
    return Likelihood(log_prob, None, round(sum(part.nfe for part in found) / len(found)))
