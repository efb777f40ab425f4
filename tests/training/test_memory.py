"""How much memory a process has taken."""

import re
import sys
from pathlib import Path

import pytest
import torch

from lfm_policy.training.memory import peak_memory


@pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel of Linux")
def test_the_peak_is_the_kernels_and_stays_when_memory_is_freed() -> None:
    torch.ones(50_000_000).sum()  # 200 MB
    peak = peak_memory(torch.device("cpu"))
    assert peak > 200
    (kernels,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert peak == pytest.approx(int(kernels) / 1024, abs=8)
