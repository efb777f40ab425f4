"""The policy: normalise the observations, run the chain from noise to data under them, denormalise the actions."""

from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from lfm_policy import networks
from lfm_policy.actions.poses import hand_columns
from lfm_policy.contract import Contract
from lfm_policy.data.normalizers.affine import AffineNormalizer
from lfm_policy.errors import ContractError
from lfm_policy.flow import FlowChain, Interpolant, Sample, Schedule, Solver, TimeLaw
from lfm_policy.flow.fit import draw_loss
from lfm_policy.models.device import cpu_threads
from lfm_policy.models.pretrained import Pretrained, digest
from lfm_policy.models.rotations import RotationRows
from lfm_policy.models.sight import Frames, Sight
from lfm_policy.protocols import ChunkBatch
from lfm_policy.settings import Frozen

FORMAT = "lfm-policy/1"
STATE, ACTION, IMAGES = "observation.state", "action", "observation.images"
"""Keys of a batch, as LeRobot names them; those of pictures go on with a dot and the camera's name."""


class PolicySpec(Frozen):
    """Everything that shapes a policy except its weights and its contract; the content of config.json."""

    format: Literal["lfm-policy/1"] = FORMAT
    horizon: int = 16
    """T: actions in a chunk."""
    observation_steps: int = 2
    """To: observations that a chunk is conditioned on."""
    action_steps: int = 8
    """Ta: actions executed of a chunk."""
    gammas: tuple[float, ...]
    """OU steps of all blocks but the last."""
    interpolant: Interpolant = "linear"
    solver: Solver = Solver()
    network: dict[str, Any]
    """`_target_` and arguments of one block's network."""
    share: bool = False
    """One network for all blocks."""
    precondition: bool = False
    """Networks give velocities up to the factors of `FlowChain.preconditioning`."""
    initial_diffusion: float = Field(default=0.0, ge=0)
    """OU time δ for which normalised chunks x were diffused; what is modelled are x + sqrt(e^{2δ} - 1) z."""
    anchored: bool = False
    """Positions in a chunk count from where the hand was in the newest observation, and each of its steps has
    statistics of its own: the next command lies within millimetres of the hand, the last one decimetres away."""
    quaternions: tuple[int, ...] = ()
    """First columns of the quaternions in an observation that the networks see as rows of rotation matrices; they are
    not normalised."""
    temperature: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    """Standard deviation of the noise that chunks are made from, where the chain was trained with 1: with less a chunk
    is nearer to the most typical one for its observations, and with 0 a function of them."""
    diffusion: Literal["ddpm", "ddim"] | None = None
    """A diffusion model in the place of the flow, as a baseline; one block, whose solver steps are denoising steps."""
    vision: dict[str, Any] | None = None
    """`_target_` and arguments of the encoder of a camera's pictures, where the contract has cameras; see `Sight`."""
    crop: int | None = Field(default=None, ge=1)
    """Height and width of the part of a picture that is seen [pixels]; all of it when None."""


