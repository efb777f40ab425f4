"""lfm serve as a user starts it: its own process, a signal at the end, a summary left behind."""

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

from lfm_cli import serve
from lfm_cli.command_line import run
from lfm_envs.point_mass import CONTRACT
from lfm_policy.server.client import PolicyClient

SERVE = [sys.executable, "-m", "lfm_cli", "serve"]


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
    arguments = ["zero", f"contract={contract}", "port=0", f"out={tmp_path / 'out'}"]
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


def test_the_name_of_before_says_the_new_one(contract: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        serve.forward(["zero", "--contract", str(contract), "--max-clients=0"])
    said = capsys.readouterr().err
    assert f"lfm-serve is called lfm serve now: lfm serve zero contract={contract} max_clients=0" in said
    assert "'max_clients': Input should be greater than or equal to 1" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "error: there is no policy 'nowhere'"),
        (["zero"], "error: zero needs a robot's contract: contract=FILE"),
        (["zero", "port=many"], "'port': Input should be a valid integer"),
        (["zero", "max_clients=0"], "'max_clients': Input should be greater than or equal to 1"),
        (["zero", "api_keys=nowhere"], "error: the API keys in nowhere cannot be read"),
        (["zero", "contract=CONTRACT", "host=203.0.113.1"], "error: cannot listen on 203.0.113.1:8000"),
        (["zero", "speed=3"], "unknown setting 'speed'"),
        ([], "missing: policy=VALUE"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(
    contract: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert run("serve", [argument.replace("CONTRACT", str(contract)) for argument in arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_robot_without_torch_can_serve(contract: Path) -> None:
    code = "import sys; import lfm_cli.serve, lfm_policy.server.run, lfm_policy.server.client; "
    code += "assert not {'torch', 'hydra', 'yaml', 'zarr'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
