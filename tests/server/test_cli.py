"""lfm-serve as a user starts it: its own process, a signal at the end, a summary left behind."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import yaml

from lfm_config import PRESETS
from lfm_envs.point_mass import CONTRACT
from lfm_policy.server.cli import main
from lfm_policy.server.client import PolicyClient
from lfm_policy.server.served import ServeSettings

SERVE = [sys.executable, "-c", "from lfm_policy.server.cli import main; main()"]


@pytest.fixture
def contract(tmp_path: Path) -> Path:
    file = tmp_path / "contract.json"
    file.write_text(CONTRACT.model_dump_json())
    return file


@contextmanager
def running(*command: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server process and the address that it prints."""
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment})
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        address = re.search(r"ws://[\d.:]+", line)
        assert address, line + process.stderr.read()
        yield process, address[0]
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_until_a_signal_and_leaves_a_summary(contract: Path, tmp_path: Path, number: signal.Signals) -> None:
    arguments = ["zero", "--contract", str(contract), "--port", "0", "--out", str(tmp_path / "out")]
    with running(*SERVE, *arguments) as (process, address):
        with PolicyClient(address, contract=CONTRACT) as policy:
            chunk = policy.predict(np.ones((1, 2, 4), np.float32), np.zeros((1, 16, 2), np.float32)).actions
            assert chunk.shape == (1, 16, 2)
            process.send_signal(number)
            assert process.wait(10) == 0
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["requests"] == {"ok": 1}
    assert summary["latency_ms"]["count"] == 1


def test_the_script_is_the_same_with_a_key_file(contract: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys.txt"
    keys.write_text("a key of enough letters\n")
    script = [sys.executable, "-m", "lfm_cli", "serve", "policy=zero", f"contract={contract}", "port=0"]
    with (
        running(*script, f"api_keys={keys}", f"out={tmp_path}") as (process, address),
        PolicyClient(address, api_key="a key of enough letters") as policy,
    ):
        assert policy.metadata["policy"] == "zero"
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


def test_the_script_and_the_command_have_the_same_settings() -> None:
    values = yaml.safe_load((PRESETS / "serve.yaml").read_text())
    assert set(values) == set(ServeSettings.model_fields)
    defaults = {name: field.default for name, field in ServeSettings.model_fields.items() if not field.is_required()}
    assert {name: value for name, value in values.items() if name not in ("policy", "out")} == {
        name: value for name, value in defaults.items() if name != "out"
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "error: nothing to serve in 'nowhere': expected the directory of a bundle"),
        (["zero"], "error: zero needs a robot's contract: --contract=FILE"),
        (["zero", "--port", "many"], "'port': Input should be a valid integer"),
        (["zero", "--max-clients", "0"], "'max_clients': Input should be greater than or equal to 1"),
        (["zero", "--api-keys", "nowhere"], "error: the API keys in nowhere cannot be read"),
        (["zero", "--contract", "CONTRACT", "--host", "203.0.113.1"], "error: cannot listen on 203.0.113.1:8000"),
        (["zero", "--speed", "3"], "unrecognized arguments: --speed"),
        ([], "the following arguments are required: policy"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(
    contract: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(contract) if argument == "CONTRACT" else argument for argument in arguments])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_help_names_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out
    for name, field in ServeSettings.model_fields.items():
        assert name.replace("_", "-") in shown
        assert field.description


def test_a_robot_without_torch_can_serve(contract: Path) -> None:
    code = "import sys; import lfm_policy.server.cli, lfm_policy.server.client; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
