"""What a robot run trains: a policy and the pool of its windows."""

import os
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from lfm_policy.actions.poses import can_anchor
from lfm_policy.contract import Contract
from lfm_policy.data.windows.disk import StreamedWindows
from lfm_policy.data.windows.frames import frame_bytes, read_frames
from lfm_policy.data.windows.memory import WindowIndex, Windows
from lfm_policy.data.windows.store import Split, Store, open_store
from lfm_policy.errors import CheckpointError, ConfigError
from lfm_policy.files import read_json
from lfm_policy.flow import Pool, Sample
from lfm_policy.models.encoding import Encoding
from lfm_policy.models.policy import LFMPolicy
from lfm_policy.models.pretrained import checkpoint_in, load_weights
from lfm_policy.models.sight import Sight
from lfm_policy.models.spec import PolicySpec
from lfm_policy.training.experiments.data_settings import WindowData
from lfm_policy.training.experiments.experiment import Experiment, evaluation_loss, shrinkage, with_diffusion
from lfm_policy.training.experiments.joint import JointPool
from lfm_policy.training.experiments.settings import TrainSettings
from lfm_policy.training.experiments.vision import begin_encoders, feature_table, learn_to_see

RESIDENT_BYTES = 2 << 30
"""Larger data are read from disk as they are asked for, unless the settings decide."""
CROPS = 4
"""Random parts of each training picture whose features the chain sees, beside its middle."""


@dataclass(frozen=True)
class WindowPool:
    """`flow.Pool` over windows, in memory or on disk: x is the encoded chunk, cond the normalised history."""

    windows: Windows | StreamedWindows
    encoding: Encoding
    """Encodes, on its device."""
    features: Tensor | None = None
    """(1 + crops, rows, F): what the policy sees in the pictures of each row, by their middle and by random parts."""

    def __len__(self) -> int:
        return len(self.windows)

    def take(self, index: Tensor, generator: torch.Generator | None = None) -> Sample:
        """Return the windows at `index` (B,): x (B, T, A), cond (B, C); pictures by a random part with a generator."""
        device = self.encoding.device
        batch = self.windows.gather(index.cpu() if isinstance(self.windows, StreamedWindows) else index)
        features = None if self.features is None else self._seen(self.features, batch.newest.to(device), generator)
        return self.encoding.sample(batch.observation.to(device), batch.action.to(device), features)

    def _seen(self, features: Tensor, rows: Tensor, generator: torch.Generator | None) -> Tensor:
        crops = len(features) - 1
        if generator is None or not crops:
            return features[0, rows]
        part = torch.randint(1, crops + 1, (len(rows),), generator=generator, device=generator.device)
        return features[part.to(rows.device), rows]


def robot_experiment(settings: TrainSettings, data: WindowData, device: torch.device) -> Experiment[LFMPolicy]:
    """Build a policy with fresh weights, on the windows of a prepared data set.

    Raises:
        ConfigError: the data have pictures and nothing says how to see them.
        DataError: the data set is missing or damaged.
        CheckpointError, ContractError: the initial weights are of another network or for other data.
    """
    store = open_store(Path(data.path))
    store = blind(store) if data.blind else store
    if len(store.valid):  # told now, and not when the training is over
        WindowIndex.from_store(store, "valid", data.horizon, data.observation_steps, data.action_steps)
    policy, source = new_policy(settings, data, store).to(device), store.identity
    if settings.initial_weights is not None:
        begin_with(policy, settings.initial_weights)
        source |= {"initial_weights": policy.digest()}
    vision = settings.vision
    joint = vision is not None and vision.joint
    if policy.sight is not None and not joint:
        see(settings, data, store, policy)

    def report(trained: LFMPolicy) -> dict[str, Any]:
        if not len(store.valid):
            return {}
        return {"valid_loss": evaluation_loss(trained.chain, window_pool(data, store, trained, "valid"))}

    load = partial(LFMPolicy.from_pretrained, device=device, trust_code=True)
    if policy.sight is None or not joint:
        return Experiment(policy, window_pool(data, store, policy), load, report, source)
    if vision is not None and vision.weights is not None:
        begin_encoders(policy.sight, Path(vision.weights))
    pool = joint_pool(data, store, policy, policy.sight)
    return Experiment(policy, pool, load, report, source, encoder=pool)


