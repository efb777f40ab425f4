"""What lies between raw numbers and a chain: anchors, normalisers and rows of rotations, fitted in one stage."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lfm_policy.actions.poses import hand_columns, moving_columns, position_columns
from lfm_policy.contract import Contract
from lfm_policy.data.normalizers.affine import AffineNormalizer, Spread
from lfm_policy.errors import CheckpointError, ContractError
from lfm_policy.flow import Sample
from lfm_policy.models.rotations import RotationRows, other_columns, quaternion_columns
from lfm_policy.models.spec import PolicySpec

if TYPE_CHECKING:  # zarr, which a policy that plays does not need
    from lfm_policy.data.windows.disk import StreamedWindows
    from lfm_policy.data.windows.store import Store

NORMALIZERS = ("observation_normalizer", "action_normalizer")
ObservationNormalizer = Literal["standard", "scalar"]


class Encoding(nn.Module):
    """Raw observation histories and action chunks as a chain knows them, and chunks back.

    Args:
        contract: what the raw numbers mean.
        observation: of single observations (D,), quaternions left as they are.
        action: of actions (A,), or of whole chunks (T, A) where they are anchored.
        anchored: positions in a chunk count from where the hand was in the newest observation.
        quaternions: first columns of the quaternions that are written as rows of rotation matrices.

    Raises:
        ContractError: the quaternions are no columns of an observation, no hand is observed to anchor chunks at, or a
            normaliser was never fitted: a policy without it hardly moves.
    """

    observation_normalizer: AffineNormalizer
    action_normalizer: AffineNormalizer
    hands: Tensor | None

    def __init__(
        self,
        contract: Contract,
        observation: AffineNormalizer,
        action: AffineNormalizer,
        *,
        anchored: bool = False,
        quaternions: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.contract, self.anchored, self.quaternions = contract, anchored, tuple(quaternions)
        self.rotations = _rotations(self.quaternions, contract)
        self.width = self.rotations.width if self.rotations else contract.observation_dim
        """Numbers that one observation becomes."""
        for name, normalizer in zip(NORMALIZERS, (observation, action), strict=True):
            if not normalizer.fitted:
                raise ContractError(
                    f"the {name.replace('_normalizer', '')} normaliser was never fitted: a policy without it hardly "
                    "moves; fit it on the training data, or load a checkpoint that holds it"
                )
            setattr(self, name, normalizer)
        self.register_buffer("hands", hands(contract) if anchored else None, persistent=False)

    @classmethod
    def fit(
        cls,
        store: "Store",
        horizon: int,
        observation_steps: int,
        action_steps: int,
        *,
        anchored: bool = False,
        rotation_rows: bool = False,
        observation_normalizer: ObservationNormalizer = "standard",
        shrink: float = 1.0,
    ) -> "Encoding":
        """Fit everything on the training split of a prepared data set.

        Args:
            store: the data set.
            horizon: T.
            observation_steps: To.
            action_steps: Ta.
            anchored: count positions in a chunk from the newest observation's hand, and give each step statistics.
            rotation_rows: look for quaternions in the data, and write them as rows of rotation matrices.
            observation_normalizer: a factor per dimension, or Diffusion Policy's one for all.
            shrink: a factor on normalised actions, e^{-δ} where they are to be diffused for OU time δ.

        Raises:
            DataError: the split holds nothing, or what is not finite.
        """
        contract = store.contract
        found = rotation_rows and contract.poses
        quaternions = quaternion_columns(block[0] for block in store.blocks("train")) if found else ()
        fit = AffineNormalizer.standard if observation_normalizer == "standard" else AffineNormalizer.scalar
        others = other_columns(contract.observation_dim, quaternions)
        observation = fit(Spread.of(block[0] for block in store.blocks("train")), others)
        if anchored:
            from lfm_policy.data.windows.disk import StreamedWindows

            cut = StreamedWindows.from_store(store, "train", horizon, observation_steps, action_steps)
            width = contract.action_dim
            scaled = moving_columns(contract) if contract.poses else range(width)  # grippers of poses are -1 and 1
            columns = [step * width + column for step in range(horizon) for column in scaled]
            spread = Spread.of(_anchored_chunks(cut, hands(contract)))
            action = AffineNormalizer.standard(spread, columns).unflatten(horizon, width)
        else:  # Diffusion Policy's: positions to [-1, 1]
            spread = Spread.of(block[1] for block in store.blocks("train"))
            action = AffineNormalizer.min_max(spread, position_columns(contract))
        action = action if shrink == 1 else action.scaled(shrink)
        return cls(contract, observation, action, anchored=anchored, quaternions=quaternions)

    @classmethod
    def restored(cls, spec: PolicySpec, contract: Contract, tensors: Mapping[str, Tensor], where: str) -> "Encoding":
        """Take the normalisers from a model's stored tensors.

        Raises:
            CheckpointError: they are not there, or of other shapes than specification and contract ask for.
            ContractError: see `Encoding`.
        """
        chunk = (spec.horizon, contract.action_dim) if spec.anchored else (contract.action_dim,)
        normalizers = []
        for name, shape in zip(NORMALIZERS, ((contract.observation_dim,), chunk), strict=True):
            own = {key: tensors.get(f"{name}.{key}") for key in ("scale", "offset", "fitted")}
            lost = [
                key for key, value in own.items() if value is None or value.shape != (() if key == "fitted" else shape)
            ]
            if lost:
                raise CheckpointError(
                    f"{where} lacks {name}.{lost[0]} of shape {shape}: its normaliser was lost; use another copy, or "
                    "train again"
                )
            normalizer = AffineNormalizer(*shape)
            normalizer.load_state_dict(own)
            normalizers.append(normalizer)
        return cls(contract, *normalizers, anchored=spec.anchored, quaternions=spec.quaternions)

    def encode(self, action: Float[Tensor, "b t a"], history: Float[Tensor, "b to d"]) -> Float[Tensor, "b t a"]:
        """Return raw chunks as the chain knows them: from the hand on where they are anchored, normalised."""
        return self.action_normalizer.normalize(action - self.anchor(history))

    def decode(self, x: Float[Tensor, "b t a"], history: Float[Tensor, "b to d"]) -> Float[Tensor, "b t a"]:
        """Return samples of the chain as chunks in the contract's units, given the raw history; undoes `encode`."""
        return self.action_normalizer.denormalize(x) + self.anchor(history)

    def anchor(self, history: Float[Tensor, "b to d"]) -> Float[Tensor, "b 1 a"] | float:
        """Return where chunks count from: the hands' newest positions in the columns of the commanded ones, or 0."""
        return 0.0 if self.hands is None else history[:, -1:] @ self.hands

    def condition(
        self, history: Float[Tensor, "b to d"], features: Float[Tensor, "b f"] | None = None
    ) -> Float[Tensor, "b c"]:
        """Normalise and flatten an observation history, its quaternions written as rotation matrices' rows.

        Args:
            history: raw.
            features: what is seen in pictures beside it, appended as it is.
        """
        normalised = self.observation_normalizer.normalize(history)
        told = (self.rotations(normalised) if self.rotations else normalised).flatten(1)
        return told if features is None else torch.cat([told, features], dim=1)

    def sample(
        self,
        history: Float[Tensor, "b to d"],
        action: Float[Tensor, "b t a"],
        features: Float[Tensor, "b f"] | None = None,
    ) -> Sample:
        """Return raw histories and chunks, and what was seen, as what a chain is trained on: x, and the condition."""
        return Sample(self.encode(action, history), self.condition(history, features))

    @property
    def device(self) -> torch.device:
        """Where the statistics are."""
        return self.observation_normalizer.scale.device


