"""Where a policy is: what a source names, from a folder to a repository of the Hugging Face hub.

outputs/lift            a checkpoint, a bundle, or the folder of a run that holds a checkpoint
lift                    a bundle that is installed with the package
user/repository         one of these on the hub, user/repository@REVISION for a certain state of it
ws://robot:8000         a policy server
"""

import re
from pathlib import Path

from lfm_policy.errors import CheckpointError
from lfm_policy.models import bundle

_HUB_ID = re.compile(r"(?P<repo>[\w-][\w.-]*/[\w-][\w.-]*)(@(?P<revision>[\w./-]+))?")
_FILES = ["*.json", "*.safetensors", "*.onnx", bundle.CARD]
"""What is fetched of a repository."""


def is_server(source: str | Path) -> bool:
    """Say whether a source is the address of a policy server."""
    return str(source).startswith(("ws://", "wss://"))


def locate(source: str | Path) -> Path:
    """Return the folder of a source: itself, the installed bundle of that name, or the hub's, fetched into its cache.

    Raises:
        CheckpointError: there is nothing of that name, or it cannot be fetched.
    """
    path = Path(source)
    if path.exists():
        return path
    if bundle.is_bundle(source):
        return bundle.PRETRAINED / source
    known = ", ".join(sorted(path.parent.name for path in bundle.PRETRAINED.glob(f"*/{bundle.CHECKSUMS}")))
    nothing = (
        f"there is no policy '{source}': expected the folder of a run or checkpoint (lfm train) or of a bundle "
        f"(lfm export), an installed one ({known}), USER/REPOSITORY of the hub, or ws://HOST:PORT"
    )
    matched = _HUB_ID.fullmatch(str(source))
    # outputs/litf is a slip of the pen and no repository, where there is a folder outputs
    if matched is None or (isinstance(source, Path) and path.is_absolute()) or path.parent.is_dir():
        raise CheckpointError(nothing)
    return _fetched(matched["repo"], matched["revision"], nothing)


def _fetched(repository: str, revision: str | None, nothing: str) -> Path:
    """Return the hub cache's copy of a repository, up to date unless HF_HUB_OFFLINE is set."""
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled
    except ModuleNotFoundError:
        raise CheckpointError(f"{nothing}; for the hub install huggingface_hub") from None
    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=_FILES))
    except (LocalEntryNotFoundError, OfflineModeIsEnabled):
        raise CheckpointError(
            f"{nothing}; the hub cannot be reached (or HF_HUB_OFFLINE is set), and its cache holds no {repository}"
        ) from None
    except (OSError, HFValidationError) as error:  # the hub's refusals are OSErrors
        raise CheckpointError(
            f"{nothing}; the hub says of {repository}: {str(error).strip().splitlines()[0]}"
        ) from None
