"""Quality against network evaluations against latency, for a teacher and its distilled students.

    lfm pareto checkpoint=outputs/lift students=[outputs/lift_4,outputs/lift_1] out=outputs/pareto

The teacher is measured with several solver steps in each block. Quality is the success rate of policies (on the same
seeds, with paired differences) and the distance to the data of densities. Run the same command again to continue.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from rich.console import Console
from rich.table import Table

from lfm_cli import command_line as _cli
from lfm_cli.rollouts import Rollouts, rollouts
from lfm_policy.bundles.open import Sampling, open_model
from lfm_policy.errors import ConfigError, nearest
from lfm_policy.files import atomic_file, names_apart, read_json, write_json
from lfm_policy.flow import Solver
from lfm_policy.flow.ode import Method
from lfm_policy.measure.energy import energy_distance
from lfm_policy.measure.latency import latencies
from lfm_policy.models.policy import LFMPolicy
from lfm_policy.models.pretrained import Weights
from lfm_policy.settings import Frozen, parse
from lfm_policy.training.distillation.students import AnyModel
from lfm_policy.training.experiments.density import TEST_SEED, density_report, load_density
from lfm_policy.training.experiments.settings import DensityData


class Settings(Frozen):
    """See config/pareto.yaml."""

    checkpoint: Path
    students: tuple[Path, ...]
    out: Path
    set: Weights
    solvers: tuple[Method, ...]
    steps: tuple[int, ...]
    temperature: float | None = Field(ge=0, allow_inf_nan=False)
    reference: str | None
    episodes: int = Field(ge=1)
    seed: int = Field(ge=0)
    environment: str | None
    workers: int = Field(ge=1)
    samples: int = Field(ge=2)
    calls: int = Field(ge=1)
    threads: int = Field(ge=1)
    trust_code: bool = False
    device: str


@dataclass(frozen=True)
class Entry:
    """A model with the solver that it is measured with."""

    label: str
    checkpoint: Path
    model: AnyModel
    student: bool

    @property
    def solver(self) -> Solver:
        """How each block is integrated."""
        return self.model.chain.solver


def main(settings: Settings) -> None:
    """Measure all, write summary.json, draw."""
    torch.set_num_threads(settings.threads)
    found = list(entries(settings))
    labels = [entry.label for entry in found]
    if len(set(labels)) < len(labels):
        raise ConfigError(f"each needs a name of its own, found {labels}: rename a student's folder")
    rows = timed(settings, found)
    reference = settings.reference or max((row for row in rows if not row["student"]), key=lambda r: r["nfe"])["name"]
    if reference not in labels:
        raise ConfigError(f"there is no reference={reference}: {nearest(reference, labels)}")
    if isinstance(found[0].model, LFMPolicy):
        quality = list(successes(settings, found, reference))
    else:
        quality = list(distances(settings, found))
    rows = [row | more for row, more in zip(rows, quality, strict=True)]
    for row in rows:
        row["best"] = not any(_beats(other, row) for other in rows)
    settings.out.mkdir(parents=True, exist_ok=True)
    picture = draw(settings.out / "pareto.png", rows)
    summary = {"reference": reference, "threads": settings.threads, "device": settings.device, "picture": picture}
    write_json(settings.out / "summary.json", summary | {"rows": rows})
    Console().print(table(rows))


def entries(settings: Settings) -> Iterator[Entry]:
    """The teacher with every solver, then the students with their own.

    Raises:
        ConfigError: a student is of another kind than the teacher, or a density is given a temperature.
    """
    opening: dict[str, Any] = settings.model_dump(include={"device", "threads", "trust_code"})
    opening["weights"] = settings.set
    for method in settings.solvers:
        for steps in settings.steps:
            sampling = Sampling(solver=method, steps=steps, temperature=settings.temperature)
            teacher = open_model(settings.checkpoint, sampling=sampling, **opening)
            label = f"{len(teacher.chain.blocks)}x{steps}" + ("" if method == "euler" else f"-{method}")
            yield Entry(label, settings.checkpoint, teacher, student=False)
    for folder, label in zip(settings.students, names_apart([f.resolve() for f in settings.students]), strict=True):
        student = open_model(folder, **opening)
        if type(student) is not type(teacher):
            raise ConfigError(f"{folder} holds a {type(student).__name__}, but the teacher is another kind of model")
        yield Entry(label.replace("/", "_"), folder, student, student=True)


def timed(settings: Settings, found: Sequence[Entry]) -> list[dict[str, Any]]:
    """What each costs: network evaluations, parameters, time of a call with a batch of 1, highest control rate."""
    calls = [_call(entry.model) for entry in found]
    times = latencies(calls, settings.calls)
    rows = []
    for entry, call, latency in zip(found, calls, times, strict=True):
        ahead = entry.model.action_steps if isinstance(entry.model, LFMPolicy) else 1
        rows.append(
            {
                "name": entry.label,
                "student": entry.student,
                "checkpoint": str(entry.checkpoint),
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
    """One sample, as a robot asks for it; the value is what it took in network evaluations."""
    generator = torch.Generator().manual_seed(0)
    if isinstance(model, LFMPolicy):
        shape = (1, model.observation_steps, model.contract.observation_dim)
        normalised = torch.randn(shape, generator=generator).to(model.device)
        history = model.observation_normalizer.denormalize(normalised).cpu().numpy()
        noise = torch.randn(1, *model.noise_shape, generator=generator).numpy()
        return lambda: model.predict(history, noise).nfe
    start = torch.randn(1, model.spec.dim, generator=generator).to(model.device)
    return lambda: model.sample(start).nfe


def successes(settings: Settings, found: Sequence[Entry], reference: str) -> Iterator[dict[str, Any]]:
    """Each policy's success, and its paired difference from the reference."""
    shared = settings.model_dump(
        include={"episodes", "seed", "environment", "workers", "threads", "trust_code", "device", "set"}
    )
    done: dict[str, Rollouts] = {}
    for entry in found:
        assert isinstance(entry.model, LFMPolicy)
        own = {"solver": entry.solver.method, "steps": entry.solver.steps, "temperature": entry.model.spec.temperature}
        done[entry.label] = rollouts(
            entry.label, settings.out / "rollouts", checkpoint=entry.checkpoint, **own, **shared
        )
    for entry in found:
        ours = done[entry.label]
        keys = ("success", "interval", "episodes", "failed_seeds", "mean_steps")
        difference = None if entry.label == reference else ours.minus(done[reference]).model_dump(mode="json")
        yield {key: ours.summary[key] for key in keys} | {"first_seed": settings.seed, "difference": difference}


