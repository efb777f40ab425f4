"""The settings of a Local Flow Matching policy in LeRobot; each is also an argument, `--policy.horizon=16`."""

from dataclasses import dataclass, field
from typing import Any

from lerobot.configs import NormalizationMode, PreTrainedConfig
from lerobot.optim import AdamWConfig
from lerobot.optim.schedulers import CosineAnnealingWithWarmupSchedulerConfig
from lerobot.policies.rtc.configuration_rtc import RTCConfig

from lfm_policy.data.lerobot.names import camera_name
from lfm_policy.models.lerobot import TYPE, Description
from lfm_policy.training.settings import OptimiserSettings

DEFAULTS = OptimiserSettings()


def _network() -> dict[str, Any]:
    return {"_target_": "lfm_policy.networks.ConditionalUnet1d", "dims": [128, 256, 512], "time_dim": 128}


def _encoder() -> dict[str, Any]:
    return {"_target_": "lfm_policy.networks.vision.ResNet18", "features": 64, "keypoints": 32}


def _whole(given: dict[str, Any], default: dict[str, Any]) -> dict[str, Any]:
    """Return the default with the values that are given, unless they are those of another class."""
    return given if "_target_" in given else default | given


@PreTrainedConfig.register_subclass(TYPE)
@dataclass
class LFMConfig(PreTrainedConfig):
    """A chain of blocks over action chunks, trained without simulation.

    LeRobot's normalisation is left out (IDENTITY): the model holds its own, fitted to the data set's statistics, so
    that its file is a whole policy.

    Args:
        n_obs_steps: To, observations that a chunk is conditioned on; of pictures, the newest.
        horizon: T, actions in a chunk, from the oldest observation on; divisible by 2^(levels of the UNet - 1).
        n_action_steps: Ta, actions executed of a chunk.
        gammas: OU steps of all blocks but the last; [] is one flow, without blocks.
        interpolant: "linear" or "trigonometric".
        solver_method: "euler", "midpoint", "heun", "rk4" or "dopri5".
        solver_steps: in each block; [5,1]: five in the block next to the data, one in all others.
        solver_tolerance: of dopri5.
        network: arguments of one block's UNet, such as {dims: [64, 128]}; or `_target_` and arguments of another
            network of lfm_policy's.
        share: one network for all blocks.
        precondition: networks give velocities up to the factors of `FlowChain.preconditioning`.
        initial_diffusion: OU time for which data are diffused first; only of policies that come from lfm_policy.
        anchored: chunks count from where the robot is; only of policies that come from lfm_policy.
        quaternions: first columns of observed quaternions; only of policies that come from lfm_policy.
        temperature: standard deviation of the noise that chunks are made from.
        vision: arguments of the ResNet-18 that encodes a camera's pictures, trained with the chain; or `_target_` and
            arguments of another encoder.
        crop: height and width of the middle part of a picture that is seen; all of it when None.
        contract: what observations and actions mean; filled in from the data set.
        ema_power: how fast the moving average of the weights slows down; it is what acts.
        ema_max_decay: its largest decay.
        rtc_config: LeRobot's settings of real-time chunking, where lerobot-rollout asks for it.
    """

    n_obs_steps: int = 2
    horizon: int = 16
    n_action_steps: int = 8
    gammas: tuple[float, ...] = (0.15, 0.1875, 0.234375)
    interpolant: str = "linear"
    solver_method: str = "euler"
    solver_steps: int | tuple[int, ...] = 5
    solver_tolerance: float = 1e-5
    network: dict[str, Any] = field(default_factory=_network)
    share: bool = False
    precondition: bool = True
    initial_diffusion: float = 0.0
    anchored: bool = False
    quaternions: tuple[int, ...] = ()
    temperature: float = 1.0
    vision: dict[str, Any] | None = field(default_factory=_encoder)
    crop: int | None = None
    contract: dict[str, Any] | None = None
    ema_power: float = DEFAULTS.ema_power
    ema_max_decay: float = DEFAULTS.ema_max_decay
    optimizer_lr: float = DEFAULTS.learning_rate
    optimizer_betas: tuple[float, float] = DEFAULTS.betas
    optimizer_eps: float = DEFAULTS.eps
    optimizer_weight_decay: float = DEFAULTS.weight_decay
    optimizer_grad_clip_norm: float = 10.0
    scheduler_warmup_steps: int = DEFAULTS.warmup_steps
    rtc_config: RTCConfig | None = None
    normalization_mapping: dict[str, NormalizationMode] = field(
        default_factory=lambda: dict.fromkeys(("STATE", "ENV", "VISUAL", "ACTION"), NormalizationMode.IDENTITY)
    )

    def __post_init__(self) -> None:
        """See `PreTrainedConfig`; raises ValueError where horizons, blocks or networks are out of bounds."""
        super().__post_init__()
        self.network = _whole(self.network, _network())
        self.vision = None if self.vision is None else _whole(self.vision, _encoder())
        if set(self.normalization_mapping.values()) - {NormalizationMode.IDENTITY}:
            raise ValueError(
                "an lfm policy normalises by itself: expected normalization_mapping IDENTITY for every feature, found "
                f"{self.normalization_mapping}; leave it out"
            )
        _ = self.description.spec

    @property
    def description(self) -> Description:
        """The policy as lfm_policy describes it."""
        return Description.model_validate({name: getattr(self, name) for name in Description.model_fields})

    @property
    def drop_n_last_frames(self) -> int:
        """Frames at an episode's end at which no window begins that has fewer than Ta actions."""
        return max(0, self.horizon - self.n_action_steps - self.n_obs_steps + 1)

    @property
    def observation_delta_indices(self) -> list[int]:
        """Frames of the observations of a window, from its newest on."""
        return list(range(1 - self.n_obs_steps, 1))

    @property
    def action_delta_indices(self) -> list[int]:
        """Frames of its actions."""
        return list(range(1 - self.n_obs_steps, 1 - self.n_obs_steps + self.horizon))

    @property
    def reward_delta_indices(self) -> None:
        """None: rewards are not looked at."""
        return None

    def get_optimizer_preset(self) -> AdamWConfig:
        """Return AdamW with the settings above."""
        return AdamWConfig(
            lr=self.optimizer_lr,
            betas=self.optimizer_betas,
            eps=self.optimizer_eps,
            weight_decay=self.optimizer_weight_decay,
            grad_clip_norm=self.optimizer_grad_clip_norm,
        )

    def get_scheduler_preset(self) -> CosineAnnealingWithWarmupSchedulerConfig:
        """Return a warm-up and half a cosine down to 0."""
        return CosineAnnealingWithWarmupSchedulerConfig(num_warmup_steps=self.scheduler_warmup_steps)

    def validate_features(self) -> None:
        """Raise ValueError where observations or actions are not what a policy can be conditioned on."""
        vectors = [key for key in self.input_features or {} if key not in self.image_features]
        if self.action_feature is None or not vectors:
            raise ValueError(
                "an lfm policy needs an action and a vector that is observed, found input_features "
                f"{sorted(self.input_features or {})} and output_features {sorted(self.output_features or {})}"
            )
        shapes = {feature.shape for feature in self.image_features.values()}
        names = {camera_name(key) for key in self.image_features}
        if len(shapes) > 1 or len(names) < len(self.image_features):
            raise ValueError(
                f"an lfm policy needs pictures of one size and different names, found {self.image_features}: leave "
                "cameras out of input_features, or record them alike"
            )
