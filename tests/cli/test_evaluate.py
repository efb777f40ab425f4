"""What lfm evaluate decides itself."""

from pathlib import Path

import pytest

from lfm_cli import evaluate as EVALUATE


def test_checkpoints_of_one_name_have_folders_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    trained, bundle, elsewhere = Path("outputs/lift"), Path("outputs/bundles/lift"), Path("elsewhere/lift_old")
    for folder in (trained, bundle, elsewhere):
        folder.mkdir(parents=True)
    found = [str(EVALUATE.folder_of(str(path))) for path in (trained, tmp_path / bundle, elsewhere, Path("lift"))]
    places = ("lift", "bundles/lift", "lift_old", "pretrained/lift")
    assert found == [f"outputs/evaluate/{place}" for place in places]
