"""Which releases of LeRobot and of lfm-policy go together with this plugin."""

from importlib.metadata import PackageNotFoundError, version

KNOWN = {"lerobot": ((0, 6, 1), (0, 7)), "lfm-policy": ((0, 2), (0, 3))}
"""From the first release on, and before the second."""


def require_versions() -> None:
    """Raise ImportError where another release is installed: its plugin interface or its checkpoints are others."""
    for name, (first, before) in KNOWN.items():
        wanted = f"{name}>={_text(first)},<{_text(before)}"
        try:
            found = version(name)
        except PackageNotFoundError:
            raise ImportError(f"lerobot_policy_lfm needs {wanted}, found none: pip install '{wanted}'") from None
        if not first <= _numbers(found) < before:
            raise ImportError(f"lerobot_policy_lfm needs {wanted}, found {found}: pip install '{wanted}'")


def _numbers(text: str) -> tuple[int, ...]:
    """Return the leading numbers of a version: 0.6.1rc2 is (0, 6, 1)."""
    found = []
    for part in text.split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        found.append(int(digits))
    return tuple(found)


def _text(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))
