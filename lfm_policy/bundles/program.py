"""The whole sampler as a torch module and as torch.export's program, and example inputs of its shapes."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from lfm_policy.bundles.onnx_policy import FRAMES, NOISE, OBSERVATIONS
from lfm_policy.errors import ConfigError
from lfm_policy.models.policy import LFMPolicy
from lfm_policy.models.sight import Frames

BATCH = Dim("batch", min=1, max=4096)


class Sampler(nn.Module):
    """A policy's chunks as a pure function of observations, noise, and pictures where it has cameras.

    Raises:
        ConfigError: the number of steps is not fixed, or the sampler draws more noise on its way.
    """

    def __init__(self, policy: LFMPolicy) -> None:
        super().__init__()
        require_fixed(policy)
        self.policy = policy

    def forward(
        self, observations: Float[Tensor, "b to d"], noise: Float[Tensor, "b t a"], frames: Frames | None = None
    ) -> Float[Tensor, "b t a"]:
        features = self.policy.sight(frames) if self.policy.sight else None
        condition = self.policy.condition(observations, features)
        passage = self.policy.chain.to_data(self.policy.latent(noise), condition)
        return self.policy.encoding.decode(passage.x, observations)


def require_fixed(policy: LFMPolicy) -> None:
    """Refuse a policy whose sampler is no fixed sequence of network evaluations.

    Raises:
        ConfigError: see above.
    """
    if policy.chain.solver.method == "dopri5":
        raise ConfigError(
            "dopri5 chooses its steps while it runs, which a graph cannot: "
            "export with solver.method=euler (or gaussian, midpoint, heun, rk4) and solver.steps=K, or without graphs, "
            "onnx=[]"
        )
    if policy.spec.chain.objective in ("ddpm", "ddim"):
        raise ConfigError("diffusion baselines are there to compare with: export them without graphs, onnx=[]")


def example(policy: LFMPolicy, batch: int = 2) -> tuple[Tensor, ...]:
    """Draw random observations, noise and, where it has cameras, pictures of the policy's shapes."""
    generator = torch.Generator().manual_seed(0)
    history = (batch, policy.observation_steps, policy.contract.observation_dim)
    inputs = torch.randn(history, generator=generator), torch.randn((batch, *policy.noise_shape), generator=generator)
    if policy.contract.frames_shape is None:
        return inputs
    frames = torch.randint(256, (batch, *policy.contract.frames_shape), generator=generator, dtype=torch.uint8)
    return (*inputs, frames)


@torch.no_grad()
def condition_of(policy: LFMPolicy) -> Tensor:
    """Return the condition (2, C) under the example's inputs."""
    histories, _, *frames = example(policy)
    return policy.condition(histories, policy.see(frames[0] if frames else None))


def program(policy: LFMPolicy) -> ExportedProgram:
    """Return torch.export's program of the sampler, for any batch.

    It is not stored: a .pt2 archive keeps its example inputs as a pickle, and torch.export.load falls back to
    unrestricted unpickling.
    """
    inputs = example(policy)
    shapes: dict[str, Any] = dict(zip((OBSERVATIONS, NOISE, FRAMES), [{0: BATCH}] * len(inputs), strict=False))
    with torch.no_grad():
        return torch.export.export(Sampler(policy).eval(), inputs, dynamic_shapes=shapes)
