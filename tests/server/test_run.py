"""What a server does to its process."""

import subprocess
import sys

_CIRCLES = """
import collections, gc
from lfm_policy.server.run import keep_what_is_loaded

found = []
gc.callbacks.append(lambda phase, info: phase == "stop" and found.append(info["collected"]))
keep_what_is_loaded()
found.clear()
alive = collections.deque(maxlen=256)
for _ in range(4_000):
    connection = [[] for _ in range(40)]
    connection.append(connection)
    alive.append(connection)
print(max(found), sum(found))
"""


def test_connections_that_have_ended_are_collected_in_small_portions() -> None:
    ended = subprocess.run([sys.executable, "-c", _CIRCLES], capture_output=True, text=True, timeout=120, check=True)
    largest, together = map(int, ended.stdout.split())
    assert together > 100_000
    assert largest < 20_000  # 58,000 were found in one pause of 100 ms
