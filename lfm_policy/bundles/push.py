"""To the Hugging Face hub: the files of a checkpoint or bundle, and a card made from what was measured of them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lfm_policy.bundles.card import card, from_hub, metadata
from lfm_policy.bundles.export import evaluations
from lfm_policy.bundles.open import open_torch
from lfm_policy.bundles.weights import config_of
from lfm_policy.errors import CheckpointError, ConfigError, HubError
from lfm_policy.files import read_json
from lfm_policy.hub import HUB_ID
from lfm_policy.models import bundle
from lfm_policy.models.lerobot import is_lerobot
from lfm_policy.models.policy import LFMPolicy
from lfm_policy.models.pretrained import CHECKSUMS, EMA, WEIGHTS, checkpoint_in
from lfm_policy.models.sources import locate

if TYPE_CHECKING:
    from huggingface_hub import HfApi

MEASURED = {"success", "episodes", "interval", "mean_steps", "nfe", "ms_per_chunk"}
"""What an evaluation's summary.json has, and that of a training has not."""
_CHECKPOINT = ("config.json", "contract.json", WEIGHTS, EMA)
_LEROBOT = ("config.json", WEIGHTS, "train_config.json", "policy_*.json", "policy_*.safetensors")


@dataclass(frozen=True)
class Package:
    """What goes to the hub."""

    files: dict[str, Path | bytes]
    """Contents, or where they are, by the name there."""
    results: Mapping[str, Any] | None
    """The evaluation that the card tells of."""


@dataclass(frozen=True)
class Pushed:
    """Where it went."""

    repository: str
    url: str
    commit: str
    files: int
    """How many."""
    results: Mapping[str, Any] | None
    """The evaluation that the card tells of."""


def push_to_hub(
    source: str | Path,
    repository: str,
    *,
    results: Path | None = None,
    beside: tuple[Path, ...] = (),
    private: bool = False,
    revision: str | None = None,
    trust_code: bool = False,
) -> Pushed:
    """Send a policy to the hub, in one commit, with a card; see `package` and `push` for arguments and errors.

    Evaluations are also looked for in the source's folder, and in its folder `evaluate`.
    """
    beside = (Path(source), Path(source) / "evaluate", *beside)
    parcel = package(source, repository, results, beside, trust_code)
    return push(parcel, repository, private=private, revision=revision)


def package(
    source: str | Path, repository: str, results: Path | None = None, beside: tuple[Path, ...] = (), trust: bool = False
) -> Package:
    """Collect a policy's files and write its card.

    Args:
        source: checkpoint, run or bundle, a folder "pretrained_model" of LeRobot's, or an installed name.
        repository: USER/NAME there, for the card's commands.
        results: summary.json of an evaluation of this policy, or its folder; None: the first of it that is `beside`.
        beside: where evaluations of it would be.
        trust: allow a network class from outside this package.

    Raises:
        CheckpointError: there is no policy, or it is damaged.
        ConfigError: the results are none, or of another policy.
    """
    folder = locate(source)
    policy = open_torch(folder, trust_code=trust)
    files = _files(folder)
    measured = _given(results, _digests(folder, policy)) if results else _found(beside, _digests(folder, policy))
    text = None
    own = folder / bundle.CARD
    if measured is None and bundle.is_bundle(folder) and own.is_file():
        text = from_hub(own.read_text(encoding="utf-8"), repository)
    if text is None:
        sizes = {name: len(part) if isinstance(part, bytes) else part.stat().st_size for name, part in files.items()}
        config = config_of(policy, _dtype(folder), evaluations(policy))
        graphs = [name for name in files if name.endswith(".onnx")]
        text = card(repository, config, policy.contract, sizes, {}, measured, graphs=bool(graphs))
    head = metadata(repository.rpartition("/")[2], policy.contract, measured)
    return Package(files | {bundle.CARD: (head + text).encode()}, measured)


