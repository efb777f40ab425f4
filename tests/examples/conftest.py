import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.examples.running import Example


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Example]]:
    """Make copies of examples; their modules are forgotten afterwards."""
    yield lambda name: Example(name, tmp_path, monkeypatch)
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]
