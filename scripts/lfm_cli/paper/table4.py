"""Table 4 of the paper: success rates of robot policies."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lfm_cli.paper.tables import NAMES, Cells, Settings, Table
from lfm_cli.stages import Stage
from lfm_policy.files import read_json
from lfm_policy.measure.statistics import paired_comparison

UNSEEN = 100_000
"""First seed of the evaluation."""

TASKS = ("lift", "can", "square", "transport", "tool_hang")
METHODS: Mapping[str, Mapping[str, str]] = {
    "lfm": {"method": "lfm"},
    "lfm_sequential": {"method": "lfm", "flow.mode": "sequential"},
    "lfm_combined": {"method": "lfm", "flow.mode": "combined"},
    "shared": {"method": "shared"},
    "fm": {"method": "fm"},
    "interflow": {"method": "interflow"},
    "regression": {"method": "regression"},
    "mip": {"method": "mip"},
    "shortcut": {"method": "shortcut"},
    "ddpm": {"method": "ddpm"},
    "ddim": {"method": "ddim"},
}
PAPER = {
    "LFM": {"lift": "1.00", "can": "0.99", "square": "0.93", "transport": "0.88", "tool_hang": "0.53"},
    "FM": {"lift": "1.00", "can": "0.98", "square": "0.94", "transport": "0.81", "tool_hang": "0.52"},
}
"""Table 4 of arXiv 2410.02548 at its longest trainings: 100 rollouts, human demonstrations."""


def _stages(settings: Settings, task: str, method: str) -> Iterator[Stage]:
    s, folder = settings, settings.out / task
    source, before = s.source, None
    if source is None:
        demos = {"task": task, "episodes": s.demonstrations, "seed": 0, "workers": s.workers, "out": folder / "demos"}
        before = Stage("collect", demos)
        source = folder / "demos" / "demos.hdf5"
        yield before
    before = Stage("prepare", {"source": source, "out": folder / "data.zarr"}, before)
    yield before
    training = {"experiment": f"robot/{task}", **METHODS[method], "data.path": folder / "data.zarr"}
    before = Stage("train", training | s.training(task, method), before)
    yield before
    model = s.run(task, method)
    evaluation = {"policy": model, "episodes": s.evaluations, "seed": UNSEEN, "workers": s.workers, "videos": 0}
    if s.backend != "local":  # not named otherwise: a stage that is finished is known by its settings
        evaluation["backend"] = s.backend
    if s.variant:
        evaluation["temperature"] = s.temperature
    yield Stage(f"evaluate{s.variant}", {**evaluation, "out": folder / f"{model.name}_evaluation{s.variant}"}, before)


def _cell(chain: Sequence[Stage]) -> dict[str, Any]:
    train, evaluation = (read_json(stage.overrides["out"] / "summary.json") for stage in chain[-2:])
    data = read_json(chain[-3].overrides["out"] / "summary.json")
    keys = ("success", "interval", "episodes", "failed_seeds", "mean_steps", "nfe", "ms_per_chunk")
    costs = ("parameters", "blocks", "mode", "updates", "epochs", "batch", "seconds", "device", "threads")
    return {
        "first_evaluation_seed": UNSEEN,
        "temperature": chain[-1].overrides.get("temperature", 1.0),
        **{key: evaluation[key] for key in keys},
        "training": {key: train[key] for key in costs},
        "data": data,
    }


def _number(cell: Mapping[str, Any]) -> str:
    temperature = "" if _temperature(cell) == 1 else f", temperature {_temperature(cell):g}"
    return f"success {_success(cell)}{temperature}"


def _section(cells: Cells) -> Iterator[str]:
    yield "## Table 4: success on robomimic\n"
    yield "| method | size | training | " + " | ".join(TASKS) + " |"
    yield "|---|---|---|" + "---|" * len(TASKS)
    for name, rates in PAPER.items():
        yield f"| {name}, published | 66 M | GPU | " + " | ".join(rates[task] for task in TASKS) + " |"
    rows: dict[tuple[str, str, int, float], dict[str, Mapping[str, Any]]] = {}
    for cell in cells:
        rows.setdefault((cell["size"], cell["method"], cell["seed"], _temperature(cell)), {})[cell["task"]] = cell
    for (size, method, seed, temperature), row in sorted(rows.items()):
        some = next(iter(row.values()))["training"]
        name = NAMES[method] if temperature == 1 else f"{NAMES[method]}, temperature {temperature:g}"
        numbers = " | ".join(_rate(row[task]) if task in row else "" for task in TASKS)
        yield f"| {name} | {size}, {some['parameters'] / 1e6:.1f} M | {some['device']}, seed {seed} | {numbers} |"
    pairs = list(_pairs(cells))
    if pairs:
        yield from ("\n## Minus global FM, on the same seeds\n", *pairs)


def _rate(cell: Mapping[str, Any]) -> str:
    training = cell["training"]
    cost = f"{training['updates']} updates, {training['seconds'] / 60:.0f} min"
    return f"{_success(cell)}, {cost}"


def _success(cell: Mapping[str, Any]) -> str:
    low, high = cell["interval"]
    return f"{cell['success']:.2f} [{low:.2f}, {high:.2f}] of {cell['episodes']}, NFE {cell['nfe']:g}"


def _temperature(cell: Mapping[str, Any]) -> float:
    return cell.get("temperature", 1.0)


def _pairs(cells: Cells) -> Iterator[str]:
    """Yield a line for each LFM cell that has a global FM cell of the same task, size, seed and temperature."""

    def key(cell: Mapping[str, Any]) -> tuple[Any, ...]:
        return cell["task"], cell["size"], cell["seed"], _temperature(cell)

    baselines = {key(cell): cell for cell in cells if cell["method"] == "fm"}
    for cell in cells:
        baseline = baselines.get(key(cell))
        if baseline is None or cell is baseline or _seeds(cell).keys() != _seeds(baseline).keys():
            continue
        pair = paired_comparison(_seeds(cell), _seeds(baseline))
        low, high = pair.interval
        yield (
            f"- {cell['task']}, {cell['size']}, {NAMES[cell['method']]}, temperature {_temperature(cell):g}: "
            f"{pair.difference:+.2f} [{low:+.2f}, {high:+.2f}] over {pair.episodes} episodes"
        )


def _seeds(cell: Mapping[str, Any]) -> dict[int, bool]:
    first, failed = cell["first_evaluation_seed"], set(cell["failed_seeds"])
    return {seed: seed not in failed for seed in range(first, first + cell["episodes"])}


TABLE = Table("table4", TASKS, METHODS, (("lift",), ("lfm", "fm")), _stages, _cell, _section, _number)
