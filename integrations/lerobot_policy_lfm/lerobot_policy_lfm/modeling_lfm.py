"""A Local Flow Matching policy as LeRobot trains and runs it: the model is `lfm_policy.LFMPolicy`, as it is."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.policies.rtc.configuration_rtc import RTCConfig
from lerobot.policies.rtc.modeling_rtc import RTCProcessor
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

import lfm_policy
from lerobot_policy_lfm.configuration_lfm import LFMConfig
from lfm_policy.actions.poses import position_columns
from lfm_policy.chunks.guided import guided_chunk
from lfm_policy.contract import Camera, Contract
from lfm_policy.data.lerobot.names import Meaning, camera_name, columns_of, contract_of, feature_of
from lfm_policy.data.lerobot.read import own_contract, read_info
from lfm_policy.data.normalizers.affine import AffineNormalizer, Spread
from lfm_policy.errors import ContractError
from lfm_policy.models.encoding import Encoding
from lfm_policy.models.lerobot import chosen
from lfm_policy.models.policy import ACTION, IMAGES, STATE
from lfm_policy.models.pretrained import read_tensors
from lfm_policy.models.spec import PolicySpec
from lfm_policy.training.ema import decay

Statistics = Mapping[str, Mapping[str, Any]]
"""min, max, mean and std by feature, as in meta/stats.json."""


class LFMPolicy(PreTrainedPolicy):
    """The policy that trains, and its moving average, which acts.

    Args:
        config: its contract is filled in from the data set where it has none.
        dataset_stats: of the data set, from which a fresh policy's normalisers come; None: weights will be loaded.
        dataset_meta: of the data set, for names and the control rate.

    Raises:
        ContractError: the data set has no action, or nothing that is observed.
    """

    config_class = LFMConfig
    name = "lfm"
    config: LFMConfig
    model: lfm_policy.LFMPolicy | None
    average: AveragedModel | None

    def __init__(
        self, config: LFMConfig, dataset_stats: Statistics | None = None, dataset_meta: Any = None, **_: Any
    ) -> None:
        super().__init__(config)
        config.validate_features()
        if config.contract is None:
            config.contract = _contract(config, dataset_meta).model_dump(mode="json")
        if not self.contract.cameras:
            config.vision = config.crop = None
        self.model = self.average = None
        if dataset_stats is not None and not config.pretrained_path:
            encoding = _encoding(config.description.spec, self.contract, dataset_stats)
            self._take(lfm_policy.LFMPolicy(config.description.spec, encoding, trust_code=False))

    @property
    def contract(self) -> Contract:
        """What observations and actions mean."""
        contract = self.config.description.contract
        assert contract is not None  # __init__ fills it in
        return contract

    @property
    def acting(self) -> lfm_policy.LFMPolicy:
        """The policy that acts, which is the moving average.

        Raises:
            ContractError: there is none, for lack of statistics and of weights.
        """
        return self._there(self.average).module

    def get_optim_params(self) -> Iterator[nn.Parameter]:
        """Return what is trained; see `PreTrainedPolicy`."""
        return self._there(self.model).parameters()

    def forward(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        """Return the simulation-free loss of a batch, the mean over blocks, and each block's.

        Args:
            batch: observations (B, To, D), pictures (B, To, 3, H, W) in [0, 1], and "action" (B, T, A), in raw units.
        """
        model = self._there(self.model) if self.training else self.acting
        return model.forward(self._given(batch) | {ACTION: _rows(batch[ACTION], self.contract.action_dim)})

    def update(self) -> None:
        """Let the moving average follow; LeRobot calls this after each update."""
        self._there(self.average).update_parameters(self._there(self.model))

    def reset(self) -> None:
        """Begin other episodes; see `PreTrainedPolicy`."""
        if self.average is not None:
            self.acting.reset()

    def supports_rtc(self) -> bool:
        """Return True: chunks are guided through the last block; see `predict_action_chunk`."""
        return True

    def predict_action_chunk(
        self,
        batch: Mapping[str, Tensor],
        noise: Tensor | None = None,
        inference_delay: int = 0,
        prev_chunk_left_over: Tensor | None = None,
        **_: Any,
    ) -> Tensor:
        """Return the actions (B, T - To + 1, A) from now on, in raw units.

        Args:
            batch: observations, the newest (B, D) or the last To of them (B, To, D), and the newest pictures.
            noise: standard normal (B, T, A); None: drawn.
            inference_delay: actions of the running chunk that are executed before this one can begin.
            prev_chunk_left_over: what is left of the running chunk from now on, (L, A) or (B, L, A), which the new one
                is to continue; see `guided_chunk`.
        """
        given, first = self._given(batch), self.config.n_obs_steps - 1
        if prev_chunk_left_over is None:
            return self.acting.predict_action_chunk(given, noise)[:, first:]
        with torch.inference_mode(False):
            return self._guided(given, noise, inference_delay, prev_chunk_left_over)[:, first:]

    def select_action(self, batch: Mapping[str, Tensor], noise: Tensor | None = None, **_: Any) -> Tensor:
        """Return the next action (B, A) of B episodes from their newest observations; see `PreTrainedPolicy`."""
        return self.acting.select_action(self._given(batch), noise).clone()

    def _given(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return a batch as the model wants it: one vector in the contract's order, pictures as bytes."""
        found = columns_of(self.contract)
        missing = [key for key in (*found, *self._cameras()) if key not in batch]
        if missing:
            raise ContractError(f"expected {missing} among the observations, found {sorted(batch)}")
        told = torch.cat([_rows(batch[key], len(columns)).float() for key, columns in found.items()], dim=-1)
        order = torch.tensor([column for columns in found.values() for column in columns])
        given = {STATE: told[..., order.argsort().to(told.device)]}
        for key in self._cameras():
            pictures = batch[key][:, -1] if batch[key].ndim == 5 else batch[key]
            given[f"{IMAGES}.{camera_name(key)}"] = (pictures * 255).round().to(torch.uint8)
        return given

    def _guided(self, given: dict[str, Tensor], noise: Tensor | None, delay: int, left: Tensor) -> Tensor:
        """Return chunks (B, T, A) that go on from what is left of the running ones."""
        policy, settings = self.acting, self.config.rtc_config or RTCConfig()
        first, shape = self.config.n_obs_steps - 1, policy.noise_shape
        history = given[STATE].clone()
        history = history if history.ndim == 3 else history[:, None].expand(-1, policy.observation_steps, -1)
        left = left.clone() if left.ndim == 3 else left[None].clone()
        told = left.abs().sum(dim=(0, 2)).nonzero()  # lerobot-rollout pads with rows of zeros
        count = min(int(told[-1]) + 1 if len(told) else 0, shape[0] - first)
        wanted, weights = history.new_zeros(len(history), *shape), history.new_zeros(shape[0])
        wanted[:, first : first + count] = left[:, :count]
        end = min(settings.execution_horizon, count)
        weights[first:] = RTCProcessor(settings).get_prefix_weights(min(delay, end), end, shape[0] - first)
        pictures = [given[f"{IMAGES}.{camera.name}"].clone() for camera in self.contract.cameras]
        frames = torch.stack(pictures, dim=1).movedim(2, -1) if pictures else None
        with torch.no_grad():
            features = policy.see(frames)
        noise = torch.randn(len(history), *shape, device=history.device) if noise is None else noise.clone()
        largest = settings.max_guidance_weight
        return guided_chunk(policy, history, noise, wanted, weights, features=features, largest=largest)

    def _cameras(self) -> list[str]:
        known = {camera.name for camera in self.contract.cameras}
        return [key for key in self.config.image_features if camera_name(key) in known]

    def _there(self, part: Any) -> Any:
        if part is None:
            raise ContractError(
                "the policy has neither weights nor normalisers: train it on a data set (lerobot-train), or load one "
                "(--policy.path=FOLDER); an environment alone does not say how its numbers are distributed"
            )
        return part

    def _take(self, model: lfm_policy.LFMPolicy, average: lfm_policy.LFMPolicy | None = None, updates: int = 0) -> None:
        """Train this model from now on, and go on with an average that was made in so many updates."""
        self.model = model
        self.average = AveragedModel(average or model, multi_avg_fn=self._follow).requires_grad_(False)
        self.average.n_averaged.fill_(updates)
        for policy in (self.model, self.average.module):
            policy.threads = None
        for weight in self.model.parameters():
            # moments lie in memory as their weights do, and LeRobot stores only what is contiguous
            weight.data = weight.data.contiguous()

    def _follow(self, averages: Any, weights: Any, updates: Tensor | int) -> None:
        part = decay(int(updates), self.config.ema_power, self.config.ema_max_decay)
        torch._foreach_lerp_(averages, weights, 1 - part)  # pyright: ignore[reportPrivateImportUsage]

    @classmethod
    def _load_as_safetensor(cls, model: "LFMPolicy", model_file: str, map_location: str, strict: bool) -> "LFMPolicy":
        """Take the weights of a file, checked against the configuration before any network is built.

        Raises:
            CheckpointError: they are damaged, or of another network.
        """
        tensors = read_tensors(Path(model_file))
        parts = (model.config.description.spec, model.contract)
        raw, average = (
            lfm_policy.LFMPolicy.restored(parts, chosen(tensors, weights), model_file, trust_code=False)
            for weights in ("raw", "ema")
        )
        model._take(raw, average, int(tensors.get("average.n_averaged", 0)))
        return model


