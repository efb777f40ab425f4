"""The page about the protocol says what the server does: its example runs, its keys, limits and codes are all there."""

import json
import re
from pathlib import Path

from lfm_policy.contract import Camera
from lfm_policy.server import connection, journal, observations, requests, wire
from lfm_policy.server import server as module
from lfm_policy.server.limits import ServerOptions
from lfm_policy.server.observations import Names
from tests.server.served import CONTRACT, OBSERVATION, ask, connected, served

PAGE = (Path(__file__).parents[2] / "docs/reference/server.md").read_text()
CODE = "\n".join(re.findall(r"`([^`\n]+)`", PAGE))


def test_the_conversation_happens_as_written() -> None:
    [example] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert "127.0.0.1:8000" in example
    with served() as server:
        names: dict[str, object] = {}
        exec(example.replace("127.0.0.1:8000", f"127.0.0.1:{server.port}"), names)
        assert names["actions"].shape == (7, 2)  # pyright: ignore[reportAttributeAccessIssue]
        metadata = names["metadata"]
    assert isinstance(metadata, dict)
    for key in (*metadata, *metadata["limits"]):
        assert f"`{key}`" in PAGE


def test_the_names_file_is_one() -> None:
    [names] = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    contract = CONTRACT.model_copy(update={"cameras": (Camera(name="wrist", height=8, width=8),)})
    assert Names(contract, json.loads(names)).targets("observation/both") == ("goal", "position")


def test_every_key_of_requests_and_answers_is_there() -> None:
    for kind, keys in requests._KEYS.items():
        assert kind in CODE
        for key in keys:
            [row] = re.findall(rf"^\| `{key}` \| ([^|]*) \|", PAGE, re.MULTILINE)
            assert kind in row.split(", ") or row == "all", (key, kind)
    with served() as server, connected(server) as robot:
        replies = [ask(robot, {"prompt": "go", **OBSERVATION}), ask(robot, {"__batch__": [OBSERVATION]})]
    for key in {key for reply in replies for key in reply} | {
        key for reply in replies for key in reply["server_timing"]
    }:
        assert f"`{key}`" in PAGE


def test_every_limit_is_there() -> None:
    for limit in (
        f"| {wire.REQUEST.values}: maps",
        f"| keys of a map | {wire.REQUEST.keys} |",
        f"in each other | {wire.REQUEST.depth} |",
        f"{wire.REQUEST.text_bytes} bytes",
        f"| {wire._MOST_SIZES}, each below 2^31 |",
        f"1 to {observations._MOST_ROWS} rows",
        f"beyond {observations._LARGEST:.0e}".replace("+", ""),
        f"frames below {connection._SMALL_BYTES} bytes | 2 `rate_hz` + {module._PINGS_HZ:.0f} per second",
        f"{requests.LONGEST['contract'] // 1024} KiB, {requests._MOST_FIELDS} values",
        f"at most {journal._PER_ADDRESS} lines per minute and address and {journal._ALTOGETHER} altogether",
        f"| taking an answer | {module._SEND_S:.0f} s |",
    ):
        assert limit in PAGE
    told = {"max_clients", "max_clients_per_address", "max_sessions", "max_message_bytes", "max_batch", "rate_hz"}
    for name in told | {"idle_s", "ping_s"}:
        assert name in ServerOptions.model_fields
        assert f"`{name}`" in PAGE


def test_every_close_code_is_there() -> None:
    codes = set(re.findall(r"^\| (1\d{3})", PAGE, re.MULTILINE))
    assert {str(code) for code in (module.BAD_REQUEST, module.TRY_LATER, module.GOING_AWAY, 1009)} <= codes
