"""A command whose output folder another one writes to is refused before it does anything."""

import subprocess
import sys
from pathlib import Path

import pytest

from lfm_cli.command_line import run

OWNER = "import sys; from lfm_policy.locks import owned\nwith owned(sys.argv[1]): print(flush=True); sys.stdin.read()"


@pytest.mark.parametrize("given", [True, False], ids=["out", "default"])
def test_a_folder_in_use_is_refused(
    tmp_path: Path, given: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    out = "outputs/demos/lift"
    command = [sys.executable, "-c", OWNER, out]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        owner.stdout.readline()
        assert run("collect", ["task=lift", "episodes=1", *([f"out={out}"] if given else [])]) == 2
        assert f"{tmp_path / out} is in use: `-c {out}` (process {owner.pid}" in capsys.readouterr().err
        assert not Path(out).exists()
        owner.communicate()