def _rows(values: Tensor, width: int) -> Tensor:
    """Return vectors as such: LeRobot leaves their axis out where they have one number."""
    return values[..., None] if width == 1 and (values.ndim == 1 or values.shape[-1] != 1) else values


def _contract(config: LFMConfig, meta: Any) -> Contract:
    """Say what the data mean that a policy is to see, as far as their description does.

    Raises:
        ContractError: there is neither a contract nor a data set.
        DataError: the data set's description is damaged.
    """
    if meta is None:
        raise ContractError(
            "a new policy needs a data set, whose description says what its numbers mean: train it with lerobot-train, "
            "or load one (--policy.path=FOLDER)"
        )
    root = Path(meta.root)
    said = own_contract(root) or contract_of(read_info(root), meta.repo_id, Meaning(), None)[0]
    kept = tuple(key for key in said.observations if feature_of(key) in (config.input_features or {}))
    drawn = {camera.name: camera.drawing for camera in said.cameras}
    cameras = tuple(
        Camera(name=name, height=f.shape[1], width=f.shape[2], drawing=drawn.get(name, "full"))
        for name, f in ((camera_name(key), f) for key, f in config.image_features.items())
    )
    measured = said.measured if said.measured in {key.name for key in kept} else None
    changes = {"observations": kept, "cameras": cameras, "measured": measured}
    return Contract.model_validate(dict(said) | changes)


