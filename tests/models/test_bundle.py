"""A contract is found by itself, wherever a policy lies."""

import shutil
from pathlib import Path

import pytest

from lfm_policy.errors import CheckpointError
from lfm_policy.models import bundle


def test_the_contract_of_a_bundle_or_of_a_run_and_none_elsewhere(tmp_path: Path) -> None:
    lift = bundle.PRETRAINED / "lift"
    found = bundle.contract_in(lift)
    assert found == bundle.read(lift).contract
    (tmp_path / "run" / "checkpoint").mkdir(parents=True)
    assert bundle.contract_in(tmp_path / "run") is None
    shutil.copy(lift / "contract.json", tmp_path / "run" / "checkpoint")
    assert bundle.contract_in(tmp_path / "run") == bundle.contract_in(tmp_path / "run" / "checkpoint") == found


def test_a_damaged_contract_is_named(tmp_path: Path) -> None:
    (tmp_path / "contract.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"contract\.json"):
        bundle.contract_in(tmp_path)
