"""Every code block of the documentation: commands are parsed by their own settings, Python compiles and imports."""

import ast
import importlib
import json
import re
import shlex
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from lfm_cli.command_line import load
from lfm_cli.describe import VERBS
from lfm_policy.errors import LFMError
from tests.docs.pages import PAGES, ROOT, Block, blocks, prose

INLINE = re.compile(r"`(lfm [a-z_]+(?: [^`\n]*)?)`")
PLACEHOLDER = re.compile(r"…|\.\.\.|\b(VERB|key=value)\b")
KNOWN = {"", "sh", "bash", "bibtex", "python", "text", "yaml", "json"}


def commands(text: str) -> Iterator[list[str]]:
    """Yield the words of each command of a shell block: continued lines joined, comments and prompts removed."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line.removeprefix("$ "), comments=True)
        while words and re.match(r"[A-Z_]+=", words[0]):
            words = words[1:]
        if words:
            yield [word for word in words if word != "&"]


def check(words: list[str], folder: Path = ROOT) -> None:
    """Check one command of a page in `folder`, without running it."""
    name, *arguments = words
    if name == "python":
        assert (folder / arguments[0]).exists()
    else:
        CHECKS[name](arguments)


def _lfm(arguments: list[str]) -> None:
    verb, *rest = arguments
    assert verb in VERBS
    if verb == "doctor" and not rest:
        return
    load(verb, rest)


def _torchrun(arguments: list[str]) -> None:
    at = arguments.index("-m")
    assert arguments[at + 1] == "lfm_cli"
    _lfm(arguments[at + 2 :])


def _pip(arguments: list[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert arguments[0] == "install"
    for argument in arguments[1:]:
        match = re.fullmatch(r"(?:\.|lfm-policy)\[(.+)\]", argument)
        asked = set(match[1].split(",")) if match else set()
        assert asked <= set(project["optional-dependencies"])


def _make(arguments: list[str]) -> None:
    text = (ROOT / "Makefile").read_text()
    for argument in arguments:
        name, equals, _ = argument.partition("=")
        assert re.search(rf"^{name} \?=|\$\({name}\)", text, re.M) if equals else re.search(rf"^{name}:", text, re.M)


def _pytest(arguments: list[str]) -> None:
    for argument in arguments:
        assert argument.startswith("-") or argument == "slow" or (ROOT / argument).exists()


CHECKS: dict[str, Callable[[list[str]], None]] = {
    "lfm": _lfm,
    "torchrun": _torchrun,
    "pip": _pip,
    "make": _make,
    "pytest": _pytest,
    "docker": lambda arguments: None,
    **dict.fromkeys(("lerobot-train", "lerobot-eval"), lambda arguments: None),
    "lfm-to-lerobot": lambda arguments: None,
    **dict.fromkeys(("python3.12", "source"), lambda arguments: None),
}
"""What commands may occur, and how each is checked."""


@pytest.mark.parametrize("block", list(blocks("sh", "bash")), ids=str)
def test_commands_are_those_that_exist(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(block.page.parent)
    for words in commands(block.text):
        check(words, block.page.parent)


def test_commands_inside_sentences_are_those_that_exist() -> None:
    for page in PAGES:
        for text in INLINE.findall(prose(page)):
            words = shlex.split(text)
            if not PLACEHOLDER.search(text) and "--help" not in words:
                assert words[1] in VERBS, f"{page}: {text}"
                refusal = _refusal(words[1], [word for word in words[2:] if re.fullmatch(r"[^=]+=.+", word)])
                assert not refusal or refusal.startswith("missing: "), f"{page}: {text}: {refusal}"


def _refusal(verb: str, arguments: list[str]) -> str:
    """Return what is wrong with settings that a sentence shows; empty where nothing is."""
    try:
        load(verb, arguments)
    except LFMError as error:
        return str(error)
    return ""


def test_a_misspelt_command_is_found() -> None:
    for line in ("lfm evaluate polcy=lift", "lfm evalute policy=lift", "pip install '.[trian]'", "make tset"):
        words = next(commands(line))
        with pytest.raises(Exception, match=r".*"):
            check(words)


@pytest.mark.parametrize("block", list(blocks("python")), ids=str)
def test_python_compiles_imports_and_runs_where_it_can(block: Block) -> None:
    code = compile(block.text, str(block), "exec")
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.ImportFrom) and node.module:
            module = importlib.import_module(node.module)
            for alias in node.names:
                assert hasattr(module, alias.name), f"{block}: {node.module} has no {alias.name}"
        elif isinstance(node, ast.Import):
            for alias in node.names:
                importlib.import_module(alias.name)
    if block.run:
        exec(code, {"__name__": "example"})


def test_yaml_and_json_are_well_formed() -> None:
    for block in blocks("yaml"):
        assert isinstance(yaml.safe_load(block.text), dict | list), f"{block}: expected a mapping or a list"
    for block in blocks("json"):
        assert isinstance(json.loads(block.text), dict | list), f"{block}: expected an object or an array"


def test_blocks_say_what_they_are() -> None:
    languages = {match for page in PAGES for match in re.findall(r"^ *```(\w+)$", page.read_text(), re.M)}
    assert languages <= KNOWN
