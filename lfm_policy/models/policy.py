"""The policy: normalise the observations, run the chain from noise to data under them, denormalise the actions."""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from lfm_policy.contract import Contract
from lfm_policy.errors import CheckpointError, ConfigError, ContractError
from lfm_policy.flow import Sample, Solver, TimeLaw
from lfm_policy.flow.fit import draw_loss
from lfm_policy.models import lerobot
from lfm_policy.models.bundle import Bundle, is_bundle, read
from lfm_policy.models.device import cpu_threads, usable_device
from lfm_policy.models.encoding import NORMALIZERS, Encoding, condition_width
from lfm_policy.models.pretrained import Pretrained, Weights, digest
from lfm_policy.models.sight import Frames, Sight
from lfm_policy.models.sources import locate
from lfm_policy.models.spec import PolicySpec
from lfm_policy.models.stored import bundle_tensors
from lfm_policy.networks.cpu.narrow import narrow
from lfm_policy.protocols import ChunkBatch

STATE, ACTION, IMAGES = "observation.state", "action", "observation.images"
"""Keys of a batch, as LeRobot names them; those of pictures go on with a dot and the camera's name."""


class LFMPolicy(Pretrained):
    """A conditional Local Flow Matching policy.

    Args:
        spec: horizons, schedule, solver and network.
        encoding: what lies between raw numbers and the chain, fitted; it knows what they mean.
        trust_code: allow a network class from outside this package.

    Raises:
        ConfigError: there is no such network, it refuses the arguments, or it may not be loaded.
        ContractError: the specification says something else than the encoding, or it has an encoder of pictures and the
            contract no cameras, or the other way round.
    """

    kind = "policy"
    descriptions: ClassVar = {"config.json": PolicySpec, "contract.json": Contract}
    spec: PolicySpec

    def __init__(self, spec: PolicySpec, encoding: Encoding, *, trust_code: bool = True) -> None:
        super().__init__()
        self.spec, self.contract = spec, encoding.contract
        _require_agreement(spec, encoding)
        networks = self.networks(spec, self.contract, trust_code=trust_code)
        self.sight = networks.get("sight")
        self.chain = spec.chain.build(networks["chain.blocks"], clip=not spec.anchored)
        self.encoding = encoding
        self._register_state_dict_hook(_without_prefix)
        self.register_load_state_dict_pre_hook(_with_prefix)
        self.narrowed = False
        """Whether its networks multiply in bfloat16."""
        self.threads: int | None = 1
        """CPU threads of one call; None: as many as torch takes by itself."""
        self.reset()

    @classmethod
    def networks(cls, spec: PolicySpec, contract: Contract, *, trust_code: bool) -> dict[str, Any]:
        """See `Pretrained.networks`: those of the blocks, and the encoders of pictures where there are cameras."""
        if (spec.vision is None) != (not contract.cameras):
            raise ContractError(
                f"a policy has an encoder where its contract has cameras, found encoder {spec.vision} and "
                f"cameras {[camera.name for camera in contract.cameras]}"
            )
        sight = None if spec.vision is None else Sight(spec.vision, contract, spec.crop, trust_code=trust_code)
        seen = condition_width(spec, contract) + (sight.features if sight else 0)
        blocks = spec.chain.networks(trust_code=trust_code, action_dim=contract.action_dim, cond_dim=seen)
        return ({} if sight is None else {"sight": sight}) | {"chain.blocks": blocks}

    @classmethod
    def made(cls, parts: Sequence[Any], tensors: Mapping[str, Tensor], where: str, *, trust_code: bool) -> "LFMPolicy":
        """See `Pretrained.made`: with the normalisers that are stored."""
        spec, contract = parts
        return cls(spec, Encoding.restored(spec, contract, tensors, where), trust_code=trust_code)

    @classmethod
    def from_pretrained(
        cls,
        directory: str | Path,
        *,
        weights: Weights = "ema",
        device: torch.device | str = "cpu",
        trust_code: bool = False,
        revision: str | None = None,
    ) -> "LFMPolicy":
        """Load a checkpoint, ours or LeRobot's, a bundle, an installed one ("lift") or a hub's; see `Pretrained`.

        `revision` is a branch, tag or commit of a hub's repository.
        """
        directory = locate(directory, revision)
        if is_bundle(directory):
            return cls.of_bundle(read(directory), usable_device(device), trust_code)
        if lerobot.is_lerobot(directory):
            *parts, tensors = lerobot.read(directory, weights)
            restored = cls.restored(parts, tensors, str(directory), trust_code=trust_code)
            return restored.to(usable_device(device))
        return super().from_pretrained(directory, weights=weights, device=device, trust_code=trust_code)

    @classmethod
    def of_bundle(cls, bundle: Bundle, device: torch.device | str = "cpu", trust_code: bool = False) -> "LFMPolicy":
        """Restore the policy of a bundle that was read, in float32 and evaluation mode.

        Raises:
            CheckpointError: specification and weights do not fit each other, or hold what is unknown.
        """
        parts, where = (bundle.config.policy, bundle.contract), str(bundle.directory)
        try:
            return cls.restored(parts, bundle_tensors(bundle), where, trust_code=trust_code).to(device)
        except (ConfigError, ContractError) as error:
            raise CheckpointError(
                f"{where} describes in its config.json no policy that can be built: {error}"
            ) from None

    @property
    def observation_steps(self) -> int:
        """To."""
        return self.spec.observation_steps

    @property
    def action_steps(self) -> int:
        """Ta."""
        return self.spec.action_steps

    @property
    def noise_shape(self) -> tuple[int, int]:
        """(T, action_dim)."""
        return (self.spec.horizon, self.contract.action_dim)

    def narrow(self) -> None:
        """Multiply in bfloat16 from now on, for chunks alone; see `NarrowLinear`.

        Raises:
            ConfigError: torch cannot do it on this device.
        """
        narrow(self.chain.blocks)
        self.narrowed = True

    @property
    def portable(self) -> bool:
        """`PortablePolicy`."""
        return self.device.type == "cpu" and self.threads == 1

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.encoding.device

    def forward(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        """Return the simulation-free training loss of a batch, the mean over blocks, and its parts.

        Args:
            batch: "observation.state" (B, To, D) and "action" (B, T, A), in raw units; of a policy with cameras
                "observation.images.CAMERA" uint8 (B, H, W, 3) or (B, 3, H, W) too.
        """
        sample = self.sample_of(batch[STATE], batch[ACTION], self.see(self._frames(batch)))
        generator = torch.Generator(self.device).manual_seed(int(torch.randint(2**62, ())))
        chain = self.chain
        losses = [draw_loss(chain, n, sample, "marginal", TimeLaw(), generator)() for n in range(len(chain.blocks))]
        parts = {f"loss_block{n}": float(loss.detach()) for n, loss in enumerate(losses)}
        return torch.stack(losses).mean(), parts

    def set_temperature(self, temperature: float) -> None:
        """Act from noise of another standard deviation; the specification says so from now on.

        Raises:
            ValueError: it is negative or not finite.
        """
        self.spec = PolicySpec.model_validate(self.spec.model_dump() | {"temperature": temperature})

    def latent(self, noise: Float[Tensor, "b t a"]) -> Float[Tensor, "b t a"]:
        """Draw where the chain begins: standard normal noise at the policy's temperature."""
        return noise if self.spec.temperature == 1 else self.spec.temperature * noise

    def see(self, frames: Frames | None) -> Float[Tensor, "b f"] | None:
        """Return the features of the cameras' newest pictures; None for a policy without cameras.

        Raises:
            ContractError: pictures are missing, have another shape, or nobody is there to see them.
        """
        if self.sight is None and frames is None:
            return None
        expected = self.contract.frames_shape if self.sight else None
        if self.sight is None or frames is None or tuple(frames.shape[1:]) != expected:
            found = "none" if frames is None else tuple(frames.shape)
            raise ContractError(f"expected pictures (B, cameras, height, width, 3) of {expected}, found {found}")
        return self.sight(frames.to(self.device))

    def condition(
        self, history: Float[Tensor, "b to d"], features: Float[Tensor, "b f"] | None = None
    ) -> Float[Tensor, "b c"]:
        """Encode a raw history, with features from `see` beside it where there are cameras."""
        return self.encoding.condition(history, features)

    def predict_action_chunk(
        self,
        batch: Mapping[str, Tensor | np.ndarray],
        noise: Float[Tensor, "b t a"] | None = None,
        solver: Solver | None = None,
    ) -> Float[Tensor, "*b t a"]:
        """Return action chunks (B, T, A) in the contract's units, from "observation.state" (B, D) or (B, To, D).

        One observation (D,) gives one chunk (T, A).

        Of a policy with cameras also from "observation.images.CAMERA" uint8 (B, H, W, 3) or (B, 3, H, W).

        Raises:
            ContractError: the observations have another shape, or the normalisers were lost.
        """
        state = _state(batch)
        with self.computing():
            history = self._history(state if state.ndim > 1 else state[None])
            chunk = self._chunk(history, noise, solver, self._frames(batch, single=state.ndim == 1))[0]
        return chunk if state.ndim > 1 else chunk[0]

    def predict(self, histories: np.ndarray, noise: np.ndarray, frames: np.ndarray | None = None) -> ChunkBatch:
        """Predict as a `ChunkPolicy`: histories (B, To, D) and noise (B, T, A) as float32 arrays; see protocols.py."""
        seen = None if frames is None else torch.from_numpy(frames)
        with self.computing():
            actions, nfe = self._chunk(
                self._history(torch.from_numpy(histories)), torch.from_numpy(noise).to(self.device), None, seen
            )
            return ChunkBatch(actions.cpu().numpy(), nfe)

    def select_action(
        self, batch: Mapping[str, Tensor | np.ndarray], noise: Float[Tensor, "b t a"] | None = None
    ) -> Float[Tensor, "*b a"]:
        """Return the next action (B, A) of B parallel episodes, from their current observations (B, D).

        History and chunk are kept until `reset`. One observation (D,) gives one action (A,). `noise` is that of the
        next chunk, where one is due.

        Raises:
            ContractError: the observations have another shape than expected, or than those before.
        """
        state = _state(batch)
        rows = state if state.ndim > 1 else state[None]
        expected = (len(self._past[0]) if self._past else len(rows), self.contract.observation_dim)
        if rows.shape != expected:
            raise ContractError(
                f"expected the current observations (B, {expected[1]}) of as many episodes as before "
                f"({expected[0]}; reset() begins others), or one of shape ({expected[1]},), found {tuple(state.shape)}"
            )
        self._past.append(rows.to(self.device))
        if not self._queue:
            first = self.observation_steps - 1
            past = [self._past[0]] * (self.observation_steps - len(self._past)) + list(self._past)
            with self.computing():
                frames = self._frames(batch, single=state.ndim == 1)
                chunk, _ = self._chunk(torch.stack(past, dim=1), noise, None, frames)
            self._queue.extend(chunk[:, first : first + self.action_steps].unbind(1))
        action = self._queue.popleft()
        return action if state.ndim > 1 else action[0]

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Compute inside without gradients, on `threads` CPU threads, which are torch's own again afterwards."""
        with torch.inference_mode(), cpu_threads(self.threads if self.device.type == "cpu" else None):
            yield

    def reset(self) -> None:
        """Forget history and chunk of `select_action`: a new episode begins."""
        self._past: deque[Tensor] = deque(maxlen=self.observation_steps)
        self._queue: deque[Tensor] = deque()

    def _history(self, observation: Tensor) -> Tensor:
        if observation.ndim == 2:
            observation = observation[:, None].expand(-1, self.observation_steps, -1)
        expected = (self.observation_steps, self.contract.observation_dim)
        if observation.shape[1:] != expected:
            raise ContractError(
                f"expected observations (B, {expected[1]}) or histories (B, {expected[0]}, {expected[1]}), "
                f"found {tuple(observation.shape)}"
            )
        return observation.to(self.device)

    def _frames(self, batch: Mapping[str, Tensor | np.ndarray], single: bool = False) -> Tensor | None:
        """Return the cameras' pictures in a batch (B, K, H, W, 3); LeRobot's lie channels first."""
        if self.sight is None:
            return None
        keys = [f"{IMAGES}.{camera.name}" for camera in self.contract.cameras]
        missing = [key for key in keys if key not in batch]
        if missing:
            raise ContractError(f"expected pictures {keys} in the batch, found no {missing}")
        pictures = [torch.as_tensor(batch[key]) for key in keys]
        bad = {str(picture.dtype) for picture in pictures} - {"torch.uint8"}
        if bad:
            raise ContractError(f"expected pictures as bytes (uint8, 0 … 255), found {sorted(bad)}")
        frames = torch.stack([p if p.shape[-1] == 3 else p.movedim(-3, -1) for p in pictures], dim=-4)
        return frames[None] if single else frames

    def _chunk(
        self, history: Tensor, noise: Tensor | None, solver: Solver | None, frames: Tensor | None = None
    ) -> tuple[Tensor, int]:
        if noise is None:
            noise = torch.randn(len(history), *self.noise_shape, device=self.device)
        passage = self.chain.to_data(self.latent(noise), self.condition(history, self.see(frames)), solver=solver)
        return self.encoding.decode(passage.x, history), passage.nfe

    def sample_of(
        self,
        history: Float[Tensor, "b to d"],
        action: Float[Tensor, "b t a"],
        features: Float[Tensor, "b f"] | None = None,
    ) -> Sample:
        """See `Encoding.sample`."""
        return self.encoding.sample(history, action, features)

    def digest(self) -> str:
        """Hash of all that decides what the policy does: specification, contract and weights."""
        return digest(self.spec.described() + self.contract.model_dump_json(), self)

    def write(self, directory: Path) -> None:
        """Write the files of `save_pretrained`, contract.json among them, into an existing directory."""
        super().write(directory)
        (directory / "contract.json").write_text(self.contract.model_dump_json(indent=2) + "\n", encoding="utf-8")


def _state(batch: Mapping[str, Tensor | np.ndarray]) -> Tensor:
    """Return the observations of a batch, as float32."""
    if STATE not in batch:
        raise ContractError(f"expected observations under '{STATE}', found {sorted(batch)}")
    return torch.as_tensor(batch[STATE], dtype=torch.float32)


def _require_agreement(spec: PolicySpec, encoding: Encoding) -> None:
    shape = (spec.horizon, encoding.contract.action_dim) if spec.anchored else (encoding.contract.action_dim,)
    expected = spec.anchored, spec.quaternions, shape
    found = encoding.anchored, encoding.quaternions, tuple(encoding.action_normalizer.scale.shape)
    if found != expected:
        raise ContractError(f"expected an encoding (anchored, quaternions, shape of actions) {expected}, found {found}")


_PREFIX = "encoding."
"""Prefix of the normalisers here; in files they have none, as in the first format."""


def _without_prefix(module: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
    for key in [key for key in state if key.startswith(prefix + _PREFIX)]:
        state[prefix + key.removeprefix(prefix + _PREFIX)] = state.pop(key)


def _with_prefix(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    for key in [key for key in state if key.startswith(tuple(prefix + name for name in NORMALIZERS))]:
        state[prefix + _PREFIX + key.removeprefix(prefix)] = state.pop(key)
