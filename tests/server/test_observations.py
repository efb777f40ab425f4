"""Names and forms in which robots send their observations, openpi's habits among them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lfm_envs.point_mass import CONTRACT
from lfm_policy.contract import Camera, ObservationKey
from lfm_policy.errors import ConfigError, ContractError
from lfm_policy.server.observations import Names, observe
from lfm_policy.server.requests import SEED
from lfm_policy.server.server import PolicyServer
from tests.server.served import OBSERVATION, STATE, ask, connected


def read(message: dict[str, Any], names: Names) -> tuple[np.ndarray, tuple[str, ...]]:
    observed = observe(message, names)
    assert observed.frames is None
    return observed.rows, observed.ignored


def test_a_file_gives_the_robots_names(tmp_path: Path) -> None:
    file = tmp_path / "names.json"
    file.write_text(json.dumps({"observation/ee/xy": "position", "target": "goal", "both": ["goal", "position"]}))
    names = Names.read(file, CONTRACT)
    rows, ignored = read({"observation": {"ee": {"xy": STATE[:2]}}, "target": STATE[2:], "prompt": "go"}, names)
    np.testing.assert_array_equal(rows, STATE[None])
    assert ignored == ("prompt",)
    rows, ignored = read({"both": np.roll(STATE, 2)}, names)
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
        np.testing.assert_array_equal(read({"gripper": value}, Names(contract))[0], [[0.5]])


def test_what_is_missing_is_told_with_what_was_found() -> None:
    with pytest.raises(ContractError, match=r"'goal' is missing: .* found \['observation/position', 'observation/targ"):
        observe({"observation": {"position": STATE[:2], "target": STATE[2:]}}, Names(CONTRACT))
    many = {f"name {number}": 0 for number in range(1000)}
    with pytest.raises(ContractError, match=r"'position' is missing: .*, …\]$"):
        observe(many, Names(CONTRACT))
    assert read(OBSERVATION, Names(CONTRACT))[1] == ()


SEES = CONTRACT.model_copy(update={"cameras": tuple(Camera(name=name, height=6, width=4) for name in ("top", "wrist"))})


def test_pictures_are_found_under_the_names_of_robomimic_lerobot_and_openpi() -> None:
    top, wrist = np.random.default_rng(0).integers(0, 256, (2, 6, 4, 3), np.uint8)
    names = Names(SEES, {"observation/image": "top_image", "observation/wrist_image": "wrist_image"})
    for pictures in (
        {"top_image": top, "wrist_image": wrist},
        {"observation": {"top_image": top, "wrist_image": wrist[None]}},
        {"observation.images.top": np.stack([wrist, top]), "observation.images.wrist": wrist},
        {"observation/image": top, "observation/wrist_image": wrist},
    ):
        observed = observe({**OBSERVATION, **pictures}, names)
        np.testing.assert_array_equal(observed.frames, [top, wrist])
        np.testing.assert_array_equal(observed.rows, STATE[None])


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (
            np.zeros((3, 6, 4), np.uint8),
            r"'top_image': expected uint8 \(height, width, 3\) \(6, 4, 3\), found uint8 \(3, ",
        ),
        (np.zeros((6, 4, 3), np.float32), "found float32"),
        (np.zeros((0, 6, 4, 3), np.uint8), "expected one or more"),
        ([[0]], "found list"),
    ],
)
def test_other_pictures_are_refused(picture: object, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        observe({**OBSERVATION, "top_image": picture}, Names(SEES))
    with pytest.raises(ContractError, match="picture 'wrist_image' is missing"):
        observe({**OBSERVATION, "top_image": np.zeros((6, 4, 3), np.uint8)}, Names(SEES))
    with pytest.raises(ConfigError, match="only vectors can be split"):
        Names(SEES, {"both": ["top_image", "goal"]})


def test_openpis_habits_are_served(server: PolicyServer) -> None:
    habits = {
        "lists": {name: value.tolist() for name, value in OBSERVATION.items()},
        "nested": {"observation": OBSERVATION, "prompt": "go there"},
        "slashes": {f"observation/{name}": value for name, value in OBSERVATION.items()},
        "state": {"observation/state": STATE.tolist()},
    }
    with connected(server) as robot:
        expected = ask(robot, OBSERVATION | {SEED: 3})
        for name, habit in habits.items():
            reply = ask(robot, habit | {SEED: 3})
            np.testing.assert_array_equal(reply["chunk"], expected["chunk"])
            assert ("'prompt'" in reply.get("note", "")) == (name == "nested")
        assert "note" not in ask(robot, habits["nested"])  # once is enough