class LFMPolicy(Pretrained):
    """A conditional Local Flow Matching policy.

    Args:
        spec: horizons, schedule, solver and network.
        contract: what observations and actions mean.
        trust_code: allow a network class from outside this package.

    Raises:
        ContractError: the specification's quaternions are no columns of the contract's observation, or it has an
            encoder of pictures and the contract no cameras, or the other way round.
    """

    kind = "policy"
    descriptions: ClassVar = {"config.json": PolicySpec, "contract.json": Contract}
    spec: PolicySpec
    hands: Tensor | None

    def __init__(self, spec: PolicySpec, contract: Contract, *, trust_code: bool = True) -> None:
        super().__init__()
        self.spec = spec
        self.contract = contract
        schedule = Schedule(spec.gammas)
        self.rotations = _rotations(spec, contract)
        width = self.rotations.width if self.rotations else contract.observation_dim
        self.sight = _sight(spec, contract, trust_code)
        seen = self.sight.features if self.sight else 0
        sizes = {"action_dim": contract.action_dim, "cond_dim": spec.observation_steps * width + seen}
        blocks = networks.build_blocks(
            spec.network, schedule.blocks, share=spec.share, own_only=not trust_code, **sizes
        )
        self.chain = _chain(spec, blocks, schedule)
        self.observation_normalizer = AffineNormalizer(contract.observation_dim)
        self.action_normalizer = AffineNormalizer(*(self.noise_shape if spec.anchored else self.noise_shape[1:]))
        self.register_buffer("hands", hands(contract) if spec.anchored else None, persistent=False)
        self.threads: int | None = 1
        """CPU threads of one call; None: as many as torch takes by itself."""
        self.reset()

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

    @property
    def portable(self) -> bool:
        """`PortablePolicy`."""
        return self.device.type == "cpu" and self.threads == 1

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.observation_normalizer.scale.device

    def forward(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        """The simulation-free training loss of a batch, the mean over blocks, and its parts.

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

    def encode(self, action: Float[Tensor, "b t a"], history: Float[Tensor, "b to d"]) -> Float[Tensor, "b t a"]:
        """Raw chunks as the chain knows them: from the hand on where the policy is anchored, normalised."""
        return self.action_normalizer.normalize(action - self.anchor(history))

    def decode(self, x: Float[Tensor, "b t a"], history: Float[Tensor, "b to d"]) -> Float[Tensor, "b t a"]:
        """Samples of the chain as chunks in the contract's units, given the raw history; undoes `encode`."""
        return self.action_normalizer.denormalize(x) + self.anchor(history)

    def set_temperature(self, temperature: float) -> None:
        """Act from noise of another standard deviation; the specification says so from now on.

        Raises:
            ValueError: it is negative or not finite.
        """
        self.spec = PolicySpec.model_validate(self.spec.model_dump() | {"temperature": temperature})

    def latent(self, noise: Float[Tensor, "b t a"]) -> Float[Tensor, "b t a"]:
        """Where the chain begins: standard normal noise at the policy's temperature."""
        return noise if self.spec.temperature == 1 else self.spec.temperature * noise

    def anchor(self, history: Float[Tensor, "b to d"]) -> Float[Tensor, "b 1 a"] | float:
        """Where chunks count from: the hands' newest positions in the columns of the commanded ones, or 0."""
        return 0.0 if self.hands is None else history[:, -1:] @ self.hands

    def see(self, frames: Frames | None) -> Float[Tensor, "b f"] | None:
        """The features of the cameras' newest pictures; None for a policy without cameras.

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
        """Normalise and flatten an observation history, its quaternions written as rotation matrices' rows.

        Args:
            history: raw.
            features: from `see`, of a policy with cameras.
        """
        normalised = self.observation_normalizer.normalize(history)
        seen = (self.rotations(normalised) if self.rotations else normalised).flatten(1)
        return seen if features is None else torch.cat([seen, features], dim=1)

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
        """`ChunkPolicy`: histories (B, To, D) and noise (B, T, A) as float32 arrays; see protocols.py."""
        seen = None if frames is None else torch.from_numpy(frames)
        with self.computing():
            actions, nfe = self._chunk(
                self._history(torch.from_numpy(histories)), torch.from_numpy(noise).to(self.device), None, seen
            )
            return ChunkBatch(actions.cpu().numpy(), nfe)

    def select_action(self, batch: Mapping[str, Tensor | np.ndarray]) -> Float[Tensor, "*b a"]:
        """Return the next action (B, A) of B parallel episodes, from their current observations (B, D).

        History and chunk are kept until `reset`. One observation (D,) gives one action (A,).

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
                chunk, _ = self._chunk(torch.stack(past, dim=1), None, None, frames)
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
        """The cameras' pictures in a batch (B, K, H, W, 3); LeRobot's lie channels first."""
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
        return self.decode(passage.x, history), passage.nfe

    def sample_of(
        self,
        history: Float[Tensor, "b to d"],
        action: Float[Tensor, "b t a"],
        features: Float[Tensor, "b f"] | None = None,
    ) -> Sample:
        """Raw histories and chunks, and what was seen, as what the chain is trained on: x, and the condition."""
        return Sample(self.encode(action, history), self.condition(history, features))

    def digest(self) -> str:
        """Hash of all that decides what the policy does: specification, contract and weights."""
        return digest(self.spec.model_dump_json(exclude_defaults=True) + self.contract.model_dump_json(), self)

    def write(self, directory: Path) -> None:
        """Write the files of `save_pretrained`, contract.json among them, into an existing directory."""
        super().write(directory)
        (directory / "contract.json").write_text(self.contract.model_dump_json(indent=2) + "\n", encoding="utf-8")


def _state(batch: Mapping[str, Tensor | np.ndarray]) -> Tensor:
    """The observations of a batch, as float32."""
    if STATE not in batch:
        raise ContractError(f"expected observations under '{STATE}', found {sorted(batch)}")
    return torch.as_tensor(batch[STATE], dtype=torch.float32)


def hands(contract: Contract) -> Float[Tensor, "d a"]:
    """The matrix that takes an observation to the hands' positions, in the columns of the commanded ones.

    Raises:
        ContractError: see `hand_columns`.
    """
    matrix = torch.zeros(contract.observation_dim, contract.action_dim)
    for observed, commanded in hand_columns(contract):
        matrix[observed, commanded] = 1.0
    return matrix


def _rotations(spec: PolicySpec, contract: Contract) -> RotationRows | None:
    places = sorted(spec.quaternions)
    gaps = [after - before for before, after in pairwise([*places, contract.observation_dim])]
    if places and (places[0] < 0 or min(gaps) < 4):
        raise ContractError(
            f"quaternions take four columns each of the {contract.observation_dim} of an observation, found {places}"
        )
    return RotationRows(contract.observation_dim, places) if places else None


def _sight(spec: PolicySpec, contract: Contract, trust_code: bool) -> Sight | None:
    if (spec.vision is None) != (not contract.cameras):
        raise ContractError(
            f"a policy has an encoder where its contract has cameras, found encoder {spec.vision} and "
            f"cameras {[camera.name for camera in contract.cameras]}"
        )
    return None if spec.vision is None else Sight(spec.vision, contract, spec.crop, trust_code=trust_code)


def _chain(spec: PolicySpec, blocks: nn.ModuleList, schedule: Schedule) -> FlowChain:
    if spec.diffusion is None:
        return FlowChain(blocks, schedule, spec.interpolant, spec.solver, spec.precondition)
    from lfm_policy.models.diffusion import DiffusionChain  # diffusers is optional

    (network,) = blocks
    return DiffusionChain(network, spec.diffusion, spec.solver, clip=not spec.anchored)
