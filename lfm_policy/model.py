"""A density model of vectors: an affine normaliser and a chain; the unconditional sibling of `LFMPolicy`."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from pydantic import Field, ValidationError
from safetensors.torch import save_file
from torch import Tensor, nn

from lfm_policy import networks
from lfm_policy.data.contract import Frozen
from lfm_policy.data.normalize import AffineNormalizer
from lfm_policy.data.whiten import WhiteningNormalizer
from lfm_policy.errors import CheckpointError
from lfm_policy.files import atomic_directory, read_json
from lfm_policy.flow import FlowChain, Hutchinson, Interpolant, Schedule, Solver, log_prob
from lfm_policy.flow.chain import Transport
from lfm_policy.flow.likelihood import Likelihood
from lfm_policy.pretrained import Weights, checkpoint_in, digest, load_weights

FORMAT = "lfm-flow/1"


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
    initial_diffusion: float = Field(default=0.0, ge=0)
    """OU time δ for which the data were diffused; the density is that of x + sqrt(e^{2δ} - 1) z in normalised units."""
    whitened: bool = False
    """Normalised in the data's principal axes."""


class FlowModel(nn.Module):
    """A Local Flow Matching density over vectors (B, dim), in the data's own units.

    Args:
        spec: schedule, solver and network.
        trust_code: allow a network class from outside this package.
    """

    def __init__(self, spec: FlowSpec, *, trust_code: bool = True) -> None:
        super().__init__()
        self.spec = spec
        schedule = Schedule(spec.gammas)
        blocks = networks.build_blocks(
            spec.network, schedule.blocks, share=spec.share, own_only=not trust_code, dim=spec.dim
        )
        self.chain = FlowChain(blocks, schedule, spec.interpolant, spec.solver)
        self.normalizer = (WhiteningNormalizer if spec.whitened else AffineNormalizer)(spec.dim)

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
        return replace(likelihood, log_prob=likelihood.log_prob + self.normalizer.scale.log().sum())

    def digest(self) -> str:
        """Hash of all that decides what the model does: specification and weights."""
        return digest(self.spec.model_dump_json(exclude_defaults=True), self)

    def save_pretrained(self, directory: str | Path) -> None:
        """Write config.json and model.safetensors, atomically."""
        with atomic_directory(directory) as temporary:
            self.write(temporary)

    def write(self, directory: Path) -> None:
        """Write the files of `save_pretrained` into an existing directory."""
        spec = self.spec.model_dump(mode="json") | {"solver": asdict(self.spec.solver)}
        (directory / "config.json").write_text(json.dumps(spec, indent=2) + "\n")
        save_file(self.state_dict(), directory / "model.safetensors")

    @classmethod
    def from_pretrained(
        cls,
        directory: str | Path,
        *,
        weights: Weights = "ema",
        device: torch.device | str = "cpu",
        trust_code: bool = False,
    ) -> "FlowModel":
        """Load a checkpoint or the output of `save_pretrained`, in evaluation mode.

        Args:
            directory: the checkpoint, or the folder of a run that holds one.
            weights: the moving average (where there is one) or the weights as trained.
            device: where to put the model.
            trust_code: allow a network class from outside this package.

        Raises:
            CheckpointError: a file is missing, damaged, or does not fit the others.
        """
        directory = checkpoint_in(directory)
        try:
            spec = FlowSpec.model_validate(read_json(directory / "config.json"))
        except (ValidationError, json.JSONDecodeError) as error:
            raise CheckpointError(f"{directory} holds no flow model that can be read: {error}") from None
        model = cls(spec, trust_code=trust_code)
        load_weights(model, directory, weights)
        return model.to(device).eval()
