"""Quality against network evaluations against latency, for a teacher and its distilled students; see `lfm pareto`."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from lfm_policy.bundles.open import open_model
from lfm_policy.choices import Method, Solver, Weights
from lfm_policy.errors import ConfigError
from lfm_policy.files import atomic_file, names_apart, read_json
from lfm_policy.measure.energy import energy_distance
from lfm_policy.measure.latency import latencies
from lfm_policy.models.policy import LFMPolicy
from lfm_policy.settings import parse
from lfm_policy.training.distillation.students import AnyModel
from lfm_policy.training.experiments.data_settings import DensityData
from lfm_policy.training.experiments.density import TEST_SEED, density_report, load_density


@dataclass(frozen=True)
class Entry:
    """A model with the solver that it is measured with."""

    label: str
    source: str
    model: AnyModel
    student: bool

    @property
    def solver(self) -> Solver:
        """How each block is integrated."""
        return self.model.chain.solver


def entries(
    teacher: str,
    students: Sequence[Path] = (),
    *,
    methods: Sequence[Method] = ("euler",),
    steps: Sequence[int] = (1, 2, 5),
    temperature: float | None = None,
    weights: Weights = "ema",
    device: str = "cpu",
    trust_code: bool = False,
) -> Iterator[Entry]:
    """Yield the teacher with every solver, then the students with their own.

    Raises:
        ConfigError: a student is of another kind than the teacher, or a density is given a temperature.
    """
    opening: dict[str, Any] = {"weights": weights, "device": device, "trust_code": trust_code}
    kind: type[AnyModel] | None = None
    for method in methods:
        for count in steps:
            model = open_model(teacher, **opening)
            kind = type(model)
            model.chain.solver = replace(model.chain.solver, method=method, steps=count)
            if temperature is not None:
                if not isinstance(model, LFMPolicy):
                    raise ConfigError("temperature is for policies, and the teacher is a density: use temperature=null")
                model.set_temperature(temperature)
            label = f"{len(model.chain.blocks)}x{count}" + ("" if method == "euler" else f"-{method}")
            yield Entry(label, teacher, model, student=False)
    for folder, label in zip(students, names_apart([student.resolve() for student in students]), strict=True):
        student = open_model(folder, **opening)
        if type(student) is not kind:
            raise ConfigError(f"{folder} holds a {type(student).__name__}, but the teacher is another kind of model")
        yield Entry(label.replace("/", "_"), str(folder), student, student=True)


def timed(found: Sequence[Entry], count: int = 200) -> list[dict[str, Any]]:
    """Measure what each costs: evaluations, parameters, time of a call with a batch of 1, highest control rate."""
    calls = [_call(entry.model) for entry in found]
    times = latencies(calls, count)
    rows = []
    for entry, call, latency in zip(found, calls, times, strict=True):
        ahead = entry.model.action_steps if isinstance(entry.model, LFMPolicy) else 1
        rows.append(
            {
                "name": entry.label,
                "student": entry.student,
                "checkpoint": entry.source,
                "digest": entry.model.digest(),
                "blocks": len(entry.model.chain.blocks),
                "solver": asdict(entry.solver),
                "temperature": entry.model.spec.temperature if isinstance(entry.model, LFMPolicy) else None,
                "nfe": call(),
                "parameters": sum(p.numel() for p in entry.model.chain.parameters()),
                "latency_ms": latency.model_dump(mode="json"),
                "highest_rate_hz": {
                    "waiting": latency.highest_rate_hz(),
                    "one_chunk_ahead": latency.highest_rate_hz(ahead),
                },
            }
        )
    return rows


def _call(model: AnyModel) -> Callable[[], int]:
    """Make a call for one sample, as a robot asks for it; its value is what it took in network evaluations."""
    generator = torch.Generator().manual_seed(0)
    if isinstance(model, LFMPolicy):
        shape = (1, model.observation_steps, model.contract.observation_dim)
        normalised = torch.randn(shape, generator=generator).to(model.device)
        history = model.encoding.observation_normalizer.denormalize(normalised).cpu().numpy()
        noise = torch.randn(1, *model.noise_shape, generator=generator).numpy()
        return lambda: model.predict(history, noise).nfe
    start = torch.randn(1, model.spec.dim, generator=generator).to(model.device)
    return lambda: model.sample(start).nfe


def distances(found: Sequence[Entry], samples: int = 2000) -> Iterator[dict[str, Any]]:
    """Yield the energy distance of each density's samples to as many of the data; the likelihood where defined.

    A student is a map and no flow of an ODE: `log_prob` does not apply to it.
    """
    teacher = Path(found[0].source)
    folder = next((f for f in (teacher, teacher.parent) if (f / "summary.json").exists()), None)
    values = {} if folder is None else read_json(folder / "summary.json").get("data", {})
    if folder is None or "density" not in values:
        raise ConfigError(f"{teacher}: the density is not known, expected the folder of a finished run")
    data = parse(DensityData, values, f"{folder}/summary.json")
    density, generator = load_density(data), torch.Generator().manual_seed(TEST_SEED)
    truth, again = (density.sample(samples, generator) for _ in range(2))
    noise = torch.randn(samples, 2, generator=generator)
    floor = energy_distance(again[None], truth[None]).item()
    for entry in found:
        assert not isinstance(entry.model, LFMPolicy)
        drawn = entry.model.sample(noise.to(entry.model.device)).x.cpu()
        report = {} if entry.student else density_report(entry.model, data, density)
        keys = ("nll", "nll_standard_error", "floor", "nfe_likelihood")
        yield {
            "energy_distance": energy_distance(drawn[None], truth[None]).item(),
            "energy_distance_floor": floor,
            **{key: report.get(key) for key in keys},
        }


def mark_best(rows: Sequence[dict[str, Any]]) -> None:
    """Say of each row whether no other beats it in both quality and time."""
    for row in rows:
        row["best"] = not any(_beats(other, row) for other in rows)


def _quality(row: dict[str, Any]) -> float:
    return row["success"] if "success" in row else -row["energy_distance"]


def _beats(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Say whether one is at least as good and as fast, and better in one of the two."""
    ours, theirs = ((_quality(row), -row["latency_ms"]["p50"]) for row in (one, other))
    return ours != theirs and all(a >= b for a, b in zip(ours, theirs, strict=True))


