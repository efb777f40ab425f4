"""A user's way as commands, against a stand-in of the hub: download, prepare, train, push, open."""

import json
from pathlib import Path

import pytest

from lfm_policy.data.demos.download import HUB
from tests.hub import elsewhere, hub, online

OPENED = """
import sys
from lfm_policy import open_policy
print(open_policy(sys.argv[1]).digest())
"""


@pytest.mark.slow
@pytest.mark.sim
def test_download_prepare_train_push(tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    there = {"datasets": tmp_path / "official", "models": tmp_path / "mine"}
    for folder in there.values():
        folder.mkdir()

    def lfm(*words: str, address: str = "http://127.0.0.1:9") -> str:
        done = elsewhere("-m", "lfm_cli", *words, **online(address, tmp_path / "cache"))
        assert done.returncode == 0, done.stderr
        return done.stdout

    official = there["datasets"] / "v1.5/lift/ph/low_dim_v15.hdf5"
    lfm("collect", "task=lift", "episodes=6", "workers=1", f"out={tmp_path / 'demos'}")
    official.parent.mkdir(parents=True)
    (tmp_path / "demos/demos.hdf5").rename(official)

    data, run = tmp_path / "data", tmp_path / "run"
    with hub(there["datasets"], HUB, "datasets") as address:
        said = lfm("download", "task=lift", "type=ph", f"out={data}", address=address)
    source = data / "lift/ph/low_dim_v15.hdf5"
    assert source.read_bytes() == official.read_bytes()
    prepared = f"lfm prepare source={source} out={source.with_suffix('.zarr')}"
    assert prepared in said.replace("\n", "")
    lfm(*prepared.split()[1:])
    lfm(
        "train", "experiment=robot/lift", "size=tiny", f"data.path={source.with_suffix('.zarr')}", "updates=20",
        "parallel=1", "logging.mode=disabled", f"out={run}",
    )  # fmt: skip
    with hub(there["models"], "user/lift") as address:
        lfm("push", f"policy={run}", "repo=user/lift", address=address)
        opened = elsewhere("-c", OPENED, "user/lift", **online(address, tmp_path / "cache"))
    assert json.loads((there["models"] / "config.json").read_text())
    here = elsewhere("-c", OPENED, str(run))
    assert opened.stdout == here.stdout != "", opened.stderr
