"""Running an example as its page says: the commands of its code blocks, in a copy of its folder, in this process."""

import re
import runpy
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from lfm_cli.__main__ import main

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
TINY_RUN = (
    "updates=4",
    "batch=16",
    "optimiser.warmup_steps=2",
    "logging.mode=disabled",
    "threads=1",
)
"""What makes a training fit a test."""
SHORT = {
    "train": [*TINY_RUN, "network.dims=[8,8]", "network.time_dim=8"],
    "evaluate": ["episodes=1", "workers=1", "videos=0", "threads=1", "solver.steps=1"],
}
"""By verb."""


def commands(example: str) -> Iterator[list[str]]:
    """The command lines of the page's bash blocks, as words."""
    page = (EXAMPLES / example / "README.md").read_text(encoding="utf-8")
    for block in re.findall(r"```bash\n(.*?)```", page, re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if words := shlex.split(line, comments=True):
                yield words


class Example:
    """A copy of an example's folder, as the working directory."""

    def __init__(self, name: str, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self._name, self._patch = folder / name, name, patch
        shutil.copytree(EXAMPLES / name, self.folder)
        patch.chdir(self.folder)
        patch.syspath_prepend(str(self.folder))

    def run(self, more: Mapping[str, Sequence[str]]) -> None:
        """Run every command of the page, with `more` arguments by verb or by script."""
        for words in commands(self._name):
            program, name, *given = words
            arguments = [name, *given, *more.get(name, ())]
            if program == "lfm":
                self._patch.setattr(sys, "argv", [program, *arguments])
                run_verb()
            else:
                assert program == "python", words
                self.script(*arguments)

    def script(self, name: str, *arguments: str) -> None:
        """Run one of its scripts."""
        self._patch.setattr(sys, "argv", [name, *arguments])
        runpy.run_path(name, run_name="__main__")


def run_verb() -> None:
    """Run the command that sys.argv holds, in this process."""
    code = 0
    try:
        main()
    except SystemExit as end:
        code = end.code or 0
    assert code == 0, sys.argv
