"""Where the results of a policy lie, for commands that write them and those that tell of them."""

from pathlib import Path


def folder_of(policy: str) -> Path:
    """Say where results go by default: a policy's path below outputs/, or else its name, below outputs/evaluate."""
    if not Path(policy).exists():  # the name of an installed student, a repository of the hub, a server
        return Path("outputs/evaluate") / ("pretrained" if "/" not in policy else "") / policy.replace(":", "_")
    path = Path(policy).resolve()
    outputs = Path("outputs").resolve()
    return Path("outputs/evaluate") / (path.relative_to(outputs) if path.is_relative_to(outputs) else path.name)
