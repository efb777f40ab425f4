"""The tables that verbs end with: within 80 columns, without dictionaries or None."""

from io import StringIO
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from lfm_cli import tables

LATENCY = {
    "latency_ms": {"p50": 12.3, "p95": 14.0, "p99": 120.5},
    "highest_rate_hz": {"waiting": 80.0, "one_chunk_ahead": 640.0},
}
POLICIES = [
    {"name": "4x5", "nfe": 20, "best": True, "success": 0.98, "interval": [0.93, 0.99], "difference": None, **LATENCY},
    {
        "name": "lift_small_lfm_seed0_student",
        "nfe": 1,
        "best": False,
        "success": 0.9,
        "interval": [0.8, 0.95],
        "difference": {"difference": -0.08, "interval": [-0.15, -0.01]},
        **LATENCY,
    },
]
PLANE = [
    {
        "name": "4x5",
        "nfe": 20,
        "best": True,
        "energy_distance": 0.01,
        "energy_distance_floor": 0.002,
        "nll": None,
        **LATENCY,
    }
]
RUN = {
    "run": "tiny_two_moons_lfm_seed0",
    "method": "lfm",
    "mode": "simulation_free",
    "nll": 1.2345,
    "nll_standard_error": 0.01,
    "floor": 1.1,
    "nfe_likelihood": 1200,
    "nfe_sample": 36,
    "parameters": 1_234_567,
}
FOUND = {"noticed_share": {"count": 24, "of": 30}, "balanced_accuracy": 0.88, "interval": [0.78, 0.94]}
SCORES = {
    "density": {
        "false_alarms": {"count": 1, "of": 29},
        "disturbances": {"moved": FOUND | {"auroc": 0.9, "steps_to_alarm": 4.0}},
        "all": FOUND,
        "ms": 12.0,
    }
}
BLOCK = dict.fromkeys(tables.MEASURES, 0.123456) | {"block": 0, "kl": None, "kl_error": None}
SUMMARY = {
    "name": "robot/lift",
    "loss": {"block0": 0.29918548464775085, "block1": 0.1},
    "cached": None,
    "teacher": {"policy": "outputs/a/very/long/path/of/a/run", "solver": {"method": "euler", "steps": 5}},
    "list": list(range(200)),
}


@pytest.mark.parametrize(
    "found",
    [
        [tables.pairs("a title with [brackets]", SUMMARY)],
        [*tables.pareto(POLICIES)],
        [*tables.pareto(PLANE)],
        [tables.densities([RUN, RUN | {"method": "fm"}])],
        [tables.monitor(SCORES)],
        [tables.pictures([RUN, RUN | {"fid": 3.2}])],
        [*tables.blocks({"name": "2d/rose", "blocks": [BLOCK] * 9})],
    ],
    ids=["pairs", "policies", "plane", "densities", "monitor", "pictures", "blocks"],
)
def test_readable_in_80_columns(found: list[Table]) -> None:
    console = Console(width=80, record=True, file=StringIO())
    for table in found:
        console.print(table)
    shown = console.export_text()
    assert max(len(line) for line in shown.splitlines()) <= 80
    assert not {"{", "None", "…│"} & {shown[k : k + n] for n in (1, 2, 4) for k in range(len(shown))}


def test_numbers_have_a_few_digits_and_their_unit() -> None:
    rows: list[Any] = [tables.text(value) for value in (0.29918548464775085, 1_234_567, True, [1, 2.5])]
    assert rows == ["0.2992", "1,234,567", "yes", "1 2.5"]
