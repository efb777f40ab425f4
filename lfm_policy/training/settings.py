"""What trainings of every kind share: the optimiser's settings."""

from typing import Literal

from pydantic import Field

from lfm_policy.settings import Frozen


class StepDecay(Frozen):
    """The learning rate times `factor` after `every` steps, again and again."""

    factor: float = Field(gt=0, le=1, description="what the learning rate is multiplied by, again and again")
    every: int = Field(ge=1, description="updates between two decays")


class OptimiserSettings(Frozen):
    """AdamW with warm-up and decay in every phase; Diffusion Policy's values by default."""

    learning_rate: float = Field(default=1e-4, gt=0, description="AdamW's learning rate after the warm-up")
    betas: tuple[float, float] = Field(
        default=(0.95, 0.999), description="AdamW's averages of gradients and of their squares"
    )
    eps: float = Field(default=1e-8, description="what AdamW adds to the denominator")
    weight_decay: float = Field(default=1e-6, description="AdamW's decay of the weights")
    warmup_steps: int = Field(default=500, ge=0, description="updates in which the learning rate rises from 0")
    step_decay: StepDecay | None = Field(
        default=None, description="in place of half a cosine down to 0: {factor: 0.99, every: 1000}"
    )
    gradient_clip: float | None = Field(
        default=None, gt=0, description="largest norm of one block's gradient; null: none"
    )
    accumulate: int = Field(default=1, ge=1, description="batches whose gradients are averaged in one update")
    ema_power: float = Field(default=0.75, description="how fast the moving average of the weights slows down")
    ema_max_decay: float = Field(default=0.9999, description="largest decay of the moving average; 0: no average")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        default="auto", description="auto: bf16 on GPUs that have it, fp32 elsewhere"
    )
    compiled: bool = Field(
        default=False,
        description="all blocks of an update in one compiled call, on GPUs a CUDA graph: more memory, other rounding",
    )
