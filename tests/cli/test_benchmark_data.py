"""What the data benchmark compares is the same."""

from pathlib import Path

import pytest
import torch

from lfm_cli.benchmarks import data

pytest.importorskip("robomimic", reason="the peer that is compared with")
pytestmark = [
    pytest.mark.sim,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*pkg_resources.*:UserWarning"),
]


def test_prepared_windows_are_robomimics_own(tmp_path: Path) -> None:
    data.write_demonstrations(tmp_path / "demos.hdf5", count=3, length=20)
    data.prepare_store(tmp_path / "demos.hdf5", tmp_path / "demos.zarr")
    ours, theirs = data.windows(tmp_path / "demos.zarr"), data.sequence_dataset(tmp_path / "demos.hdf5", "all")
    assert len(ours) == 60
    data.require_equal(ours, theirs)
    ours.rows[7] = ours.rows[8]
    with pytest.raises(AssertionError):
        data.require_equal(ours, theirs)
    assert ours.gather(torch.arange(2)).observation.shape == (2, 16, TASK_WIDTH)


TASK_WIDTH = 19
