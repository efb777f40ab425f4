"""Coverage-guided fuzzing of the server's wire, requests and frame counter, with atheris (pip install atheris).

    python tests/slow/fuzz_server.py CORPUS -max_total_time=1800 -max_len=4096

An input is a message, raw or built from its bytes. Anything but an answer or an error of lfm_policy.errors is a fault,
and so are more than 0.5 s for one message.
"""

import sys
import time

import atheris

with atheris.instrument_imports(include=["lfm_policy.server", "lfm_policy.contract", "lfm_policy.errors"]):
    from lfm_policy.contract import Contract
    from lfm_policy.server import connection, observations, requests, wire

import numpy as np

from lfm_policy.errors import LFMError, one_line, shown
from tests.rollout.scripted import Straight

POLICY = Straight()
TERMS = requests.Terms(POLICY, observations.Names(POLICY.contract, {"both": ["goal", "position"]}), 4)
KEYS = [
    *("position", "goal", "observation.state", "observation/goal", "observation", "both", "prompt", "x\n\x1b[31m"),
    *("__request__", "__session__", "__seed__", "__noise__", "__batch__", "__alone__", "__chunks__", "__contract__"),
]
WORDS = ["reset", "forget", "contract", "infer", "a", "", "\u202e", "a" * 200]
CONTRACT = POLICY.contract.model_dump(mode="json")
SECONDS = 0.5


def value(data: atheris.FuzzedDataProvider, depth: int = 0) -> object:
    """Anything that msgpack can carry, with arrays that may contradict themselves."""
    match data.ConsumeIntInRange(0, 11 if depth < 4 else 7):
        case 0:
            return data.ConsumeInt(8)
        case 1:
            return data.ConsumeFloat()
        case 2:
            return data.PickValueInList(WORDS)
        case 3:
            return data.ConsumeBytes(data.ConsumeIntInRange(0, 40))
        case 4:
            return data.PickValueInList([None, True, False])
        case 5:
            return np.zeros(data.ConsumeIntListInRange(data.ConsumeIntInRange(0, 3), 0, 5), np.float32)
        case 6:
            return np.float32(data.ConsumeFloat())
        case 7:
            return {
                b"__ndarray__": True,
                b"data": data.ConsumeBytes(data.ConsumeIntInRange(0, 40)),
                b"dtype": data.PickValueInList(["<f4", "|u1", "O", "<U1", "<f4,<f4", "U9999999", "(2,)f4", 3]),
                b"shape": data.ConsumeIntList(data.ConsumeIntInRange(0, 40), data.ConsumeIntInRange(1, 8)),
            }
        case 8:
            return [value(data, depth + 1) for _ in range(data.ConsumeIntInRange(0, 6))]
        case 9:
            return dict(CONTRACT, **{data.PickValueInList(list(CONTRACT)): value(data, depth + 1)})
        case _:
            return {data.PickValueInList(KEYS): value(data, depth + 1) for _ in range(data.ConsumeIntInRange(0, 6))}


def one_input(raw: bytes) -> None:
    """Judge one input."""
    data = atheris.FuzzedDataProvider(raw[1:])
    started, refusal = time.thread_time(), ""
    try:
        built = {data.PickValueInList(KEYS): value(data) for _ in range(5)} if raw[:1] >= b"\x40" else None
        message = raw[1:] if built is None else wire.pack(built)
        request = requests.parse(message, TERMS)
        if isinstance(request, requests.Match):
            POLICY.contract.require_match(Contract.model_validate(request.contract), "the policy", "the client")
    except LFMError as error:
        refusal = one_line(str(error))
    assert refusal.isprintable()
    assert len(shown(raw)) <= 80
    whole, cut = connection.FrameCounter(), connection.FrameCounter()
    stream, half = b"\r\n\r\n" + raw, len(raw) // 2
    assert whole.small(stream, 10**6) == cut.small(stream[:half], 10**6) + cut.small(stream[half:], 10**6)
    assert time.thread_time() - started < SECONDS, f"{len(raw)} bytes took {time.thread_time() - started:.2f} s"


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
