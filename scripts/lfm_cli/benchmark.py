"""Measure speed as ratios, each side by side in one run: ours against the plain way or a peer's.

    lfm benchmark                       every suite
    lfm benchmark suite=[latency,data]  some of them

Leaves <suite>.json for each suite and README.md with a table of all suites measured so far in the output folder, and
prints one `name: value` of each ratio last.
"""

import importlib
import platform
import re
import sys
from dataclasses import asdict
from pathlib import Path
from typing import get_args

from rich.console import Console
from rich.table import Table

from lfm_cli.benchmarks import Ratio, Settings, Skipped, Suite
from lfm_cli.origin import commit
from lfm_cli.tables import grid
from lfm_policy.files import read_json, write_json, write_text
from lfm_policy.processes import usable_cores

console = Console()


def main(settings: Settings) -> None:
    """Run the suites one after the other; each is stored as soon as it is done."""
    import torch

    torch.set_num_threads(settings.threads)
    results: list[Ratio | Skipped] = []
    for suite in settings.suite:
        console.print(f"[bold]{suite}[/bold]")
        module = importlib.import_module(f"lfm_cli.benchmarks.{suite}")
        found = []
        for result in module.measure(settings):
            console.print(_line(result))
            found.append(result)
        write_json(settings.out / f"{suite}.json", _record(suite, found))
        results += found
    console.print(table(results))
    write_json(settings.out / "summary.json", {r.name: r.value for r in results if isinstance(r, Ratio)})
    write_text(settings.out / "README.md", page(settings.out))
    for result in results:
        print(_line(result))


def table(results: list[Ratio | Skipped]) -> Table:
    """Make a table with a row per ratio; what each compares stands in README.md."""
    rows = grid("ratios, measured side by side", ("ratio", "unit"), ("value", "target", "ours", "theirs"))
    for r in results:
        if isinstance(r, Skipped):
            rows.add_row(r.name, f"skipped: {r.reason}")
            continue
        target = "" if r.target is None else f"{r.target:g} {'met' if r.met else 'missed'}"
        rows.add_row(r.name, r.unit, f"{r.value:.2f}", target, f"{r.ours:.4g}", f"{r.theirs:.4g}")
    return rows


def page(folder: Path) -> str:
    """Write Markdown: a table for each suite whose figures lie in `folder`."""
    parts = ["# Speed, as ratios measured side by side in one run\n\nWritten by `lfm benchmark`.\n"]
    for suite in get_args(Suite):
        if not (folder / f"{suite}.json").exists():
            continue
        found = read_json(folder / f"{suite}.json")
        made = f"`{found['command']}`, commit {found['commit']}, on {found['processor']}"
        parts.append(f"\n## {suite}\n\n{made}\n")
        parts.append("\n| ratio | value | target | ours | theirs | what |\n|" + "---|" * 6)
        for r in found["ratios"]:
            target = "" if r["target"] is None else f"{r['target']:g}, {'met' if r['met'] else 'missed'}"
            sides = f"{r['ours']:.4g} {r['unit']} | {r['theirs']:.4g} {r['unit']}"
            parts.append(f"\n| {r['name']} | **{r['value']:.2f}** | {target} | {sides} | {r['note']} |")
        parts += [f"\n| {r['name']} | | | | | skipped: {r['reason']} |" for r in found["skipped"]]
        parts.append("\n")
    return "".join(parts)


def _line(result: Ratio | Skipped) -> str:
    return f"{result.name}: {f'{result.value:.3f}' if isinstance(result, Ratio) else 'skipped, ' + result.reason}"


def _processor() -> str:
    """Name what the ratios were measured on: on another processor they may differ."""
    import torch

    facts = Path("/proc/cpuinfo")
    names = (
        re.findall(r"^model name\s*: (.*)$", facts.read_text(encoding="utf-8"), re.MULTILINE) if facts.exists() else []
    )
    name = (names or [platform.processor() or platform.machine()])[0]
    return f"{usable_cores()} x {name}, {torch.backends.cpu.get_cpu_capability()}"


def _record(suite: str, results: list[Ratio | Skipped]) -> dict[str, object]:
    return {
        "suite": suite,
        "command": "lfm benchmark " + " ".join(sys.argv[1:]),
        "commit": commit(),
        "processor": _processor(),
        "ratios": [asdict(r) | {"met": r.met} for r in results if isinstance(r, Ratio)],
        "skipped": [asdict(r) for r in results if isinstance(r, Skipped)],
    }
