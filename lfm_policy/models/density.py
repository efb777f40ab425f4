"""A density model of vectors: a normaliser and a chain; the unconditional sibling of `LFMPolicy`."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from lfm_policy import networks
from lfm_policy.data.normalizers.affine import AffineNormalizer
from lfm_policy.data.normalizers.radial import RadialNormalizer
from lfm_policy.data.normalizers.whitening import WhiteningNormalizer
from lfm_policy.flow import FlowChain, Hutchinson, Interpolant, Schedule, Solver, log_prob
from lfm_policy.flow.chain import Transport
from lfm_policy.flow.likelihood import Likelihood
from lfm_policy.models.pretrained import Pretrained, digest
from lfm_policy.settings import Frozen

FORMAT = "lfm-flow/1"

NormalizerKind = Literal["affine", "whitening", "radial"]
NORMALIZERS: Mapping[NormalizerKind, type[AffineNormalizer]] = {
    "affine": AffineNormalizer,
    "whitening": WhiteningNormalizer,
    "radial": RadialNormalizer,
}


class FlowSpec(Frozen):
    """Everything that shapes a flow model except its weights; the content of config.json."""

    format: Literal["lfm-flow/1"] = FORMAT
    dim: int = Field(ge=1)
    """Width of the vectors."""
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
    """OU time δ for which the data were diffused; the density is that of x + sqrt(e^{2δ} - 1) z in normalised units."""
    normalizer: NormalizerKind = "affine"
    """Which map the data are normalised by."""

    @model_validator(mode="before")
    @classmethod
    def _earlier(cls, values: Any) -> Any:
        """Specifications written before there were three kinds say whether it is whitening."""
        if isinstance(values, dict) and "whitened" in values:
            kept = {key: value for key, value in values.items() if key != "whitened"}
            return {"normalizer": "whitening" if values["whitened"] else "affine"} | kept
        return values


class FlowModel(Pretrained):
    """A Local Flow Matching density over vectors (B, dim), in the data's own units.

    Args:
        spec: schedule, solver and network.
        trust_code: allow a network class from outside this package.
    """

    kind = "flow model"
    descriptions: ClassVar = {"config.json": FlowSpec}
    spec: FlowSpec

    def __init__(self, spec: FlowSpec, *, trust_code: bool = True) -> None:
        super().__init__()
        self.spec = spec
        schedule = Schedule(spec.gammas)
        blocks = networks.build_blocks(
            spec.network, schedule.blocks, share=spec.share, own_only=not trust_code, dim=spec.dim
        )
        self.chain = FlowChain(blocks, schedule, spec.interpolant, spec.solver, spec.precondition)
        self.normalizer = NORMALIZERS[spec.normalizer](spec.dim)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.normalizer.scale.device

    @torch.no_grad()
    def sample(self, noise: Float[Tensor, "b dim"], solver: Solver | None = None) -> Transport:
        """Samples (B, dim) from standard normal noise, and the network evaluations that each took."""
        passage = self.chain.to_data(noise, solver=solver)
        return replace(passage, x=self.normalizer.denormalize(passage.x))

    @torch.no_grad()
    def trajectory(self, noise: Float[Tensor, "b dim"], pieces: int = 1) -> list[Tensor]:
        """The way from noise to data: the noise, then the state after each of `pieces` parts of each block."""
        return [self.normalizer.denormalize(x) for x in self.chain.trajectory(noise, pieces=pieces)]

    def log_prob(
        self, x: Float[Tensor, "b dim"], solver: Solver | None = None, estimator: Hutchinson | None = None
    ) -> Likelihood:
        """Log-densities of x (B, dim), the normaliser's change of volume included; see `flow.log_prob`."""
        likelihood = log_prob(self.chain, self.normalizer.normalize(x), solver=solver, estimator=estimator)
        return replace(likelihood, log_prob=likelihood.log_prob + self.normalizer.log_det(x))

    def digest(self) -> str:
        """Hash of all that decides what the model does: specification and weights."""
        return digest(self.spec.model_dump_json(exclude_defaults=True), self)
