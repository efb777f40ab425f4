"""A density model of vectors: a normaliser and a chain; the unconditional sibling of `LFMPolicy`."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from lfm_policy.data.normalizers.affine import AffineNormalizer
from lfm_policy.data.normalizers.radial import RadialNormalizer
from lfm_policy.data.normalizers.whitening import WhiteningNormalizer
from lfm_policy.flow import Hutchinson, Solver, log_prob
from lfm_policy.flow.chain import Transport
from lfm_policy.flow.likelihood import Likelihood
from lfm_policy.models.pretrained import Pretrained, digest
from lfm_policy.models.spec import FlowSpec, NormalizerKind

NORMALIZERS: Mapping[NormalizerKind, type[AffineNormalizer]] = {
    "affine": AffineNormalizer,
    "whitening": WhiteningNormalizer,
    "radial": RadialNormalizer,
}


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
        self.chain = spec.chain.build(self.networks(spec, trust_code=trust_code)["chain.blocks"])
        self.normalizer = NORMALIZERS[spec.normalizer](spec.dim)

    @classmethod
    def networks(cls, spec: FlowSpec, *, trust_code: bool) -> dict[str, Any]:
        """See `Pretrained.networks`: those of the blocks."""
        return {"chain.blocks": spec.chain.networks(trust_code=trust_code, dim=spec.dim)}

    @classmethod
    def made(cls, parts: Sequence[Any], tensors: Mapping[str, Tensor], where: str, *, trust_code: bool) -> "FlowModel":
        """See `Pretrained.made`."""
        (spec,) = parts
        return cls(spec, trust_code=trust_code)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.normalizer.scale.device

    @torch.no_grad()
    def sample(self, noise: Float[Tensor, "b dim"], solver: Solver | None = None) -> Transport:
        """Return samples (B, dim) from standard normal noise, and the network evaluations that each took."""
        passage = self.chain.to_data(noise, solver=solver)
        return replace(passage, x=self.normalizer.denormalize(passage.x))

    @torch.no_grad()
    def trajectory(self, noise: Float[Tensor, "b dim"], pieces: int = 1) -> list[Tensor]:
        """Return the way from noise to data: the noise, then the state after each of `pieces` parts of each block."""
        return [self.normalizer.denormalize(x) for x in self.chain.trajectory(noise, pieces=pieces)]

    def log_prob(
        self, x: Float[Tensor, "b dim"], solver: Solver | None = None, estimator: Hutchinson | None = None
    ) -> Likelihood:
        """Return log-densities of x (B, dim), the normaliser's change of volume included; see `flow.log_prob`."""
        likelihood = log_prob(self.chain, self.normalizer.normalize(x), solver=solver, estimator=estimator)
        return replace(likelihood, log_prob=likelihood.log_prob + self.normalizer.log_det(x))

    def digest(self) -> str:
        """Hash of all that decides what the model does: specification and weights."""
        return digest(self.spec.described(), self)
