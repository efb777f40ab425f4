"""What `lfm --help` and `lfm VERB --help` print: all of it read from the verbs and their settings."""

import shutil
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

GROUPS: Mapping[str, tuple[str, ...]] = {
    "the whole way": ("demo", "reproduce"),
    "data": ("collect", "download", "render", "prepare", "export_dataset", "doctor", "reconstruct"),
    "training": ("train", "distill", "diagnose", "learning_curve"),
    "measuring": ("evaluate", "pareto", "delay", "monitor", "benchmark", "report_density", "report_images"),
    "robots": ("export", "push", "serve", "control", "load_test"),
}
VERBS = tuple(verb for verbs in GROUPS.values() for verb in verbs)
CODES = {
    0: "done",
    1: "done, and the answer is no: doctor has findings, load_test saw errors, evaluate against= says worse",
    2: "the input is at fault: one message says what was expected, what was found and what to do",
    3: "done, and undecided: evaluate against= has seen too little to tell",
    4: "the system refused: a full disk, a folder that may not be written; the same command continues later",
    130: "interrupted; the same command continues",
}
_NAME, _WIDEST = 30, 100


def summary_of(verb: str) -> str:
    """Return the first line of a verb's docstring, without importing the verb."""
    with (Path(__file__).parent / f"{verb}.py").open(encoding="utf-8") as file:
        return file.readline().strip().strip('"').split(": `lfm")[0].split(", for example")[0].rstrip(".:")


def overview() -> str:
    """Write what `lfm --help` prints."""
    lines = ["Local Flow Matching policies for robots: lfm VERB key=value ...", ""]
    for group, verbs in GROUPS.items():
        lines += [f"{group}:", *(_row(verb, summary_of(verb), 16) for verb in verbs), ""]
    lines += [
        "lfm VERB --help lists a verb's settings. lfm completion bash (or zsh, fish)",
        "prints what completes verbs, settings and presets: source <(lfm completion bash)",
        "preset=FILE.yaml puts settings of your own before those of the command line.",
        "",
        "exit codes:",
        *(_row(str(code), meaning, 6) for code, meaning in CODES.items()),
    ]
    return "\n".join(lines)


def help_of(verb: str, module: Any) -> str:
    """Write what `lfm VERB --help` prints."""
    from lfm_cli.arguments import settings_in

    lines = [_reflowed((module.__doc__ or "").strip()), ""]
    chosen = getattr(module, "PRESETS", None)
    if chosen is not None:
        lines += ["Presets (a preset of your own: preset=FILE.yaml):", ""]
        lines += [_described(setting, setting.name) for setting in settings_in(chosen)]
        lines += [""]
    lines += ["Settings:", ""]
    taken = set() if chosen is None else {setting.name for setting in settings_in(chosen)}
    kind = ""
    for setting in settings_in(module.Settings):
        if setting.name in taken or setting.name.endswith(".kind"):
            continue
        if setting.of != kind:
            kind = setting.of
            lines += ["", f"  {setting.name.split('.')[0]} of {kind}:"] if kind else [""]
        lines.append(_described(setting, setting.name))
    last = f"lfm --help explains exit codes and shell completion; lfm {verb} preset=FILE.yaml reads settings."
    lines += ["", textwrap.fill(last, _width())]
    return "\n".join(lines)


def _reflowed(doc: str) -> str:
    """Make a docstring as wide as the terminal; indented examples stay as they are."""
    paragraphs = doc.split("\n\n")
    return "\n\n".join(p if p.startswith("    ") else textwrap.fill(" ".join(p.split()), _width()) for p in paragraphs)


def _width() -> int:
    return min(shutil.get_terminal_size((80, 24)).columns, _WIDEST)


def _described(setting: Any, name: str) -> str:
    from lfm_cli.arguments import REQUIRED

    value = "VALUE" if setting.default is REQUIRED else shown(setting.default)
    text = "required: " + setting.description if setting.default is REQUIRED else setting.description
    known = [str(choice) for choice in setting.choices]
    unsaid = [choice for choice in known if choice not in setting.description]
    if known and known != ["true", "false"] and unsaid:
        text += f" [{', '.join(known)}]"
    return _row(f"{name}={value}", text, _NAME)


def shown(value: Any) -> str:
    """Write a default as one writes it on the command line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return f"[{','.join(shown(item) for item in value)}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _row(name: str, text: str, indent: int) -> str:
    """Write a name with what it means beside it, or below where the name is long."""
    lines = textwrap.wrap(text, max(20, _width() - indent - 2)) or [""]
    pad = " " * (indent + 2)
    head = f"  {name}"
    if len(head) + 1 > indent + 2:
        return "\n".join([head, *(pad + line for line in lines if line)])
    return "\n".join([f"{head:<{indent + 2}}{lines[0]}".rstrip(), *(pad + line for line in lines[1:])])


def all_names(settings: Iterable[Any]) -> list[str]:
    """List the names of settings, each once."""
    return list(dict.fromkeys(setting.name for setting in settings))