def draw(path: Path, rows: Sequence[dict[str, Any]]) -> str | None:
    """Draw quality against evaluations and against latency; return the file's name, or None without matplotlib."""
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter
    except ModuleNotFoundError:
        return None
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    costs: list[tuple[str, Callable[[dict[str, Any]], float]]] = [
        ("network evaluations per sample", lambda row: row["nfe"]),
        ("time of a call, median [ms]", lambda row: row["latency_ms"]["p50"]),
    ]
    for axis, (title, cost) in zip(axes, costs, strict=True):
        for student, marker, label in ((False, "o", "teacher"), (True, "s", "students")):
            group = sorted((row for row in rows if row["student"] == student), key=cost)
            if not group:
                continue
            x, y = [cost(row) for row in group], [abs(_quality(row)) for row in group]
            if "success" in rows[0]:
                ends = [row["interval"] for row in group]
                bars = [[v - low for v, (low, _) in zip(y, ends, strict=True)]]
                bars += [[high - v for v, (_, high) in zip(y, ends, strict=True)]]
                axis.errorbar(x, y, bars, fmt="none", ecolor="0.7")
            axis.plot(x, y, marker if student else f"{marker}-", label=label)
            for row, a, b in zip(group, x, y, strict=True):
                axis.annotate(row["name"], (a, b), textcoords="offset points", xytext=(4, 4), fontsize=7)
        axis.set(xlabel=title, xscale="log")
        axis.margins(x=0.15, y=0.1)
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(ScalarFormatter())
        axis.xaxis.set_minor_formatter(NullFormatter())
    axes[0].set_ylabel("success" if "success" in rows[0] else "energy distance to the data")
    axes[0].legend(fontsize=8)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
    return path.name