def push(parcel: Package, repository: str, *, private: bool = False, revision: str | None = None) -> Pushed:
    """Send a package to the hub, in one commit; the repository is made where there is none.

    Args:
        parcel: from `package`.
        repository: USER/NAME.
        private: of a repository that is made.
        revision: branch to commit to; None: main.

    Raises:
        ConfigError: huggingface_hub is not installed, or the repository has no such name.
        HubError: the hub refuses it, or cannot be reached.
    """
    matched = HUB_ID.fullmatch(repository)
    if matched is None or matched["revision"]:
        raise ConfigError(f"repo={repository}: expected USER/NAME, as the hub has it")
    try:
        from huggingface_hub import CommitOperationAdd, HfApi
        from huggingface_hub.errors import (  # its HTTPError is that of the library it speaks through
            HFValidationError,
            HTTPError,  # pyright: ignore[reportPrivateImportUsage]
            OfflineModeIsEnabled,
        )
    except ModuleNotFoundError:
        raise ConfigError("pushing needs huggingface_hub: pip install huggingface_hub") from None
    additions = [CommitOperationAdd(name, part) for name, part in parcel.files.items()]
    api, message = HfApi(library_name="lfm-policy"), f"Upload a policy ({len(additions)} files)"
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        if revision is not None:
            api.create_branch(repository, branch=revision, exist_ok=True)
        done = api.create_commit(repository, additions, commit_message=message, revision=revision)
    except OfflineModeIsEnabled:
        raise HubError(
            f"{repository} cannot be pushed: HF_HUB_OFFLINE is set; unset it where there is a network"
        ) from None
    except HFValidationError as error:
        raise ConfigError(f"repo={repository}: {error}") from None
    except (OSError, HTTPError, RuntimeError) as error:
        raise HubError(_refusal(api, repository, error)) from None
    return Pushed(repository, str(done.repo_url), done.oid, len(additions), parcel.results)


def _refusal(api: "HfApi", repository: str, error: Exception) -> str:
    """Say why the hub does not take it: its answer, or that there is none."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    said = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if status in (401, 403):
        return f"the hub does not let you write to {repository} ({status}): log in with hf auth login, or set HF_TOKEN"
    if status is not None:
        return f"the hub refuses {repository} ({status}): {said}"
    return f"{repository} cannot be pushed: {api.endpoint} cannot be reached ({said}); nothing was changed there"


def _files(folder: Path) -> dict[str, Path | bytes]:
    """Return the files that make the policy; what only a training needs stays here."""
    if bundle.is_bundle(folder):
        return {name: folder / name for name in (*bundle.read(folder).checksums, bundle.CHECKSUMS)}
    if is_lerobot(folder):
        return {path.name: path for pattern in _LEROBOT for path in sorted(folder.glob(pattern))}
    directory = checkpoint_in(folder)
    files: dict[str, Path | bytes] = {name: directory / name for name in _CHECKPOINT if (directory / name).exists()}
    if (directory / CHECKSUMS).exists():
        sums = {name: value for name, value in read_json(directory / CHECKSUMS).items() if name in files}
        files[CHECKSUMS] = (json.dumps(sums, indent=2) + "\n").encode()
    return files


def _digests(folder: Path, policy: LFMPolicy) -> set[str]:
    """Return what evaluations call the policy, in whichever form it ran."""
    if not bundle.is_bundle(folder):
        return {policy.digest()}
    stored = bundle.read(folder)
    return {policy.digest(), *(stored.digest("onnxruntime", precision) for precision in stored.graphs)}


def _dtype(folder: Path) -> bundle.Dtype:
    return bundle.read(folder).config.dtype if bundle.is_bundle(folder) else "float32"


def _given(path: Path, digests: set[str]) -> dict[str, Any]:
    found = _summary(path)
    if found is None:
        raise ConfigError(f"results={path}: expected the summary.json of an evaluation with {sorted(MEASURED)}")
    if found.get("run", {}).get("checkpoint") not in digests:
        raise ConfigError(
            f"results={path} are of the policy {found.get('run', {}).get('checkpoint')}, expected one of "
            f"{sorted(digests)}: evaluate this one (lfm evaluate)"
        )
    return found


def _found(places: tuple[Path, ...], digests: set[str]) -> dict[str, Any] | None:
    """Return the first evaluation of the policy among these places."""
    found = (_summary(place) for place in places)
    return next((s for s in found if s is not None and s.get("run", {}).get("checkpoint") in digests), None)


def _summary(path: Path) -> dict[str, Any] | None:
    """Return an evaluation's summary; None where there is none."""
    path = path / "summary.json" if path.is_dir() else path
    if not path.is_file():
        return None
    try:
        summary = read_json(path)
    except (OSError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from None
    return summary if isinstance(summary, dict) and set(summary) >= MEASURED else None
