"""Names and forms in which robots send their observations."""

import json
from pathlib import Path

import numpy as np
import pytest

from lfm_envs.point_mass import CONTRACT
from lfm_policy.contract import ObservationKey
from lfm_policy.errors import ConfigError, ContractError
from lfm_policy.server.observations import Names, read_rows
from tests.server.served import OBSERVATION, STATE


def test_a_file_gives_the_robots_names(tmp_path: Path) -> None:
    file = tmp_path / "names.json"
    file.write_text(json.dumps({"observation/ee/xy": "position", "target": "goal", "both": ["goal", "position"]}))
    names = Names.read(file, CONTRACT)
    rows, ignored = read_rows({"observation": {"ee": {"xy": STATE[:2]}}, "target": STATE[2:], "prompt": "go"}, names)
    np.testing.assert_array_equal(rows, STATE[None])
    assert ignored == ("prompt",)
    rows, ignored = read_rows({"both": np.roll(STATE, 2)}, names)
    np.testing.assert_array_equal(rows, STATE[None])
    assert ignored == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"joints": "joint"}', "lead to 'joint', which the policy does not observe"),
        ('{"xy": "positon"}', "did you mean 'position'"),
        ('{"xy": 3}', "expected a JSON object"),
        ('{"xy": []}', "expected a JSON object"),
        ("[]", "expected a JSON object"),
        ("{", "cannot be read"),
        ("[" * 100_000, "cannot be read"),
        (None, "cannot be read"),
    ],
)
def test_a_file_that_cannot_be_meant(text: str | None, message: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "names.json").write_text(text)
    with pytest.raises(ConfigError, match=message):
        Names.read(tmp_path / "names.json", CONTRACT)


def test_a_single_number_is_an_observation_of_width_one() -> None:
    contract = CONTRACT.model_copy(update={"observations": (ObservationKey(name="gripper", dim=1),)})
    for value in (0.5, np.float32(0.5), [0.5], np.array([0.5]), np.array(0.5)):
        np.testing.assert_array_equal(read_rows({"gripper": value}, Names(contract))[0], [[0.5]])


def test_what_is_missing_is_told_with_what_was_found() -> None:
    with pytest.raises(ContractError, match=r"'goal' is missing: .* found \['observation/position', 'observation/targ"):
        read_rows({"observation": {"position": STATE[:2], "target": STATE[2:]}}, Names(CONTRACT))
    many = {f"name {number}": 0 for number in range(1000)}
    with pytest.raises(ContractError, match=r"'position' is missing: .*, …\]$"):
        read_rows(many, Names(CONTRACT))
    assert read_rows(OBSERVATION, Names(CONTRACT))[1] == ()
