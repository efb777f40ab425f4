"""The edge of every script: help, exit codes, and messages without a traceback."""

import subprocess
import sys

import pytest

from lfm_cli.__main__ import VERBS
from lfm_config import PRESETS

NAMES = VERBS


def _run(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lfm_cli", name, *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True)


@pytest.mark.parametrize("name", NAMES)
def test_help_shows_what_it_does_and_every_setting(name: str) -> None:
    result = _run(name, "--help")
    assert (result.returncode, result.stderr) == (0, "")
    assert (PRESETS / f"{name}.yaml").read_text() in result.stdout
    assert len(result.stdout.split("\n\n")[0]) > 20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["chekpoint=x"], "error: unknown setting 'chekpoint': did you mean 'checkpoint'?"),
        (["checkpoint=nowhere"], "error: there is no policy 'nowhere': expected the folder of a run"),
        (["checkpoint"], "error: expected key=value, found 'checkpoint' (try --help)"),
        (["episodes=0", "checkpoint=x"], "'episodes': Input should be greater than or equal to 1; found 0"),
        (["episodes=[1"], "error: "),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(arguments: list[str], message: str) -> None:
    result = _run("evaluate", *arguments)
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
