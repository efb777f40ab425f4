"""The page that the benchmark leaves beside its JSON."""

from pathlib import Path

from lfm_cli import benchmark
from lfm_cli import benchmarks as suites
from lfm_policy.processes import usable_cores


def test_the_page_has_a_row_for_each_figure(tmp_path: Path) -> None:
    ratio = suites.Ratio("data.windows", 50.0, 20.0, 400.0, 8.0, "windows/s", "equal outputs")
    missed = suites.Ratio("data.prepare", 1.3, 20.0, 2.6, 2.0, "windows/s")
    record = benchmark._record("data", [ratio, missed, suites.Skipped("data.gpu", "no CUDA device")])
    benchmark.write_json(tmp_path / "data.json", record)
    page = benchmark.page(tmp_path)
    assert "## data" in page
    assert f", on {usable_cores()} x " in page
    assert "| data.windows | **50.00** | 20, met | 400 windows/s | 8 windows/s | equal outputs |" in page
    assert "| data.prepare | **1.30** | 20, missed |" in page
    assert "skipped: no CUDA device" in page
    assert "## latency" not in page
