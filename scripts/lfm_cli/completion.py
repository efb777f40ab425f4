"""Shell completion: verbs, settings, their choices, presets, and files where a setting is a path.

source <(lfm completion bash)          in ~/.bashrc
source <(lfm completion zsh)           in ~/.zshrc, after compinit
lfm completion fish | source           in ~/.config/fish/config.fish
"""

import importlib
import os
from collections.abc import Sequence
from pathlib import Path

from lfm_cli.describe import VERBS, all_names
from lfm_policy.errors import ConfigError

# Bash divides words at "=" and ":": the part of a candidate that stands before the last of these is not to be repeated.
BASH = r"""_lfm() {
    local line="${COMP_LINE:0:COMP_POINT}" word="${COMP_WORDS[COMP_CWORD]}" last candidate before
    [[ $word == "=" || $word == ":" ]] && word=""
    last="${line##* }"
    before="${last%"$word"}"
    COMPREPLY=()
    while IFS= read -r candidate; do
        COMPREPLY+=("${candidate#"$before"}")
    done < <(lfm --complete "$line" 2>/dev/null)
    [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} != *[=/] ]] || compopt -o nospace
}
complete -F _lfm lfm"""
ZSH = r"""_lfm() {
    local -a found
    found=(${(f)"$(lfm --complete "${words[1,CURRENT]}" 2>/dev/null)"})
    compadd -S '' -- $found
}
compdef _lfm lfm"""
FISH = """complete -c lfm -f -a '(lfm --complete (commandline -cp) 2>/dev/null)'"""
SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}


def script(shell: str = "", *_: str) -> str:
    """Return what a shell reads to complete `lfm`.

    Raises:
        ConfigError: there is none for that shell.
    """
    if shell not in SCRIPTS:
        raise ConfigError(f"lfm completion takes one of {', '.join(SCRIPTS)}, found '{shell}'")
    return SCRIPTS[shell]


def candidates(given: Sequence[str]) -> list[str]:
    """List what the last word of a command line may become.

    Args:
        given: the line up to the cursor, as one string, with the command in front.
    """
    words = (given[0] if given else "").lstrip().split(" ")[1:]
    words = [word for word in words[:-1] if word] + words[-1:]
    if len(words) <= 1:
        found = [*VERBS, "completion", "--help", "--version"]
        return [word for word in found if word.startswith(words[0] if words else "")]
    if words[0] == "completion":
        return [word for word in SCRIPTS if word.startswith(words[-1])]
    verb, last = words[0].replace("-", "_"), words[-1]
    return _settings(verb, last) if verb in VERBS else []


def _settings(verb: str, word: str) -> list[str]:
    from lfm_cli.arguments import is_text, items_of, settings_in

    module = importlib.import_module(f"lfm_cli.{verb}")
    presets = getattr(module, "PRESETS", None)
    settings = [*(settings_in(presets) if presets else ()), *settings_in(module.Settings)]
    key, equals, value = word.partition("=")
    if not equals:
        names = [*all_names(settings), "preset"]
        return [f"{name}=" for name in names if name.startswith(key) and not name.endswith(".kind")]
    if key == "preset":
        return [f"{key}={path}" for path in _files(value)]
    for setting in settings:
        if setting.name != key:
            continue
        options = [str(choice) for choice in setting.choices]
        options += presets.options(key) if presets is not None and hasattr(presets, "options") else []
        found = [option for option in dict.fromkeys(options) if option.startswith(value)]
        text = is_text(setting.annotation) or (items_of(setting.annotation) and is_text(items_of(setting.annotation)))
        return [f"{key}={option}" for option in found or (_files(value) if text else [])]
    return []


def _files(beginning: str) -> list[str]:
    """List files and folders whose path begins so; folders with a slash at the end."""
    folder, name = os.path.split(beginning)
    place = Path(folder or ".").expanduser()
    if not place.is_dir():
        return []
    found = sorted(path for path in place.iterdir() if path.name.startswith(name) and (name or path.name[0] != "."))
    return [os.path.join(folder, path.name) + ("/" if path.is_dir() else "") for path in found]
