"""From the kind of the data to the experiment that trains on them."""

from typing import Any

import torch

from lfm_policy.training.experiments.data_settings import DensityData, ImageData, TabularData, WindowData
from lfm_policy.training.experiments.density import density_experiment
from lfm_policy.training.experiments.experiment import Experiment
from lfm_policy.training.experiments.images import image_experiment
from lfm_policy.training.experiments.robot import robot_experiment
from lfm_policy.training.experiments.settings import TrainSettings
from lfm_policy.training.experiments.tabular import tabular_experiment


def new_experiment(settings: TrainSettings, device: torch.device) -> Experiment[Any]:
    """Build the objects in which the runs differ, from the kind of their data."""
    match settings.data:
        case WindowData() as data:
            return robot_experiment(settings, data, device)
        case DensityData() as data:
            return density_experiment(settings, data, device)
        case TabularData() as data:
            return tabular_experiment(settings, data, device)
        case ImageData() as data:
            return image_experiment(settings, data, device)
