"""The Hugging Face hub: what names a repository there, and its files, fetched into the hub's cache."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from lfm_policy.errors import LFMError

HUB_ID = re.compile(r"(?P<repo>[\w-][\w.-]*/[\w-][\w.-]*)(@(?P<revision>[\w./-]+))?")
"""user/repository, or user/repository@revision."""


def hub_id(source: str | Path) -> tuple[str, str | None] | None:
    """Divide "user/repository@revision" into repository and revision (None: the newest); None for what is a path.

    outputs/litf is a slip of the pen and no repository, where there is a folder outputs.
    """
    path, matched = Path(source), HUB_ID.fullmatch(str(source))
    if matched is None or path.is_absolute() or path.parent.is_dir():
        return None
    return matched["repo"], matched["revision"]


def fetch(
    repository: str,
    revision: str | None,
    files: Sequence[str],
    *,
    kind: Literal["model", "dataset"],
    nothing: str,
    error: type[LFMError],
) -> Path:
    """Return the hub cache's copy of a repository, up to date unless HF_HUB_OFFLINE is set.

    Args:
        repository: "user/name".
        revision: branch, tag or commit; None: the newest.
        files: patterns of the files to fetch.
        kind: of the repository.
        nothing: begins the message where there is nothing.
        error: what to raise.

    Raises:
        LFMError: of type `error`: huggingface_hub is not installed, the hub cannot be reached, or refuses.
    """
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled
    except ModuleNotFoundError:
        raise error(f"{nothing}; for the hub install huggingface_hub") from None
    try:
        return Path(snapshot_download(repository, repo_type=kind, revision=revision, allow_patterns=list(files)))
    except (LocalEntryNotFoundError, OfflineModeIsEnabled):
        raise error(
            f"{nothing}; the hub cannot be reached (or HF_HUB_OFFLINE is set), and its cache holds no {repository}"
        ) from None
    except (OSError, HFValidationError) as refusal:  # the hub's refusals are OSErrors
        raise error(f"{nothing}; the hub says of {repository}: {str(refusal).strip().splitlines()[0]}") from None
