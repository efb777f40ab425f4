"""The settings of a training run; config/train.yaml composes them."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from lfm_policy.data import densities, tables
from lfm_policy.flow import Interpolant, Schedule, Solver, TimeLaw
from lfm_policy.flow.fit import Coupling, Mode
from lfm_policy.settings import Frozen
from lfm_policy.training.log import LogSettings
from lfm_policy.training.loop import OptimiserSettings


class WindowData(Frozen):
    """A prepared data set of demonstrations, cut into windows (Diffusion Policy's defaults)."""

    kind: Literal["windows"] = "windows"
    path: str
    horizon: int = Field(default=16, ge=1)
    observation_steps: int = Field(default=2, ge=1)
    action_steps: int = Field(default=8, ge=1)
    anchored: bool | Literal["auto"] = False
    """Predict positions from where the hand is, not in the world, and normalise each step of a chunk by itself: far
    easier to learn where the workspace is wide. auto: where the contract tells where the hand or the joints are."""
    observation_normalizer: Literal["standard", "scalar"] = "standard"
    """standard: per dimension; scalar: Diffusion Policy's one factor, which hides small motions from small networks."""
    rotation_rows: bool = False
    """Show networks the first two rows of a rotation matrix in the place of each quaternion of an observation, whose
    sign jumps; they are found in the data by their length."""
    blind: bool = False
    """Leave out the pictures of data that have some: what a policy owes to them is what it can do more than this."""
    resident: bool | None = None
    """Whether windows are held in memory (on the GPU of a GPU run) or read from disk; by their size when None."""


class DensityData(Frozen):
    """Samples of a density in the plane: an image's darkness, or an analytic one."""

    kind: Literal["density"] = "density"
    density: densities.Name | Literal["mask"]
    mask: str | None = None
    """The image file of density "mask"."""
    samples: int = Field(default=2_000_000, ge=1)
    """Training points."""
    test: int = Field(default=10_000, ge=2)
    """Points on which the negative log-likelihood is measured."""
    valid: int = Field(default=2_000, ge=2)
    """Other points, for choosing between settings."""
    normalizer: Literal["identity", "standard"] = "identity"

    @model_validator(mode="after")
    def _mask_or_analytic(self) -> "DensityData":
        if (self.density == "mask") != (self.mask is not None):
            raise ValueError(f"density 'mask', and no other, needs mask=FILE; found {self.density}, mask={self.mask}")
        return self


class TabularData(Frozen):
    """A table for density estimation, prepared as in MAF (Papamakarios et al. 2017)."""

    kind: Literal["tabular"] = "tabular"
    table: tables.Name
    path: str
    noise_seed: int = Field(default=0, ge=0)
    """Of the dequantisation of patches."""
    normalizer: Literal["identity", "standard", "whiten", "radial"] = "identity"
    test: int | None = Field(default=None, ge=2)
    """Points on which the negative log-likelihood is measured; all when None."""
    valid: int | None = Field(default=None, ge=2)
    probes: int | None = Field(default=None, ge=1)
    """Of Hutchinson's estimate of the divergence; exact when None."""


class ImageData(Frozen):
    """Square pictures, as vectors of their pixels in [-1, 1]."""

    kind: Literal["images"] = "images"
    path: str
    side: int = Field(ge=1)
    flips: bool = True
    """Learn mirrored pictures too."""
    generated: int = Field(default=2000, ge=2)
    """Pictures that Fréchet distances are measured on; published FIDs take 50,000."""
    inception: str | None = None
    """File of Inception's weights, for FID."""
    classifiers: str = "outputs/classifiers"
    """Folder of the small classifiers whose features stand in for Inception's; one a data set, shared by its runs."""
    classifier_steps: int = Field(default=1500, ge=1)
    """Updates of such a classifier."""


class FlowSettings(Frozen):
    """The chain and how it is fitted."""

    blocks: int = Field(default=4, ge=1)
    c: float = Field(default=0.15, gt=0)
    rho: float = Field(default=1.25, gt=0)
    spacing: Literal["geometric", "cosine"] = "geometric"
    """The OU steps: c ρ^(n-1), or those of `Schedule.cosine`, which takes `blocks` alone."""
    gammas: tuple[float, ...] | None = None
    """OU steps given one by one, in place of (blocks, c, rho)."""
    share: bool = False
    """One network, of the global flow's size, for all blocks; it also takes the block's index."""
    initial_diffusion: float = Field(default=0.0, ge=0)
    """OU time for which the training data are diffused first, for data without a density (Corollary 4.3)."""
    precondition: bool = False
    """Networks give velocities up to factors that know the schedule and data of unit variance."""
    interpolant: Interpolant = "linear"
    mode: Mode = "simulation_free"
    refine: float = Field(default=0.25, ge=0, le=1)
    """Share of the steps that mode "combined" spends on its sequential pass."""
    time_law: TimeLaw = TimeLaw()
    coupling: Coupling = "dependent"
    solver: Solver = Solver()
    diffusion: Literal["ddpm", "ddim"] | None = None
    """A diffusion model in the place of a flow with one block, as a baseline for policies."""

    def schedule(self) -> Schedule:
        """The block schedule of these settings."""
        if self.gammas is not None:
            return Schedule(self.gammas)
        cosine = self.spacing == "cosine"
        return Schedule.cosine(self.blocks) if cosine else Schedule.geometric(self.blocks, self.c, self.rho)

    @model_validator(mode="after")
    def _sharing_needs_all_blocks_at_once(self) -> "FlowSettings":
        if self.share and self.mode != "simulation_free":
            raise ValueError(
                f"share=true needs mode=simulation_free, found {self.mode}: fitting one block after another "
                "would spoil the ones before"
            )
        return self


class VisionSettings(Frozen):
    """How a policy learns to see: encoder and a head that is thrown away regress chunks, then the encoder stays."""

    encoder: dict[str, Any]
    """`_target_` and arguments of the encoder of one camera's pictures."""
    crop: int | None = Field(default=76, ge=1)
    """Height and width of the part of a picture that is seen, anywhere in training, in the middle afterwards."""
    steps: int = Field(ge=1)
    """Updates of encoder and head."""
    batch: int = Field(default=64, ge=1)
    hidden: int = Field(default=256, ge=1)
    """Width of the head."""
    optimiser: OptimiserSettings
    weights: str | None = None
    """A safetensors file with which each encoder begins, for example of a pretrained backbone."""
    trained: str | None = None
    """A policy whose encoders are taken as they are, so that methods are compared on the same features."""


class TrainSettings(Frozen):
    """One training run. The same settings and the same `out` continue an interrupted run."""

    name: str
    """What is trained, for reports: "robot/lift"."""
    method: str
    """How, for reports: "lfm", "fm" or "interflow"."""
    out: str
    seed: int = 0
    device: str = "auto"
    threads: int | None = Field(default=None, ge=1)
    """CPU threads of one operation."""
    parallel: int | None = Field(default=None, ge=1)
    """Blocks whose gradients are computed side by side, a thread each; as many as cores by default, one on a GPU."""
    ranks: Literal["batch", "blocks"] = "batch"
    """What the processes of torchrun share out: the rows of each batch, or the blocks."""
    data: Annotated[WindowData | DensityData | TabularData | ImageData, Field(discriminator="kind")]
    vision: VisionSettings | None = None
    """Of data with cameras."""
    network: dict[str, Any]
    global_network: dict[str, Any]
    """The one network with as many parameters as the whole chain: of one block, or shared by all."""
    flow: FlowSettings
    steps: int | None = Field(default=None, ge=1)
    epochs: float | None = Field(default=None, gt=0)
    """Passes over the samples; in place of `steps`."""
    batch: int = Field(default=256, ge=1)
    optimiser: OptimiserSettings
    checkpoint_seconds: float = Field(default=120, ge=0)
    snapshots: int = Field(default=0, ge=0)
    """Copies of the averaged model kept at equal distances along the run, for learning curves."""
    logging: LogSettings

    @model_validator(mode="after")
    def _one_length(self) -> "TrainSettings":
        if (self.steps is None) == (self.epochs is None):
            raise ValueError(
                f"give either steps or epochs and set the other to null, found steps={self.steps}, epochs={self.epochs}"
            )
        return self

    @model_validator(mode="after")
    def _diffusion_of_policies(self) -> "TrainSettings":
        if self.flow.diffusion and (self.flow.schedule().blocks != 1 or not isinstance(self.data, WindowData)):
            raise ValueError(
                f"flow.diffusion={self.flow.diffusion} is a baseline for policies with flow.blocks=1, found "
                f"{self.flow.schedule().blocks} blocks on {self.data.kind}"
            )
        return self

    @model_validator(mode="after")
    def _blocks_that_need_nothing_of_each_other(self) -> "TrainSettings":
        if self.ranks == "blocks" and (self.flow.mode != "simulation_free" or self.flow.share or self.snapshots):
            raise ValueError(
                "ranks=blocks needs flow.mode=simulation_free, flow.share=false and snapshots=0, found "
                f"{self.flow.mode}, {str(self.flow.share).lower()} and {self.snapshots}: use ranks=batch"
            )
        return self

    @property
    def block_network(self) -> dict[str, Any]:
        """The network of each block."""
        return self.global_network if self.flow.share or self.flow.schedule().blocks == 1 else self.network

    def updates(self, samples: int) -> int:
        """Updates of each block for a pool of `samples`."""
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None
        return max(1, round(self.epochs * samples / (self.batch * self.optimiser.accumulate)))

    def fingerprint(self) -> dict[str, Any]:
        """All that decides the trained weights, but for the data themselves."""
        others = ("out", "threads", "parallel", "ranks", "checkpoint_seconds", "snapshots", "logging")
        elsewhere: dict[str, Any] = dict.fromkeys(others, True)
        measured = {"test", "valid", "probes", "generated", "inception", "classifiers", "classifier_steps"}
        said = self.model_dump(mode="json", exclude=elsewhere | {"data": {"path", "resident"} | measured})
        if self.vision is None:  # runs from before there was sight go on
            del said["vision"]
        if not said["data"].get("blind", True):
            del said["data"]["blind"]
        return said
