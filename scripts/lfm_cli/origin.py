"""What made a result: the command line, and the commit or version that it ran in."""

import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from rich.console import Console

from lfm_policy.reports.page import Origin

_ROOT = Path(__file__).parent


def origin() -> Origin:
    """Return the command that this process runs, as one types it, and the commit."""
    program = Path(sys.argv[0]).stem
    verb = [] if program in ("lfm", "__main__") else [program]  # a script in scripts/ is called as its verb is
    return {"command": shlex.join(["lfm", *verb, *sys.argv[1:]]), "commit": commit()}


def tell(missing: str | None, page: Path, console: Console) -> None:
    """Say where a result's page is, or why there is none."""
    text = f"report: {page}" if missing is None else f"no HTML report: {missing}"
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def commit() -> str:
    """Return the checkout's commit, marked when files differ from it (results aside); else the package's version.

    A package that is installed inside somebody else's repository is not of that repository's commit.
    """

    def git(*command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["git", *command], cwd=_ROOT, check=check, capture_output=True, text=True)

    try:
        git("ls-files", "--error-unmatch", "__main__.py")
        name = git("describe", "--always", "--abbrev=12", "--exclude=*").stdout.strip()
        changed = git("diff", "--quiet", "HEAD", "--", ":/", ":(top,exclude)docs/results", check=False).returncode
    except (subprocess.CalledProcessError, OSError):
        return f"lfm-policy {version('lfm-policy')}"
    return f"{name}-dirty" if changed else name
