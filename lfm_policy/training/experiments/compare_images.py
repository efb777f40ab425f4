"""Image runs beside each other, as `lfm report_images` shows them.

Grids of samples from the same noise, the way from noise to pictures, Fréchet distances.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lfm_policy.choices import SolverChange
from lfm_policy.data.images import as_pictures, load_images
from lfm_policy.errors import CheckpointError, ConfigError
from lfm_policy.files import atomic_file, names_apart, read_json, write_json
from lfm_policy.models.density import FlowModel
from lfm_policy.settings import parse
from lfm_policy.training.experiments.data_settings import ImageData
from lfm_policy.training.experiments.images import NOISE_SEED, generated, image_report

MEASURED = ("generated", "nfe_sample", "classifier_", "fid")
"""Beginnings of the names in `image_report`."""


def compare_images(
    runs: Sequence[Path],
    out: Path,
    *,
    students: Sequence[Path] = (),
    path: Path | None = None,
    columns: int = 8,
    states_shown: int = 8,
    pieces: int = 5,
    solver: SolverChange | None = None,
    trust_code: bool = False,
) -> list[dict[str, Any]]:
    """Draw and measure, write summary.json.

    Args:
        runs: folders of finished image runs on one data set.
        out: folder for the pictures and summary.json.
        students: folders of distillations of the first run, shown beside it.
        path: where the data are, if they have moved since.
        columns: of the grids of samples.
        states_shown: of each way from noise to a picture.
        pieces: parts of each block's time in these ways.
        solver: in place of the runs' own.
        trust_code: allow network classes from outside this package.

    Returns:
        A row for each run and student.

    Raises:
        CheckpointError: a run is not finished, or is no image run.
        ConfigError: the runs are of different pictures.
    """
    solver, data = solver or SolverChange(), data_of(runs, path)
    images = load_images(data.path, data.side)
    shape, count = images.train.shape[1:], columns**2
    noise = torch.randn(count, images.train[0].numel(), generator=torch.Generator().manual_seed(NOISE_SEED))
    out.mkdir(parents=True, exist_ok=True)
    save_grid(out / "data.png", images.train[:count], columns)
    rows: list[dict[str, Any]] = []
    for folder, name in zip((*runs, *students), names_apart([*runs, *students]), strict=True):
        model = FlowModel.from_pretrained(folder, trust_code=trust_code)
        if folder not in students:
            model.chain.solver = solver(model.chain.solver)
        picture = out / f"{name.replace('/', '_')}.png"
        save_grid(picture, generated(model, noise, shape)[0], columns)
        way = states(model.trajectory(noise[:columns], pieces), states_shown)
        save_trajectories(picture.with_stem(f"{picture.stem}_trajectories"), way, shape)
        known = distances_in(folder / "summary.json", model) if path is None and not solver.given else None
        rows.append({"run": name, "solver": asdict(model.chain.solver), **(known or image_report(model, data, images))})
    write_json(out / "summary.json", {"runs": rows, "data": data.model_dump(mode="json")})
    return rows


def data_of(runs: Sequence[Path], path: Path | None) -> ImageData:
    """Return the pictures that all runs were trained on.

    Raises:
        CheckpointError: a run is not finished, or is no image run.
        ConfigError: the runs are of different pictures.
    """
    found = []
    for folder in runs:
        if not (folder / "summary.json").exists():
            raise CheckpointError(f"{folder} holds no finished run: expected summary.json, written by lfm train")
        record = read_json(folder / "summary.json").get("data", {})
        if record.get("kind") != "images":
            raise CheckpointError(f"{folder} is no image run: its data are '{record.get('kind')}'")
        found.append(parse(ImageData, record, f"{folder}/summary.json"))
    if len({(data.path, data.side) for data in found}) > 1:
        raise ConfigError("the runs are of different pictures: give those of one data set at a time")
    return found[0] if path is None else found[0].model_copy(update={"path": path})


def distances_in(summary: Path, model: FlowModel) -> Mapping[str, Any] | None:
    """Return what the run itself has measured of this very model, if it has; students do not measure themselves."""
    record = read_json(summary) if summary.exists() else {}
    if "generated" not in record or record["digest"] != model.digest():
        return None
    return {key: value for key, value in record.items() if key.startswith(MEASURED)}


def states(way: list[Tensor], count: int) -> list[Tensor]:
    """Take `count` states of a trajectory, the noise and the end among them."""
    return [way[place] for place in torch.linspace(0, len(way) - 1, min(count, len(way))).round().long().tolist()]


def save_trajectories(path: Path, way: Sequence[Tensor], shape: Sequence[int]) -> None:
    """Write states (n, D) on the way from noise to pictures of this shape (C, H, W), a row for each picture."""
    ways = torch.stack([as_pictures(x, shape) for x in way], dim=1).flatten(0, 1)
    save_grid(path, ways, len(way))


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
