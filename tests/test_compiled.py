"""Machine code is kept where it can be, and never where somebody else could have put it."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from lfm_policy import compiled

NOWHERE = Path("/proc/lfm")
"""Where nobody can make files, root included."""


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", "")  # so that it is put back
    del os.environ["NUMBA_CACHE_DIR"]
    monkeypatch.setenv("XDG_CACHE_HOME", str(NOWHERE))
    monkeypatch.setattr(compiled, "__file__", str(NOWHERE / "compiled.py"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_without_any_place_it_is_a_temporary_one_that_stays(nowhere: None, tmp_path: Path) -> None:
    compiled.use_writable_cache()
    folder = Path(os.environ["NUMBA_CACHE_DIR"])
    assert folder.parent == tmp_path
    assert folder.stat().st_mode & 0o777 == 0o700
    del os.environ["NUMBA_CACHE_DIR"]
    compiled.use_writable_cache()
    assert os.environ["NUMBA_CACHE_DIR"] == str(folder)


def test_a_folder_that_others_can_write_to_is_not_used(nowhere: None, tmp_path: Path) -> None:
    theirs = tmp_path / f"lfm-numba-{os.getuid()}"
    theirs.mkdir()
    theirs.chmod(0o777)
    compiled.use_writable_cache()
    assert Path(os.environ["NUMBA_CACHE_DIR"]) != theirs
    assert Path(os.environ["NUMBA_CACHE_DIR"]).parent == tmp_path


@pytest.mark.parametrize("where", ["said", "user's"])
def test_what_is_there_is_left_to_numba(
    nowhere: None, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if where == "said":
        monkeypatch.setenv("NUMBA_CACHE_DIR", "mine")
    else:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    compiled.use_writable_cache()
    assert os.environ.get("NUMBA_CACHE_DIR") == ("mine" if where == "said" else None)


def test_a_machine_that_may_not_compile_is_told_why() -> None:
    command = [sys.executable, "-m", "lfm_cli", "evaluate", "policy=lift", "episodes=1"]
    result = subprocess.run(
        command, env=os.environ | {"NUMBA_DISABLE_JIT": "1"}, capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    assert result.stderr.startswith("error: ")
    assert "NUMBA_DISABLE_JIT forbids it: unset it" in result.stderr
