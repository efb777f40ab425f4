"""Lines of episodes are what was written, or refused."""

from pathlib import Path

import pytest

from lfm_policy.errors import DataError
from lfm_policy.rollout.episode_log import EpisodeLog, read_episodes
from lfm_policy.rollout.records import EpisodeResult

IDENTITY = {"environment": "point_mass"}
RESULTS = [
    EpisodeResult(
        seed=seed,
        success=seed % 2 == 0,
        steps=40,
        steps_to_success=None,
        chunks=5,
        nfe=20,
        final_reward=0.25,
        digest="0123abcd",
        chunk_ms=(1.5, 2.25),
        policy_seconds=0.1,
        wall_seconds=1.0,
        workers=1,
    )
    for seed in range(2)
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    log = EpisodeLog(tmp_path, IDENTITY)
    for result in RESULTS:
        log.on_end(result)
    return log.path


def test_every_flipped_bit_is_refused_or_ends_the_last_line(path: Path) -> None:
    content = path.read_bytes()
    assert read_episodes(path) == RESULTS
    accepted = []
    for place in range(0, len(content)):
        flipped = bytearray(content)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        try:
            found = read_episodes(path)
        except DataError:
            continue
        accepted.append(place)
        assert found == RESULTS[: len(found)]
    assert accepted == [len(content) - 1]


def test_lines_of_earlier_versions_are_read(path: Path) -> None:
    path.write_text("".join(f"{result.model_dump_json()}\n" for result in RESULTS))
    assert read_episodes(path) == RESULTS


def test_bytes_that_are_no_text_are_one_clear_error(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\xff\xfe\n")
    with pytest.raises(DataError, match=r"line 3: expected an episode, found '��' \(1 faults"):
        read_episodes(path)
    path.write_bytes(path.read_bytes()[:-10] + b"\xff")
    EpisodeLog(path.parent, IDENTITY)  # an unfinished last line is dropped, whatever its bytes
    assert read_episodes(path) == RESULTS[:1]


@pytest.mark.parametrize("content", [b"\xff", b"[1]", b"{"])
def test_a_damaged_identity_is_one_clear_error(path: Path, content: bytes) -> None:
    (path.parent / "run.json").write_bytes(content)
    with pytest.raises(DataError, match=r"run\.json is damaged"):
        EpisodeLog(path.parent, IDENTITY)
