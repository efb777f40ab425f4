"""The settings of a training run, described once: `lfm train --help` prints them, presets give them values."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from lfm_policy.choices import (
    BetaLaw,
    Coupling,
    Interpolant,
    Mode,
    Objective,
    Place,
    Solver,
)
from lfm_policy.errors import ConfigError
from lfm_policy.models.spec import ChainSpec
from lfm_policy.settings import Frozen
from lfm_policy.training.experiments.data_settings import DensityData, ImageData, TabularData, WindowData
from lfm_policy.training.log import LogSettings
from lfm_policy.training.settings import OptimiserSettings

if TYPE_CHECKING:
    from lfm_policy.flow import Schedule


class FlowSettings(Frozen):
    """The chain and how it is fitted."""

    blocks: int = Field(default=4, ge=1, description="N, blocks of the chain")
    c: float = Field(default=0.15, gt=0, description="first OU step; the n-th is c rho^(n-1)")
    rho: float = Field(default=1.25, gt=0, description="ratio of one OU step to the one before")
    spacing: Literal["geometric", "cosine", "auto"] = Field(
        default="geometric",
        description="OU steps from c and rho; cosine: from the number of blocks alone; auto: as much error times angle "
        "in each block, after a pilot of a tenth of the updates",
    )
    gammas: tuple[float, ...] | None = Field(
        default=None, description="OU steps one by one in place of blocks, c and rho: [0.1,0.2] for three blocks"
    )
    share: bool = Field(
        default=False,
        description="one network, of the global flow's size, for all blocks; it also takes their index, and blocks "
        "share each batch out: an update costs as much as one of the chain",
    )
    initial_diffusion: float = Field(
        default=0.0,
        ge=0,
        description="OU time for which data without a density are diffused first (Corollary 4.3)",
    )
    precondition: bool = Field(
        default=False,
        description="networks give what the best linear guess for normalised data leaves of the velocity",
    )
    interpolant: Interpolant = Field(default="linear", description="where x_t lies inside a block")
    mode: Mode = Field(
        default="simulation_free",
        description="sequential: Algorithm 1, one block after another; simulation_free: all blocks at once; combined",
    )
    refine: float = Field(
        default=0.25, ge=0, le=1, description="share of the updates in the sequential pass of mode combined"
    )
    time_law: BetaLaw = BetaLaw()
    coupling: Coupling = Field(
        default="dependent", description="a block's right end is the OU step of its left end, of another's, of a new"
    )
    solver: Solver = Solver()
    objective: Objective = Field(
        default="flow", description="what networks learn: a flow's velocities, or a baseline with one block; see method"
    )

    def schedule(self) -> "Schedule":
        """Return the block schedule of these settings.

        Raises:
            ConfigError: a pilot is to choose it, and has not.
        """
        from lfm_policy.flow import Schedule  # torch, which asking for help should not wait for

        if self.gammas is not None:
            return Schedule(self.gammas)
        if self.spacing == "auto":
            raise ConfigError("flow.spacing=auto chooses its OU steps in a training run: there are none before it")
        cosine = self.spacing == "cosine"
        return Schedule.cosine(self.blocks) if cosine else Schedule.geometric(self.blocks, self.c, self.rho)

    @property
    def count(self) -> int:
        """Blocks of the chain."""
        return self.blocks if self.gammas is None else len(self.gammas) + 1

    @model_validator(mode="before")
    @classmethod
    def _earlier(cls, values: Any) -> Any:
        """Take the records of runs from before there was more than flows and diffusion models."""
        if not isinstance(values, Mapping) or "diffusion" not in values:
            return values
        return {"objective": values["diffusion"] or "flow"} | {k: v for k, v in values.items() if k != "diffusion"}

    @model_validator(mode="after")
    def _steps_of_blocks_there_are(self) -> "FlowSettings":
        self.solver.require_blocks(self.count)
        return self

    @model_validator(mode="after")
    def _sharing_needs_all_blocks_at_once(self) -> "FlowSettings":
        if self.share and self.mode != "simulation_free":
            raise ValueError(
                f"share=true needs mode=simulation_free, found {self.mode}: fitting one block after another "
                "would spoil the ones before"
            )
        return self


class VisionSettings(Frozen):
    """How a policy learns to see: encoder and a head that is thrown away regress chunks, then the encoder stays; or
    jointly with the chain.
    """

    encoder: dict[str, Any] = Field(
        description="encoder of one camera's pictures: {_target_: package.module.Class, argument: value}"
    )
    crop: int | None = Field(
        default=76,
        ge=1,
        description="side of the part of pictures that is seen: anywhere in training, then the middle",
    )
    joint: bool = Field(
        default=False,
        description="encoders learn with the chain, from the gradients of all its blocks, as in Diffusion Policy: each "
        "update pays for the pictures, which is for GPUs; the settings below are then not used, but for weights",
    )
    updates: int = Field(ge=1, description="updates of encoder and head")
    batch: int = Field(default=64, ge=1, description="pictures of each camera in one update")
    hidden: int = Field(default=256, ge=1, description="width of the head")
    optimiser: OptimiserSettings = OptimiserSettings()
    weights: Place | None = Field(
        default=None, description="a safetensors file that each encoder begins with, such as a pretrained backbone's"
    )
    trained: Place | None = Field(
        default=None, description="a run whose encoders are taken as they are, to compare methods on the same features"
    )


class TrainSettings(Frozen):
    """One training run. The same settings and the same `out` continue an interrupted run."""

    EITHER: ClassVar = ("updates", "epochs")
    """Giving one of these takes the place of the other."""

    out: Place = Field(description="folder of the run; the same settings and folder continue an interrupted one")
    name: str = Field(description="what is trained, for reports; the experiment says it")
    method: str = Field(description="how, for reports; the preset of that name says it")
    seed: int = Field(default=0, ge=0, lt=2**63, description="decides weights, batches and noise")
    updates: int | None = Field(default=None, ge=1, description="updates of each block; or say epochs")
    epochs: float | None = Field(default=None, gt=0, description="passes over the samples; in place of updates")
    batch: int = Field(default=256, ge=1, description="samples of one update")
    device: str = Field(default="auto", description="cpu, cuda, cuda:1, mps; auto: a GPU where there is one")
    threads: int | None = Field(
        default=1,
        ge=1,
        description="CPU threads of one operation; more than one pays only on idle cores; null: torch's own choice",
    )
    parallel: int | None = Field(
        default=None,
        ge=1,
        description="blocks whose gradients are computed side by side, a thread each; null: as many as cores, one on "
        "a GPU",
    )
    ranks: Literal["batch", "blocks"] = Field(
        default="batch", description="what processes of torchrun share: each batch's rows, or the blocks"
    )
    checkpoint_seconds: float = Field(default=120, ge=0, description="shortest time between two checkpoints [s]")
    initial_weights: Place | None = Field(
        default=None,
        description="a policy to begin with: its averaged weights and normalisers; contract and network must be these",
    )
    snapshots: int = Field(
        default=0,
        ge=0,
        description="copies of the averaged model kept at equal distances along the run, for lfm learning_curve",
    )
    data: Annotated[WindowData | DensityData | TabularData | ImageData, Field(discriminator="kind")]
    vision: VisionSettings | None = Field(
        default=None, description="how to learn to see, of data with cameras; experiment=robot_image/... says it"
    )
    network: dict[str, Any] = Field(
        description="network of each block: {_target_: package.module.Class, argument: value}"
    )
    global_network: dict[str, Any] = Field(
        description="the one network with as many parameters as the chain: of one block, or shared by all"
    )
    flow: FlowSettings = FlowSettings()
    optimiser: OptimiserSettings = OptimiserSettings()
    logging: LogSettings = LogSettings()

    @model_validator(mode="after")
    def _one_length(self) -> "TrainSettings":
        if (self.updates is None) == (self.epochs is None):
            raise ValueError(
                "give either updates or epochs and set the other to null, found "
                f"updates={self.updates}, epochs={self.epochs}"
            )
        return self

    @model_validator(mode="after")
    def _baselines_of_policies(self) -> "TrainSettings":
        if self.flow.objective != "flow" and (self.flow.count != 1 or not isinstance(self.data, WindowData)):
            raise ValueError(
                f"flow.objective={self.flow.objective} is a baseline for policies with flow.blocks=1, found "
                f"{self.flow.count} blocks on {self.data.kind}"
            )
        return self

    @model_validator(mode="after")
    def _enough_to_share_out(self) -> "TrainSettings":
        if self.flow.share and self.batch < self.flow.count:
            raise ValueError(
                f"flow.share=true shares a batch out among the blocks: expected batch of at least {self.flow.count}, "
                f"found {self.batch}"
            )
        return self

    @model_validator(mode="after")
    def _weights_of_policies(self) -> "TrainSettings":
        if self.initial_weights is not None and not isinstance(self.data, WindowData):
            raise ValueError(f"initial_weights is for policies, found data of kind {self.data.kind}: leave it null")
        return self

    @model_validator(mode="after")
    def _blocks_that_need_nothing_of_each_other(self) -> "TrainSettings":
        if self.ranks == "blocks" and (self.flow.mode != "simulation_free" or self.flow.share or self.snapshots):
            raise ValueError(
                "ranks=blocks needs flow.mode=simulation_free, flow.share=false and snapshots=0, found "
                f"{self.flow.mode}, {str(self.flow.share).lower()} and {self.snapshots}: use ranks=batch"
            )
        return self

    @model_validator(mode="after")
    def _gradients_of_all_blocks(self) -> "TrainSettings":
        if not (self.vision and self.vision.joint):
            return self
        apart = {
            "flow.mode": (self.flow.mode, "simulation_free"),
            "flow.initial_diffusion": (self.flow.initial_diffusion, 0),
            "ranks": (self.ranks, "batch"),
            "optimiser.compiled": (self.optimiser.compiled, False),
            "vision.trained": (self.vision.trained, None),
        }
        wrong = [f"{name}={found} (not {needed})" for name, (found, needed) in apart.items() if found != needed]
        if wrong:
            raise ValueError(f"vision.joint=true trains encoders and all blocks at once, found {', '.join(wrong)}")
        return self

    @property
    def block_network(self) -> dict[str, Any]:
        """The network of each block."""
        return self.global_network if self.flow.share or self.flow.count == 1 else self.network

    @property
    def chain(self) -> ChainSpec:
        """The chain that is trained."""
        flow = self.flow
        return ChainSpec(
            gammas=flow.schedule().gammas,
            interpolant=flow.interpolant,
            solver=flow.solver,
            network=self.block_network,
            share=flow.share,
            precondition=flow.precondition and flow.objective in ("flow", "shortcut"),
            initial_diffusion=flow.initial_diffusion,
            objective=flow.objective,
        )

    def updates_of(self, samples: int) -> int:
        """Return the updates of each block for a pool of `samples`."""
        if self.updates is not None:
            return self.updates
        assert self.epochs is not None
        return max(1, round(self.epochs * samples / (self.batch * self.optimiser.accumulate)))

    def fingerprint(self) -> dict[str, Any]:
        """Return all that decides the trained weights, but for the data themselves."""
        others = (
            "out",
            "threads",
            "parallel",
            "ranks",
            "checkpoint_seconds",
            "snapshots",
            "logging",
            "initial_weights",
        )
        elsewhere: dict[str, Any] = dict.fromkeys(others, True)
        measured = {"test", "valid", "probes", "generated", "inception", "classifiers", "classifier_steps"}
        said = self.model_dump(mode="json", exclude=elsewhere | {"data": {"path", "resident"} | measured})
        if self.vision is None:  # runs from before there was sight go on
            del said["vision"]
        if not said["data"].get("blind", True):
            del said["data"]["blind"]
        if said["data"].get("deviation") == 1:
            del said["data"]["deviation"]
        if self.flow.objective == "flow":  # as runs from before there were other baselines say it
            said["flow"] = {"diffusion" if k == "objective" else k: v for k, v in said["flow"].items()}
            said["flow"]["diffusion"] = None
        return said
