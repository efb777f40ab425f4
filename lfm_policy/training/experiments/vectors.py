"""What all runs without conditions train: a flow model on vectors."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Float
from rich.console import Console
from rich.progress import track
from torch import Tensor

from lfm_policy.data.normalizers.affine import AffineNormalizer
from lfm_policy.data.normalizers.radial import RadialNormalizer
from lfm_policy.data.normalizers.whitening import WhiteningNormalizer
from lfm_policy.flow import Hutchinson, TensorPool
from lfm_policy.flow.likelihood import Likelihood
from lfm_policy.models.density import NORMALIZERS, FlowModel
from lfm_policy.models.spec import FlowSpec, NormalizerKind
from lfm_policy.training.experiments.experiment import Experiment, shrunk, with_diffusion
from lfm_policy.training.experiments.settings import TrainSettings

Normalizer = Literal["identity", "standard", "whiten", "radial"]
Report = Callable[[FlowModel], Mapping[str, Any]]


def vector_experiment(
    settings: TrainSettings,
    points: Float[Tensor, "n d"],
    normalizer: Normalizer,
    report: Report,
    source: Mapping[str, Any],
    device: torch.device,
) -> Experiment[FlowModel]:
    """Build a model with fresh weights, and `points` normalised and diffused as the settings want them."""
    time = settings.flow.initial_diffusion
    model = new_model(settings, points.shape[1], shrunk(_fitted(normalizer, points), time)).to(device)
    pool = TensorPool(model.normalizer.normalize(points.to(device)))
    return Experiment(model, with_diffusion(pool, time, settings.seed), loader(device), report, source)


def new_model(settings: TrainSettings, dim: int, normalizer: AffineNormalizer) -> FlowModel:
    """Build a flow model with fresh weights, decided by the run's seed."""
    torch.manual_seed(settings.seed)
    kind: NormalizerKind = next(kind for kind, of in NORMALIZERS.items() if type(normalizer) is of)
    spec = FlowSpec(dim=dim, chain=settings.chain, normalizer=kind)
    model = FlowModel(spec)
    model.normalizer = normalizer
    return model


def loader(device: torch.device) -> Callable[..., FlowModel]:
    """Return what reads the trained model back."""
    return partial(FlowModel.from_pretrained, device=device, trust_code=True)


def batched_log_prob(
    model: FlowModel, x: Float[Tensor, "n d"], estimator: Hutchinson | None = None, batch: int = 4096
) -> Likelihood:
    """Do `FlowModel.log_prob` in parts that fit into memory; on the CPU, with the mean NFE, rounded."""
    parts, hidden = x.split(batch), not Console().is_terminal
    shown = track(parts, "likelihood", transient=True, disable=hidden)
    found = [model.log_prob(part.to(model.device), estimator=estimator) for part in shown]
    log_prob = torch.cat([part.log_prob.cpu() for part in found])
    return Likelihood(log_prob, None, round(sum(part.nfe for part in found) / len(found)))


def _fitted(kind: Normalizer, points: Tensor) -> AffineNormalizer:
    match kind:
        case "identity":
            return AffineNormalizer.identity(points.shape[1])
        case "standard":
            return AffineNormalizer.standard(points)
        case "whiten":
            return WhiteningNormalizer.fit(points)
        case "radial":
            return RadialNormalizer.fit(points)
