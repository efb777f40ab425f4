"""Pictures of image runs: `lfm report_images runs=[outputs/lfm,outputs/fm] out=outputs/report`.

Grids of samples from the same noise, the way from noise to pictures, Fréchet distances; `students=[…]` shows what
lfm distill made of the first run beside it.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from rich.console import Console
from rich.table import Table
from torch import Tensor

from lfm_cli import command_line as _cli
from lfm_policy.data.images import as_pictures, load_images
from lfm_policy.errors import CheckpointError, ConfigError
from lfm_policy.files import atomic_file, names_apart, read_json, write_json
from lfm_policy.flow import Solver
from lfm_policy.models.density import FlowModel
from lfm_policy.settings import Frozen, parse
from lfm_policy.training.experiments.images import NOISE_SEED, generated, image_report
from lfm_policy.training.experiments.settings import ImageData

MEASURED = ("generated", "nfe_sample", "classifier_", "fid")
"""Beginnings of the names in `image_report`."""


class Settings(Frozen):
    """Settings of config/report_images.yaml."""

    runs: tuple[Path, ...] = Field(min_length=1)
    students: tuple[Path, ...]
    out: Path
    path: str | None
    columns: int = Field(ge=1)
    states: int = Field(ge=2)
    pieces: int = Field(ge=1)
    solver: Solver | None
    threads: int = Field(ge=1)


def main(settings: Settings) -> None:
    """Draw and measure, write summary.json."""
    torch.set_num_threads(settings.threads)
    data = data_of(settings)
    images = load_images(data.path, data.side)
    shape, columns = images.train.shape[1:], settings.columns
    noise = torch.randn(columns**2, images.train[0].numel(), generator=torch.Generator().manual_seed(NOISE_SEED))
    settings.out.mkdir(parents=True, exist_ok=True)
    save_grid(settings.out / "data.png", images.train[: columns**2], columns)
    rows: list[dict[str, Any]] = []
    folders = (*settings.runs, *settings.students)
    for folder, name in zip(folders, names_apart(folders), strict=True):
        model = FlowModel.from_pretrained(folder)
        if settings.solver is not None and folder not in settings.students:
            model.chain.solver = settings.solver
        pictures, _ = generated(model, noise, shape)
        save_grid(settings.out / f"{name.replace('/', '_')}.png", pictures, columns)
        way = states(model.trajectory(noise[:columns], settings.pieces), settings.states)
        ways = torch.stack([as_pictures(x, shape) for x in way], dim=1).flatten(0, 1)
        save_grid(settings.out / f"{name.replace('/', '_')}_trajectories.png", ways, len(way))
        known = distances_in(folder / "summary.json", model) if settings.path is settings.solver is None else None
        distances = known or image_report(model, data, images)
        rows.append({"run": name, "solver": asdict(model.chain.solver), **distances})
    write_json(settings.out / "summary.json", {"runs": rows, "data": data.model_dump(mode="json")})
    show(rows)


def data_of(settings: Settings) -> ImageData:
    """The pictures that all runs were trained on.

    Raises:
        CheckpointError: a run is not finished, or is no image run.
        ConfigError: the runs are of different pictures.
    """
    found = []
    for folder in settings.runs:
        if not (folder / "summary.json").exists():
            raise CheckpointError(f"{folder} holds no finished run: expected summary.json, written by lfm train")
        record = read_json(folder / "summary.json").get("data", {})
        if record.get("kind") != "images":
            raise CheckpointError(f"{folder} is no image run: its data are '{record.get('kind')}'")
        found.append(parse(ImageData, record, f"{folder}/summary.json"))
    if len({(data.path, data.side) for data in found}) > 1:
        raise ConfigError("the runs are of different pictures: give those of one data set at a time")
    return found[0] if settings.path is None else found[0].model_copy(update={"path": settings.path})


def distances_in(summary: Path, model: FlowModel) -> Mapping[str, Any] | None:
    """What the run itself has measured of this very model, if it has; students do not measure themselves."""
    record = read_json(summary) if summary.exists() else {}
    if "generated" not in record or record["digest"] != model.digest():
        return None
    return {key: value for key, value in record.items() if key.startswith(MEASURED)}


def states(way: list[Tensor], count: int) -> list[Tensor]:
    """`count` states of a trajectory, the noise and the end among them."""
    return [way[place] for place in torch.linspace(0, len(way) - 1, min(count, len(way))).round().long().tolist()]


def save_grid(path: Path, pictures: Tensor, columns: int) -> None:
    """Write pictures (n, C, H, W), uint8, as one, row by row, a pixel apart; the last row may be incomplete.

    Raises:
        ConfigError: Pillow is not installed.
    """
    try:
        from PIL import Image
    except ModuleNotFoundError:
        raise ConfigError("writing pictures needs Pillow: pip install 'lfm-policy[media]'") from None
    count, channels, height, width = pictures.shape
    rows = -(-count // columns)
    grid = torch.full((channels, rows * (height + 1) - 1, columns * (width + 1) - 1), 255, dtype=torch.uint8)
    for k, picture in enumerate(pictures):
        top, left = k // columns * (height + 1), k % columns * (width + 1)
        grid[:, top : top + height, left : left + width] = picture
    array = grid.expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy()
    with atomic_file(path) as temporary:
        Image.fromarray(array).save(temporary, format="png")


def show(rows: list[dict[str, Any]]) -> None:
    """A row a run."""
    columns = [key for key in rows[0] if key != "solver"]
    table = Table(*columns)
    for row in rows:
        table.add_row(*(f"{row[key]:.4g}" if isinstance(row[key], float) else str(row[key]) for key in columns))
    Console().print(table)


if __name__ == "__main__":
    _cli.run("report_images", Settings, main, __doc__)
