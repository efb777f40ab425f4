"""What an image run trains: a flow model on pictures, reported by Fréchet distances."""

import hashlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from lfm_policy.data.images import ImagePool, Images, as_pictures, load_images, pixel_normalizer
from lfm_policy.flow import Solver
from lfm_policy.measure.frechet import Features, classifier_for, frechet_distance, inception, moments
from lfm_policy.models.density import FlowModel
from lfm_policy.training.experiments.data_settings import ImageData
from lfm_policy.training.experiments.experiment import Experiment, shrinkage, shrunk, with_diffusion
from lfm_policy.training.experiments.settings import TrainSettings
from lfm_policy.training.experiments.vectors import loader, new_model

NOISE_SEED = 10**9
"""Seed of the noise of the pictures that are measured: the same for every run."""


def image_experiment(settings: TrainSettings, data: ImageData, device: torch.device) -> Experiment[FlowModel]:
    """Build a model with fresh weights, and the training pictures, held as bytes on the run's device.

    Raises:
        DataError: there are no such pictures.
    """
    images = load_images(data.path, data.side)
    dim, time = images.train[0].numel(), settings.flow.initial_diffusion
    model = new_model(settings, dim, shrunk(pixel_normalizer(dim).scaled(1 / data.deviation), time)).to(device)
    pictures = ImagePool(images.train.to(device), data.flips, shrinkage(time) / data.deviation)
    pool = with_diffusion(pictures, time, settings.seed)
    report = partial(image_report, data=data, images=images)
    return Experiment(model, pool, loader(device), report, {"sha256": digest_of(images)})


def digest_of(images: Images) -> str:
    """Hash of the training pictures."""
    return hashlib.sha256(images.train.numpy().tobytes()).hexdigest()


def image_report(model: FlowModel, data: ImageData, images: Images) -> Mapping[str, Any]:
    """Report Fréchet distances of generated to training pictures, beside that of the test pictures; evaluations too."""
    noise = torch.randn(data.generated, model.spec.dim, generator=torch.Generator().manual_seed(NOISE_SEED))
    pictures, nfe = generated(model, noise, images.train.shape[1:])
    folder = Path(data.classifiers) / f"{digest_of(images)[:16]}_{data.classifier_steps}"
    classifier = classifier_for(images, folder, data.classifier_steps, model.device)
    found: dict[str, Any] = {"generated": data.generated, "nfe_sample": nfe, "classifier_accuracy": classifier.accuracy}
    found |= _distances("classifier_frechet", classifier.network.features, pictures, images)
    if data.inception is not None:
        found |= _distances("fid", inception(Path(data.inception), model.device), pictures, images)
    return found


def generated(
    model: FlowModel, noise: Tensor, shape: torch.Size, solver: Solver | None = None, batch: int = 100
) -> tuple[Tensor, int]:
    """Make pictures (n, *shape), uint8 on the CPU, from noise (n, dim); also return the evaluations that each took."""
    shown = track(noise.split(batch), "samples", transient=True, disable=not Console().is_terminal)
    drawn = [model.sample(part.to(model.device), solver) for part in shown]
    return as_pictures(torch.cat([part.x.cpu() for part in drawn]), shape), drawn[0].nfe


def _distances(name: str, features: Features, pictures: Tensor, images: Images) -> dict[str, float]:
    real = moments(features, images.train)
    return {
        name: frechet_distance(moments(features, pictures), real),
        f"{name}_of_test": frechet_distance(moments(features, images.test), real),
    }
