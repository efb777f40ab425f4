"""Export a checkpoint as a bundle: weights, contract, normaliser, ONNX graphs, checksums and a card.

    lfm export checkpoint=outputs/lift out=outputs/bundles/lift dtype=float16 onnx=[float32]

The bundle runs without torch (`lfm_policy.bundles.onnx_policy.OnnxPolicy`), is served with `lfm serve`, and is
evaluated with lfm evaluate checkpoint=BUNDLE runtime=onnx.
"""

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lfm_cli import command_line as _cli
from lfm_policy.bundles.bundle import CHECKSUMS, Dtype, Precision
from lfm_policy.bundles.open import Sampling, Weights, open_torch
from lfm_policy.errors import ConfigError
from lfm_policy.files import read_json, write_json
from lfm_policy.locks import owned


class Settings(Sampling):
    """See config/export.yaml."""

    checkpoint: Path
    out: Path | None
    set: Weights
    trust_code: bool = False
    dtype: Dtype
    onnx: tuple[Precision, ...]
    results: Path | None


def main(settings: Settings) -> None:
    """Export, and show what came out."""
    from lfm_policy.bundles.export import Exported, export

    console = Console()
    out = settings.out or Path("outputs/bundles") / settings.checkpoint.resolve().name
    _require_replaceable(out)
    results = _results(settings.results) if settings.results else None
    policy = open_torch(
        settings.checkpoint, weights=settings.set, sampling=settings.sampling, trust_code=settings.trust_code
    )
    with owned(out):
        with console.status(f"exporting {settings.checkpoint}"):
            exported: Exported = export(policy, out, dtype=settings.dtype, graphs=settings.onnx, results=results)
        summary = {
            "bundle": str(out),
            "digest": exported.bundle.digest(),
            "checkpoint": policy.digest(),
            "bytes": exported.sizes,
            "parity": exported.parity,
        }
        write_json(out / "summary.json", summary)
    table = Table(title=f"bundle {out}", title_justify="left")
    table.add_column("file")
    table.add_column("bytes", justify="right")
    for name, size in exported.sizes.items():
        table.add_row(name, f"{size:,}")
    console.print(table)
    for precision, gap in exported.parity.items():
        console.print(f"{precision} graph: actions differ from torch's by at most {gap:.1e} (normalised)")


def _require_replaceable(out: Path) -> None:
    if out.exists() and not (out / CHECKSUMS).exists() and any(out.iterdir()):
        raise ConfigError(f"out={out} exists and is no bundle: choose another folder, exporting replaces it whole")


def _results(path: Path) -> dict[str, Any]:
    try:
        results = read_json(path / "summary.json" if path.is_dir() else path)
    except (OSError, json.JSONDecodeError) as error:
        raise ConfigError(f"results={path}: expected the summary.json of an evaluation, {error}") from None
    missing = {"success", "episodes", "interval", "mean_steps", "nfe", "ms_per_chunk"} - set(results)
    if missing:
        raise ConfigError(f"results={path}: expected the summary.json of an evaluation, it lacks {sorted(missing)}")
    return results


if __name__ == "__main__":
    _cli.run("export", Settings, main, __doc__)