def hands(contract: Contract) -> Float[Tensor, "d a"]:
    """Return the matrix from an observation to the hands' positions, in the columns of the commanded ones.

    Raises:
        ContractError: see `hand_columns`.
    """
    matrix = torch.zeros(contract.observation_dim, contract.action_dim)
    for observed, commanded in hand_columns(contract):
        matrix[observed, commanded] = 1.0
    return matrix


def _anchored_chunks(windows: "StreamedWindows", hands: Float[Tensor, "d a"]) -> Iterator[Tensor]:
    """Yield the windows' chunks (B, T * A), their positions from the newest observation's hand on."""
    for index in torch.arange(len(windows)).split(4096):
        batch = windows.gather(index)
        yield (batch.action - batch.observation[:, -1:] @ hands).flatten(1)


def condition_width(spec: PolicySpec, contract: Contract) -> int:
    """Count the numbers that a history becomes: a quaternion's four columns are six, its matrix's first two rows."""
    _require_places(spec.quaternions, contract)
    return spec.observation_steps * (contract.observation_dim + 2 * len(spec.quaternions))


def _rotations(quaternions: Sequence[int], contract: Contract) -> RotationRows | None:
    places = _require_places(quaternions, contract)
    return RotationRows(contract.observation_dim, places) if places else None


def _require_places(quaternions: Sequence[int], contract: Contract) -> list[int]:
    places = sorted(quaternions)
    gaps = [after - before for before, after in pairwise([*places, contract.observation_dim])]
    if places and (places[0] < 0 or min(gaps) < 4):
        raise ContractError(
            f"quaternions take four columns each of the {contract.observation_dim} of an observation, found {places}"
        )
    return places
