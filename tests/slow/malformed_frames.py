"""Send malformed frames to a real server: python -m tests.slow.malformed_frames [COUNT] [SECONDS] [SEED]

Good messages are damaged (bits, cuts, insertions, claims of size), sent as frames that may be damaged as well. Every
thousand frames, or five seconds, a good request must get its chunk from a connection that stays open all along.
"""

import itertools
import json
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from lfm_policy.server import wire
from tests.server.served import CONTRACT, OBSERVATION, STATE
from tests.slow.raw_client import RawClient, frame, is_complete
from tests.slow.server_process import serving

GOOD: list[Any] = [
    OBSERVATION,
    {"observation.state": STATE, "__session__": "a", "__seed__": 3},
    {"observation": {name: value.tolist() for name, value in OBSERVATION.items()}, "prompt": "go"},
    {"__batch__": [OBSERVATION, {"observation.state": STATE, "__noise__": np.zeros((8, 2), np.float32)}]},
    {"__request__": "reset", "__session__": "a", "__chunks__": 2},
    {"__request__": "contract", "__contract__": CONTRACT.model_dump(mode="json")},
]


def damaged(generator: random.Random, message: bytes) -> bytes:
    """A message with one to four faults."""
    data = bytearray(message)
    for _ in range(generator.randint(1, 4)):
        at = generator.randrange(len(data)) if data else 0
        match generator.randrange(6):
            case 0 if data:
                data[at] ^= 1 << generator.randrange(8)
            case 1 if data:
                data[at] = generator.choice(
                    b"\x00\x80\x81\x90\xc0\xc1\xc4\xc6\xc7\xca\xcb\xcf\xd4\xd9\xdb\xdc\xdd\xde\xdf\xff"
                )
            case 2:
                del data[at : at + generator.randint(1, 16)]
            case 3:
                data[at:at] = generator.randbytes(generator.randint(1, 16))
            case 4:
                del data[at:]
            case _:
                data[at:at] = bytes([generator.choice(b"\xdb\xdd\xdf\xc6\xc9")]) + generator.randbytes(4)
    return bytes(data)


def main(count: int, seconds: float, seed: int) -> dict[str, Any]:
    """Send up to `count` frames for up to `seconds`; what became of them as plain JSON values."""
    generator = random.Random(seed)
    messages = [wire.pack(message) for message in GOOD]
    outcomes: Counter[str] = Counter()
    started = last = time.monotonic()
    sent, slowest = 0, 0.0
    with tempfile.TemporaryDirectory() as folder, serving("straight", Path(folder)) as server:
        robot, attacker = RawClient(server.port), None
        while sent < count and time.monotonic() - started < seconds:
            attacker = attacker or RawClient(server.port)
            data = frame(damaged(generator, generator.choice(messages)))
            if generator.random() < 0.1 and len(data) > 2:  # a damaged head
                data = bytes([generator.randrange(256), 0x80 | generator.randrange(128)]) + data[2:]
            outcome, attacker = send(attacker, data)
            outcomes[outcome] += 1
            sent += 1
            if sent % 1000 == 0 or time.monotonic() - last > 5:
                asked = time.monotonic()
                opcode, reply = robot.ask(messages[0])
                last = time.monotonic()
                slowest = max(slowest, last - asked)
                assert opcode == 2, reply
                assert b"actions" in reply
        text = server.log.read_text()
        assert "Traceback" not in text, text
        return {
            "frames": sent,
            "seed": seed,
            "seconds": round(time.monotonic() - started),
            "outcomes": dict(outcomes),
            "longest_turn_cpu_ms": round(server.longest_ms(), 1),
            "slowest_honest_ms": round(1000 * slowest, 1),
            "log_bytes": len(text),
        }


def send(attacker: RawClient, data: bytes) -> tuple[str, RawClient | None]:
    """Send bytes; what the server did, and the connection where it is still open."""
    try:
        attacker.socket.sendall(data)
        if not is_complete(data):
            attacker.close()
            return "incomplete", None
        opcode, _ = attacker.read()
    except TimeoutError:
        attacker.close()
        return "no answer", None
    except OSError:
        attacker.close()
        return "cut off", None
    if opcode == 2:
        return "served", attacker
    if opcode == 10:
        return "pong", attacker
    attacker.close()
    return "closed" if opcode == 8 else "refused with a text", None


if __name__ == "__main__":
    arguments = dict(itertools.zip_longest(("count", "seconds", "seed"), sys.argv[1:4]))
    numbers = int(arguments["count"] or 1_000_000), float(arguments["seconds"] or "inf"), int(arguments["seed"] or 0)
    print(json.dumps(main(*numbers), indent=2))
