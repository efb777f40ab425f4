"""The settings of a distillation, described once."""

from typing import Any, ClassVar

from pydantic import Field

from lfm_policy.choices import Place, PolicyChoice, Sampling, StoreChoice, Target
from lfm_policy.training.log import LogSettings
from lfm_policy.training.settings import OptimiserSettings


class DistillSettings(Sampling, PolicyChoice):
    """One distillation: `policy` is the teacher. The same settings and the same `out` continue an interrupted run."""

    blocks: int = Field(
        ge=1,
        description="N', a divisor of the teacher's N: the student's evaluations per sample; "
        "a teacher of one block is divided into as many parts",
    )
    out: Place = Field(description="folder of the run; the same settings and folder continue an interrupted one")
    data: StoreChoice = Field(
        default=StoreChoice(), description="whose observations are used; null: those that the teacher's run names"
    )
    target: Target = Field(default="trajectory", description="trajectory is the paper's regression")
    grow: bool = Field(
        default=True, description="N' = N / k: k times the parameters in each block; false: the teacher's size"
    )
    cached: int | None = Field(
        default=None, ge=1, description="trajectories made once and kept in zarr; null: fresh ones for every update"
    )
    cache: Place | None = Field(
        default=None, description="their folder, for several runs to share; null: trajectories.zarr in out"
    )
    seed: int = Field(default=0, ge=0, lt=2**63, description="decides new weights, noise and batches")
    updates: int = Field(default=1000, ge=1, description="updates of each block")
    batch: int = Field(default=256, ge=1, description="trajectories of one update")
    device: str = Field(default="auto", description="cpu, cuda, cuda:1, mps; auto: a GPU where there is one")
    threads: int | None = Field(default=1, ge=1, description="CPU threads of one operation; null: torch's own choice")
    parallel: int | None = Field(
        default=None,
        ge=1,
        description="blocks trained side by side, one thread each; null: as many as cores, 1 on GPUs",
    )
    optimiser: OptimiserSettings = OptimiserSettings(learning_rate=3e-4, warmup_steps=50, ema_max_decay=0.999)
    checkpoint_seconds: float = Field(default=120, ge=0, description="shortest time between two checkpoints [s]")
    logging: LogSettings = LogSettings()
    conditions: int = Field(
        default=64, ge=1, description="held-out observations at which student and teacher are compared"
    )
    draws: int = Field(
        default=16, ge=2, description="samples of each at each observation (16 x as many where there is none)"
    )
    episodes: int = Field(default=0, ge=0, description="rollouts of student and teacher on the same seeds; 0: none")
    episodes_seed: int = Field(default=200_000, ge=0, description="the first of these seeds")
    workers: int = Field(default=2, ge=1, description="processes that hold an environment each")

    DECIDES: ClassVar = frozenset({"blocks", "target", "grow", "cached", "seed", "updates", "batch", "optimiser"})

    @property
    def name(self) -> str:
        """The run's, for logs."""
        blocks = "1 block" if self.blocks == 1 else f"{self.blocks} blocks"
        return f"{blocks} from {self.policy.rstrip('/').rsplit('/', 1)[-1]}"

    def fingerprint(self) -> dict[str, Any]:
        """Return all that decides the student's weights, but for teacher and data."""
        return self.model_dump(mode="json", include=set(self.DECIDES))
