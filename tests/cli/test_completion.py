"""Shell completion: what a word may become, and bash's own way of asking for it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lfm_cli import completion
from lfm_policy.errors import ConfigError


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("lfm tr", ["train"]),
        ("lfm completion z", ["zsh"]),
        ("lfm evaluate epi", ["episodes="]),
        ("lfm evaluate policy=lift solver.m", ["solver.method="]),
        ("lfm evaluate weights=", ["weights=ema", "weights=raw"]),
        ("lfm train siz", ["size="]),
        ("lfm train size=t", ["size=tiny"]),
        ("lfm train experiment=robot/c", ["experiment=robot/can"]),
        ("lfm train optimiser.precision=b", ["optimiser.precision=bf16"]),
        ("lfm train nothing=", []),
    ],
)
def test_verbs_settings_choices_and_presets(line: str, expected: list[str]) -> None:
    assert completion.candidates([line]) == expected


def test_files_where_a_setting_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lift.hdf5").touch()
    (tmp_path / "list").mkdir()
    assert completion.candidates(["lfm prepare source=li"]) == ["source=lift.hdf5", "source=list/"]
    assert completion.candidates(["lfm train preset=li"]) == ["preset=lift.hdf5", "preset=list/"]


def test_an_unknown_shell_is_refused() -> None:
    with pytest.raises(ConfigError, match="one of bash, zsh, fish, found 'csh'"):
        completion.script("csh")


@pytest.mark.parametrize(
    ("line", "words", "expected"),
    [
        ("lfm ev", ["lfm", "ev"], ["evaluate"]),
        ("lfm train size=sm", ["lfm", "train", "size", "=", "sm"], ["small"]),
        ("lfm train size=", ["lfm", "train", "size", "="], ["paper", "small", "tiny"]),
    ],
)
def test_bash_itself_completes(tmp_path: Path, line: str, words: list[str], expected: list[str]) -> None:
    """Bash hands over words that it has divided at "=", and takes the last part only."""
    command = tmp_path / "lfm"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m lfm_cli "$@"\n')
    command.chmod(0o755)
    given = " ".join(f"'{word}'" for word in words)
    script = (
        f"compopt() {{ :; }}; {completion.script('bash')}\n"
        f"COMP_LINE='{line}' COMP_POINT={len(line)} COMP_CWORD={len(words) - 1}; COMP_WORDS=({given})\n"
        '_lfm; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", script], check=True, capture_output=True, text=True, env=environment)
    assert [word.strip() for word in done.stdout.split()] == expected