def _encoding(spec: PolicySpec, contract: Contract, stats: Statistics) -> Encoding:
    """Fit normalisers to a data set's statistics: observations standardised, actions' range to [-1, 1].

    Raises:
        ContractError: chunks are to be anchored, or rotations written as rows: statistics of single frames do not do.
    """
    if spec.anchored or spec.quaternions:
        raise ContractError(
            "anchored chunks and rotation rows need the data themselves, which LeRobot's statistics do not hold: train "
            "with lfm train and convert the policy (lfm-to-lerobot), or leave anchored and quaternions out"
        )
    found = columns_of(contract)
    order = torch.tensor([column for columns in found.values() for column in columns]).argsort()
    observed = [_spread(stats[key]) for key in found]
    joined = Spread(
        observed[0].count,
        *(torch.cat([getattr(s, name) for s in observed])[order] for name in ("mean", "std", "low", "high")),
    )
    action = AffineNormalizer.min_max(_spread(stats[ACTION]), position_columns(contract))
    return Encoding(contract, AffineNormalizer.standard(joined), action)


def _spread(stats: Mapping[str, Any]) -> Spread:
    numbers = {
        name: torch.as_tensor(stats[name], dtype=torch.float64).flatten() for name in ("mean", "std", "min", "max")
    }
    return Spread(1, numbers["mean"], numbers["std"], numbers["min"], numbers["max"])
