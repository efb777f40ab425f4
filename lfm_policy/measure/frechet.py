"""Fréchet distances between sets of pictures: FID where Inception's weights are given, else on a classifier of our own.

The features decide what such a number means: one on other features than Inception's is no FID and is never called so.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from rich.console import Console
from rich.progress import track
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from lfm_policy.data.images import Images
from lfm_policy.errors import ConfigError
from lfm_policy.files import atomic_directory, read_json

Features = Callable[[UInt8[Tensor, "b c h w"]], Float[Tensor, "b f"]]


@dataclass(frozen=True)
class Moments:
    """Mean (F,) and covariance (F, F) of features, double precision."""

    mean: Tensor
    covariance: Tensor


def moments(features: Features, pictures: UInt8[Tensor, "n c h w"], batch: int = 250) -> Moments:
    """Return the moments of the features of all pictures."""
    shown = track(pictures.split(batch), "features", transient=True, disable=not Console().is_terminal)
    values = torch.cat([features(part).double().cpu() for part in shown])
    return Moments(values.mean(dim=0), torch.cov(values.T))


def frechet_distance(a: Moments, b: Moments) -> float:
    """Return |μ_a - μ_b|² + tr(C_a + C_b - 2 (C_a C_b)^{1/2}), as in FID (Heusel et al. 2017)."""
    values, vectors = torch.linalg.eigh(a.covariance)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    mixed = torch.linalg.eigvalsh(root @ b.covariance @ root).clamp(min=0).sqrt().sum()
    spread = a.covariance.trace() + b.covariance.trace() - 2 * mixed
    return ((a.mean - b.mean).square().sum() + spread).item()


class Classifier(nn.Module):
    """A small convolutional network; its features are the 128 averages before the last layer.

    Args:
        channels: of the pictures.
        classes: to tell apart.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs, stride in ((channels, 32, 1), (32, 64, 2), (64, 128, 2), (128, 128, 2)):
            layers += [nn.Conv2d(inputs, outputs, 3, stride, 1), nn.GroupNorm(8, outputs), nn.SiLU()]
        self.layers = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(128, classes)

    def forward(self, pictures: UInt8[Tensor, "b c h w"]) -> Float[Tensor, "b classes"]:
        return self.head(self.layers(pictures.float() / 127.5 - 1))

    @torch.no_grad()
    def features(self, pictures: UInt8[Tensor, "b c h w"]) -> Float[Tensor, "b 128"]:
        """Return what Fréchet distances are measured on."""
        return self.layers(pictures.to(self.head.weight.device).float() / 127.5 - 1)


@dataclass(frozen=True)
class TrainedClassifier:
    """A classifier, and the share of held-out pictures that it tells."""

    network: Classifier
    accuracy: float


def classifier_for(images: Images, folder: Path, steps: int, device: torch.device) -> TrainedClassifier:
    """Return the classifier in `folder`; trained there once, so that all runs on the same pictures share it.

    Pictures without labels are turned by quarters, and the turn is what it learns to tell (Gidaris et al. 2018).
    """
    classes = 4 if images.train_labels is None else int(images.train_labels.max()) + 1
    network = Classifier(images.train.shape[1], classes)
    if not (folder / "classifier.json").exists():
        trained = _train(images, classes, steps, device)
        with atomic_directory(folder) as temporary:
            save_file(trained.network.state_dict(), temporary / "classifier.safetensors")
            (temporary / "classifier.json").write_text(
                json.dumps({"accuracy": trained.accuracy, "steps": steps}) + "\n"
            )
    network.load_state_dict(load_file(folder / "classifier.safetensors"))
    return TrainedClassifier(network.to(device).eval(), read_json(folder / "classifier.json")["accuracy"])


def inception(weights: Path, device: torch.device) -> Features:
    """Return the features of FID, 2048 per picture: torch-fidelity's port of the original network.

    Args:
        weights: its file of weights, pt_inception-2015-12-05-6726825d.pth.
        device: where to compute.

    Raises:
        ConfigError: torch-fidelity is not installed, or there is no such file.
    """
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ModuleNotFoundError as error:
        raise ConfigError("FID needs torch-fidelity, which is not installed: pip install torch-fidelity") from error
    if not weights.exists():
        raise ConfigError(f"FID needs Inception's weights, and there is no {weights}; data.inception=null goes without")
    extractor = FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=str(weights))
    extractor = extractor.to(device).eval()

    @torch.no_grad()
    def features(pictures: Tensor) -> Tensor:
        return extractor(pictures.to(device))[0]

    return features


def _train(images: Images, classes: int, steps: int, device: torch.device, batch: int = 128) -> TrainedClassifier:
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Classifier(images.train.shape[1], classes).to(device)
    optimiser = torch.optim.AdamW(network.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda k: 0.5 * (1 + math.cos(math.pi * k / steps)))
    for _ in track(range(steps), "classifier", transient=True, disable=not Console().is_terminal):
        index = torch.randint(len(images.train), (batch,), generator=generator)
        pictures, labels = _labelled(images.train[index], images.train_labels, index, generator)
        if torch.rand((), generator=generator) < 0.5:
            pictures = pictures.flip(-1)
        loss = functional.cross_entropy(network(pictures.to(device)), labels.to(device))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return TrainedClassifier(network, _accuracy(network.eval(), images, generator, device))


@torch.no_grad()
def _accuracy(network: Classifier, images: Images, generator: torch.Generator, device: torch.device) -> float:
    right = 0
    for index in torch.arange(len(images.test)).split(250):
        pictures, labels = _labelled(images.test[index], images.test_labels, index, generator)
        right += int((network(pictures.to(device)).argmax(1).cpu() == labels).sum())
    return right / len(images.test)


def _labelled(
    pictures: Tensor, labels: Tensor | None, index: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    if labels is not None:
        return pictures, labels[index]
    turns = torch.randint(4, (len(pictures),), generator=generator)
    turned = [torch.rot90(picture, int(turn), (1, 2)) for picture, turn in zip(pictures, turns, strict=True)]
    return torch.stack(turned), turns