def distances(settings: Settings, found: Sequence[Entry]) -> Iterator[dict[str, Any]]:
    """Energy distance of each density's samples to as many of the data; the likelihood where it is defined.

    A student is a map and no flow of an ODE: `log_prob` does not apply to it.
    """
    folder = next((f for f in (settings.checkpoint, settings.checkpoint.parent) if (f / "summary.json").exists()), None)
    values = {} if folder is None else read_json(folder / "summary.json").get("data", {})
    if folder is None or "density" not in values:
        raise ConfigError(f"{settings.checkpoint}: the density is not known, expected the folder of a finished run")
    data = parse(DensityData, values, f"{folder}/summary.json")
    density, generator = load_density(data), torch.Generator().manual_seed(TEST_SEED)
    truth, again = (density.sample(settings.samples, generator) for _ in range(2))
    noise = torch.randn(settings.samples, 2, generator=generator)
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


def _quality(row: dict[str, Any]) -> float:
    return row["success"] if "success" in row else -row["energy_distance"]


def _beats(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """At least as good and as fast, and better in one of the two."""
    ours, theirs = ((_quality(row), -row["latency_ms"]["p50"]) for row in (one, other))
    return ours != theirs and all(a >= b for a, b in zip(ours, theirs, strict=True))


def table(rows: Sequence[dict[str, Any]]) -> Table:
    """One row a model; * marks those that no other beats in both quality and time."""
    name = "success" if "success" in rows[0] else "energy distance"
    more = "minus reference" if "success" in rows[0] else "NLL"
    result = Table("", "NFE", name, "95 %" if "success" in rows[0] else "floor", more, "p50", "p95", "p99 ms", "Hz")
    for row in rows:
        time, rate = row["latency_ms"], row["highest_rate_hz"]
        if "success" in row:
            low, high = row["interval"]
            quality = [f"{row['success']:.3f}", f"{low:.2f} … {high:.2f}", _difference(row["difference"])]
        else:
            nll = "" if row["nll"] is None else f"{row['nll']:.3f}"
            quality = [f"{row['energy_distance']:.4f}", f"{row['energy_distance_floor']:.4f}", nll]
        times = [f"{time[key]:.1f}" for key in ("p50", "p95", "p99")]
        rates = f"{rate['waiting']:.0f} / {rate['one_chunk_ahead']:.0f}"
        result.add_row(f"{row['name']} {'*' if row['best'] else ''}", str(row["nfe"]), *quality, *times, rates)
    return result


def _difference(pair: dict[str, Any] | None) -> str:
    if pair is None:
        return "reference"
    low, high = pair["interval"]
    return f"{pair['difference']:+.2f} [{low:+.2f}, {high:+.2f}]"


def draw(path: Path, rows: Sequence[dict[str, Any]]) -> str | None:
    """Quality against evaluations and against latency; the file's name, or None without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        return None
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    costs: list[tuple[str, Callable[[dict[str, Any]], float]]] = [
        ("network evaluations a sample", lambda row: row["nfe"]),
        ("time of a call, median [ms]", lambda row: row["latency_ms"]["p50"]),
    ]
    for axis, (title, cost) in zip(axes, costs, strict=True):
        for student, marker, label in ((False, "o", "teacher"), (True, "s", "students")):
            group = sorted((row for row in rows if row["student"] == student), key=cost)
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
    axes[0].set_ylabel("success" if "success" in rows[0] else "energy distance to the data")
    axes[0].legend(fontsize=8)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
    return path.name


if __name__ == "__main__":
    _cli.run("pareto", Settings, main, __doc__)
