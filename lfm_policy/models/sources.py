"""Where a policy is: what a source names, from a folder to a repository of the Hugging Face hub.

outputs/lift            a checkpoint, a bundle, or the folder of a run that holds a checkpoint
lift                    a bundle that is installed with the package
user/repository         one of these on the hub, user/repository@REVISION for a certain state of it
ws://robot:8000         a policy server
"""

from pathlib import Path

from lfm_policy import hub
from lfm_policy.errors import CheckpointError
from lfm_policy.models import bundle

_FILES = ["*.json", "*.safetensors", "*.onnx", bundle.CARD]
"""What is fetched of a repository."""


def is_server(source: str | Path) -> bool:
    """Say whether a source is the address of a policy server."""
    return str(source).startswith(("ws://", "wss://"))


def locate(source: str | Path, revision: str | None = None) -> Path:
    """Return the folder of a source: itself, the installed bundle of that name, or the hub's, fetched into its cache.

    Args:
        source: see above.
        revision: branch, tag or commit of a repository, where the source does not name one.

    Raises:
        CheckpointError: there is nothing of that name, it cannot be fetched, or a revision is asked of what has none.
    """
    if revision is not None:
        named = hub.hub_id(source)
        if named is None or named[1] is not None:
            raise CheckpointError(f"revision={revision} goes with USER/REPOSITORY of the hub, found '{source}'")
        source = f"{source}@{revision}"
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
    named = hub.hub_id(source)
    if named is None:
        raise CheckpointError(nothing)
    return hub.fetch(*named, _FILES, kind="model", nothing=nothing, error=CheckpointError)
