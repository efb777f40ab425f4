"""What a run is trained on: a record for each kind of data, told apart by `data.kind`."""

from typing import Literal

from pydantic import Field, model_validator

from lfm_policy.choices import AnalyticDensity, Place, TableName
from lfm_policy.settings import Frozen


class WindowData(Frozen):
    """A prepared data set of demonstrations, cut into windows (Diffusion Policy's defaults)."""

    kind: Literal["windows"] = "windows"
    path: Place = Field(description="prepared data set (lfm prepare)")
    horizon: int = Field(default=16, ge=1, description="T, actions in a chunk")
    observation_steps: int = Field(default=2, ge=1, description="To, observations that a chunk is conditioned on")
    action_steps: int = Field(default=8, ge=1, description="Ta, actions executed of a chunk")
    anchored: bool | Literal["auto"] = Field(
        default=False,
        description="positions count from where the hand is, not in the world, and each step of a chunk is normalised "
        "by itself: far fewer updates are needed where the workspace is wide; auto: where the contract tells where "
        "hand or joints are",
    )
    observation_normalizer: Literal["standard", "scalar"] = Field(
        default="standard",
        description="standard: per dimension; scalar: Diffusion Policy's one factor, which hides small motions from "
        "small networks",
    )
    rotation_rows: bool = Field(
        default=False,
        description="networks see the first two rows of a rotation matrix in the place of each quaternion of an "
        "observation, whose sign jumps; quaternions are found in the data by their length",
    )
    blind: bool = Field(
        default=False,
        description="leave out the pictures of data that have some: the twin of a policy with cameras",
    )
    resident: bool | None = Field(
        default=None,
        description="true: all windows in memory (on the GPU of a GPU run); false: read from disk when drawn, the same "
        "bits; null: by their size (2 GiB)",
    )


class DensityData(Frozen):
    """Samples of a density in the plane: an image's darkness, or an analytic one."""

    kind: Literal["density"] = "density"
    density: AnalyticDensity | Literal["mask"] = Field(description="mask is the darkness of an image")
    mask: Place | None = Field(default=None, description="the image file of density=mask")
    samples: int = Field(default=2_000_000, ge=1, description="training points")
    test: int = Field(default=10_000, ge=2, description="points on which the negative log-likelihood is measured")
    valid: int = Field(default=2_000, ge=2, description="other points, for choosing between settings")
    normalizer: Literal["identity", "standard"] = Field(default="identity", description="standard: per dimension")

    @model_validator(mode="after")
    def _mask_or_analytic(self) -> "DensityData":
        if (self.density == "mask") != (self.mask is not None):
            raise ValueError(f"density 'mask', and no other, needs mask=FILE; found {self.density}, mask={self.mask}")
        return self


class TabularData(Frozen):
    """A table for density estimation, prepared as in MAF (Papamakarios et al. 2017)."""

    kind: Literal["tabular"] = "tabular"
    table: TableName = Field(description="decides the preparation")
    path: Place = Field(description="its file: .npy, .csv, .hdf5; for bsds300 also grey patches in .npz")
    noise_seed: int = Field(default=0, ge=0, description="decides the noise that makes patches continuous")
    normalizer: Literal["identity", "standard", "whiten", "radial"] = Field(
        default="identity",
        description="standard: per dimension; whiten: principal axes, each to deviation 1; radial: whiten, then "
        "lengths as Gaussian vectors have them",
    )
    test: int | None = Field(
        default=None, ge=2, description="points on which the negative log-likelihood is measured; null: all"
    )
    valid: int | None = Field(default=None, ge=2, description="validation points to use; null: all")
    probes: int | None = Field(
        default=None, ge=1, description="random vectors in Hutchinson's estimate of the divergence; null: exact"
    )


class ImageData(Frozen):
    """Square pictures, as vectors of their pixels in [-1, 1]."""

    kind: Literal["images"] = "images"
    path: Place = Field(
        description=".npz with train_x (N, H, W, 3), CIFAR-10's binary version, or a folder of pictures"
    )
    side: int = Field(ge=1, description="height and width [pixels]")
    flips: bool = Field(default=True, description="learn mirrored pictures too")
    deviation: float = Field(
        default=1.0,
        gt=0,
        description="what pixels in [-1, 1] are divided by: flow.precondition expects a variance of 1",
    )
    generated: int = Field(
        default=2000,
        ge=2,
        description="pictures that Fréchet distances are measured on; published FIDs take 50,000",
    )
    inception: Place | None = Field(default=None, description="file of Inception's weights, for FID")
    classifiers: Place = Field(
        default="outputs/classifiers",
        validate_default=True,
        description="folder of the small classifiers whose features stand in for Inception's; one per data set, shared "
        "by its runs",
    )
    classifier_steps: int = Field(default=1500, ge=1, description="updates of such a classifier")