def begin_with(policy: LFMPolicy, checkpoint: Path) -> None:
    """Take averaged weights and normalisers from a trained policy of the same contract and network.

    Raises:
        ConfigError: the policy sees; encoders are taken with vision.trained.
        CheckpointError: there is no such checkpoint, or its network is another.
        ContractError: it means other actions or observations.
    """
    if policy.sight is not None:
        raise ConfigError("initial_weights is for policies without pictures: take encoders with vision.trained=RUN")
    folder, where = checkpoint_in(checkpoint), f"initial_weights={checkpoint}"
    try:
        contract = Contract.model_validate(read_json(folder / "contract.json"))
        load_weights(policy, folder, "ema")
    except (ValidationError, ValueError, OSError, CheckpointError) as error:
        raise CheckpointError(f"{where} cannot begin this training, whose network must be the same: {error}") from None
    contract.require_match(policy.contract, where, "the data")


def blind(store: Store) -> Store:
    """Return the same data without their pictures."""
    return replace(store, contract=Contract.model_validate(dict(store.contract) | {"cameras": ()}), frames=None)


def as_seen_by(policy: LFMPolicy, store: Store) -> Store:
    """Return the data as a policy sees them: without their pictures, if it is the blind twin of one that sees."""
    return store if policy.contract.cameras else blind(store)


def see(settings: TrainSettings, data: WindowData, store: Store, policy: LFMPolicy) -> None:
    """Train the policy's encoders and freeze them; what the chain is does not matter for it.

    Raises:
        ConfigError: several processes would do it at once.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(
            "encoders are trained by one process: do that first, then give vision.trained=RUN to torchrun"
        )
    frames = read_frames(store, "train", resident(data, store))
    cut = (data.horizon, data.observation_steps, data.action_steps)
    windows = Windows.from_store(store, "train", *cut, frames=frames)
    said = settings.fingerprint()
    decides = {key: said[key] for key in ("seed", "data", "vision")} | {"source": store.identity}
    learn_to_see(settings, policy, windows, decides)


def new_policy(settings: TrainSettings, data: WindowData, store: Store) -> LFMPolicy:
    """Build a policy with fresh weights for the data in `store`, its normalisers fitted on the training split."""
    torch.manual_seed(settings.seed)
    if store.contract.cameras and settings.vision is None:
        raise ConfigError(
            f"{store.path} has pictures of {[camera.name for camera in store.contract.cameras]}: choose an experiment "
            "that says how to see them, experiment=robot_image/…, or data.blind=true"
        )
    vision = settings.vision if store.contract.cameras else None
    cut: dict[str, Any] = {
        "horizon": data.horizon,
        "observation_steps": data.observation_steps,
        "action_steps": data.action_steps,
    }
    encoding = Encoding.fit(
        store,
        **cut,
        anchored=anchored(data, store),
        rotation_rows=data.rotation_rows,
        observation_normalizer=data.observation_normalizer,
        shrink=shrinkage(settings.flow.initial_diffusion),
    )
    spec = PolicySpec(
        **cut,
        chain=settings.chain,
        anchored=encoding.anchored,
        quaternions=encoding.quaternions,
        vision=vision and vision.encoder,
        crop=vision and vision.crop,
    )
    return LFMPolicy(spec, encoding)


def anchored(data: WindowData, store: Store) -> bool:
    """Say whether chunks count from where the robot is: as the settings say, or wherever the contract lets them."""
    return can_anchor(store.contract) if data.anchored == "auto" else data.anchored


def window_pool(data: WindowData, store: Store, policy: LFMPolicy, split: Split = "train") -> Pool:
    """Return the windows of one split, normalised and diffused as `policy` wants them, on its device."""
    cut = (split, data.horizon, data.observation_steps, data.action_steps)
    diffusion = policy.spec.chain.initial_diffusion
    features = None
    if policy.sight is not None:
        crops = CROPS if split == "train" else 0
        features = feature_table(store, policy.sight, split, crops, resident(data, store))
    inside = resident(data, store)
    windows = (Windows if inside else StreamedWindows).from_store(store, *cut)
    windows = windows.to(policy.device) if isinstance(windows, Windows) else windows
    return with_diffusion(WindowPool(windows, policy.encoding, features), diffusion, seed=0)


def joint_pool(data: WindowData, store: Store, policy: LFMPolicy, sight: Sight) -> JointPool:
    """Return the training windows with their pictures, which `sight` sees and learns from, on the policy's device."""
    cut, inside = (data.horizon, data.observation_steps, data.action_steps), resident(data, store)
    frames = read_frames(store, "train", inside)
    windows = (Windows if inside else StreamedWindows).from_store(store, "train", *cut, frames=frames)
    return JointPool(windows.to(policy.device) if isinstance(windows, Windows) else windows, policy.encoding, sight)


def resident(data: WindowData, store: Store) -> bool:
    """Say whether the windows are held in memory: as the settings say, or where they take at most RESIDENT_BYTES."""
    row = 4 * (store.contract.observation_dim + store.contract.action_dim) + 8 * data.horizon
    return store.steps * row + frame_bytes(store) <= RESIDENT_BYTES if data.resident is None else data.resident
