"""The edge of every verb: arguments become settings, errors become one kind message and an exit code."""

import errno
import importlib
import os
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from lfm_cli.arguments import (
    REQUIRED,
    annotation_of,
    apply,
    default_of,
    defaults_of,
    fields_of,
    merged,
    over,
    settings_in,
    takes_away,
)
from lfm_cli.describe import help_of
from lfm_cli.terminal import speak_plainly
from lfm_policy import compiling
from lfm_policy.errors import ConfigError, LFMError, printable
from lfm_policy.files import read_text
from lfm_policy.locks import owned
from lfm_policy.settings import Frozen, parse

RENAMED: Mapping[str, str] = {
    "checkpoint": "policy",
    "bundle": "policy",
    "server": "policy",
    "uri": "policy",
    "set": "weights",
    "env": "environment",
    "model": "size",
    "loss": "packet_loss",
}
"""What settings were called, and what they are called in every verb now; verbs may know more in a RENAMED of theirs."""

EXTRAS: Mapping[str, str] = {
    **dict.fromkeys(("torch", "zarr", "h5py", "safetensors", "numba", "hydra", "yaml", "torchdiffeq"), "train"),
    **dict.fromkeys(("robosuite", "mujoco", "huggingface_hub"), "sim"),
    **dict.fromkeys(("onnxruntime", "websockets", "msgpack", "prometheus_client"), "deploy"),
    **dict.fromkeys(("onnx", "onnxscript"), "export"),
    **dict.fromkeys(("matplotlib", "imageio", "PIL"), "media"),
    **dict.fromkeys(("pyarrow", "av"), "lerobot"),
    "diffusers": "diffusion",
    "ray": "scale",
    "gymnasium": "gym",
}
"""What to install for a module that is missing."""

CAUSES: Mapping[int, tuple[str, str]] = {
    errno.ENOSPC: ("the disk is full", "free some space, or choose another folder with out="),
    errno.EDQUOT: ("your quota of the disk is used up", "free some space, or choose another folder with out="),
    errno.EROFS: ("the file system is read-only", "choose another folder with out="),
    errno.EACCES: ("that is not permitted", "change its permissions, or choose another folder with out="),
    errno.EPERM: ("that is not permitted", "change its permissions, or choose another folder with out="),
    errno.ENAMETOOLONG: ("the name is too long for this file system", "choose a shorter one"),
    errno.ENOTDIR: ("a file stands where a folder is expected", "move it away, or choose another folder with out="),
    errno.EEXIST: ("a file stands in the way", "move it away, or choose another folder with out="),
    errno.EISDIR: ("a folder stands where a file is expected", "move it away, or choose another name"),
    errno.ENOENT: ("it is not there (any more)", "check the path, and whether a disk was taken away"),
    errno.EMFILE: ("too many files are open", "raise the limit (ulimit -n), or use fewer workers"),
    errno.EIO: ("the disk reports an error", "look at the disk; choose another folder with out="),
}
"""What the system's errors mean, and what to do."""


MARKS: Mapping[str, tuple[str, ...]] = {
    "checkpoint": ("train", "distill"),
    "zarr.json": ("prepare",),
    "recipe.json": ("collect", "reconstruct"),
    "episodes.jsonl": ("evaluate",),
}
"""What only these commands leave in their folder; they know whether it is of the same run."""


def run(verb: str, arguments: Sequence[str]) -> int:
    """Run a verb with `key=value` arguments; return its exit code, see `lfm --help`."""
    speak_plainly()
    compiling.tell(compiling.lines)
    out: Path | None = None
    try:
        module = importlib.import_module(f"lfm_cli.{verb}")
        if any(flag in arguments for flag in ("-h", "--help")):
            print(help_of(verb, module))
            return 0
        settings = load(verb, arguments)
        out = getattr(settings, "out", None)
        _require_place(verb, out)
        with _folder(settings):
            module.main(settings)
        if sys.stdout is not None:  # else it is closed, lfm ... >&-
            sys.stdout.flush()
    except LFMError as error:
        return _fail(str(error), 2)
    except KeyboardInterrupt:
        print("\ninterrupted: run the same command again to continue", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever reads the output has gone, as in lfm ... | head
        if sys.stdout is not None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        return _fail(told(error, out), 4)
    except ModuleNotFoundError as error:
        if (extra := EXTRAS.get((error.name or "").split(".")[0])) is None:
            raise
        return _fail(f"lfm {verb} needs {error.name}, which is not installed: pip install 'lfm-policy[{extra}]'", 2)
    except Exception as error:
        if isinstance(error, MemoryError) or re.search("allocate memory|out of memory", str(error)):
            return _fail(f"the memory is not enough ({str(error) or 'MemoryError'}): ask for less at once", 4)
        if (code := system_code(error)) is None:
            raise
        return _fail(told(OSError(code, os.strerror(code)), out), 4)
    return 0


def _require_place(verb: str, out: Path | None) -> None:
    """Check that a folder does not hold what another command has made, whose summary would be overwritten.

    Raises:
        ConfigError: it does.
    """
    made = {} if out is None else {mark: verbs for mark, verbs in MARKS.items() if (out / mark).exists()}
    if made and not any(verb in verbs for verbs in made.values()):
        makers = " or ".join(f"lfm {maker}" for maker in next(iter(made.values())))
        raise ConfigError(f"out={out} holds what {makers} has made ({', '.join(made)}): choose another folder")


def _folder(settings: Frozen) -> AbstractContextManager[None]:
    """Own the folder that a command writes to; a command that finds it out by itself owns it then.

    Of the processes of torchrun, the first one writes.
    """
    out = getattr(settings, "out", None)
    return nullcontext() if out is None or os.environ.get("RANK", "0") != "0" else owned(out)


def load(verb: str, arguments: Sequence[str]) -> Any:
    """Read a verb's settings: their defaults, presets over them, then the arguments.

    Raises:
        ConfigError: an argument cannot be read, names no setting, or has a bad value; a setting is missing.
    """
    module = importlib.import_module(f"lfm_cli.{verb}")
    model, presets = module.Settings, getattr(module, "PRESETS", None)
    renamed = {**RENAMED, **getattr(module, "RENAMED", {})}
    given = list(arguments)
    if given and "=" not in given[0] and "policy" in fields_of(model) and not takes_away(given[0]):
        given[0] = f"policy={given[0]}"
    own, given = _preset_of(given)
    chosen, given = _divided(presets, given)
    for argument in given:
        if "=" in argument:
            annotation_of(model, argument.removeprefix("+").split("=")[0], {}, renamed)
    values = defaults_of(model)
    if presets is not None:
        names = fields_of(presets)
        picked = {key: own.pop(key) for key in list(own) if key in names}
        choice = parse(presets, apply(presets, defaults_of(presets) | picked, chosen, renamed), f"lfm {verb}")
        values = merged(values, choice.values())
    either = getattr(model, "EITHER", ())
    values = over(values, own, either)
    values = apply(model, over(values, _named(either, given), either), given, renamed)
    missing = _missing(model, values)
    if missing:
        raise ConfigError("missing: " + ", ".join(f"{name}=VALUE" for name in missing) + f" (lfm {verb} --help)")
    return parse(model, values, f"lfm {verb}")


def _named(names: tuple[str, ...], arguments: list[str]) -> dict[str, Any]:
    """Return those of these settings that the arguments give."""
    return {name: text for name, _, text in (a.partition("=") for a in arguments) if name in names and text != "null"}


def _preset_of(arguments: list[str]) -> tuple[dict[str, Any], list[str]]:
    """Return the settings in the file of preset=, and the other arguments."""
    files = [argument.partition("=")[2] for argument in arguments if argument.startswith("preset=")]
    others = [argument for argument in arguments if not argument.startswith("preset=")]
    values: dict[str, Any] = {}
    for name in files:
        import yaml  # on a robot there may be none, and no preset

        path = Path(name).expanduser()
        try:
            content = yaml.safe_load(read_text(path))
        except OSError as error:
            raise ConfigError(
                f"preset={name}: expected a YAML file of settings, found none ({error.strerror})"
            ) from None
        except (UnicodeDecodeError, yaml.YAMLError) as error:
            raise ConfigError(f"preset={name}: expected a YAML file of settings, {error}") from None
        except RecursionError:
            raise ConfigError(f"preset={name}: expected a YAML file of settings, found one nested too deep") from None
        if not isinstance(content, dict):
            raise ConfigError(f"preset={name}: expected settings, one a line as key: value, found {content!r}")
        values = merged(values, content)
    return values, others


def _divided(presets: Any, arguments: list[str]) -> tuple[list[str], list[str]]:
    """Separate the arguments that choose presets from the others."""
    names = {} if presets is None else fields_of(presets)
    chosen = [argument for argument in arguments if argument.partition("=")[0] in names]
    return chosen, [argument for argument in arguments if argument not in chosen]


def _missing(model: Any, values: Mapping[str, Any]) -> list[str]:
    """List settings without a default that nobody gave."""
    missing = []
    needed = [name for name, info in fields_of(model).items() if default_of(info) is REQUIRED]
    for setting in settings_in(model):
        if setting.default is not REQUIRED:
            continue
        *path, last = setting.name.split(".")
        node: Any = values
        for part in path:
            nothing = {} if node is values and part in needed else None  # {}: all of a record that must be given
            node = node.get(part, nothing) if isinstance(node, Mapping) else None
        other = isinstance(node, Mapping) and setting.of not in ("", node.get("kind", setting.of))
        if not other and isinstance(node, Mapping) and last not in node:
            missing.append(setting.name)
    return list(dict.fromkeys(missing))


def told(error: OSError, out: Path | None = None) -> str:
    """Say in one line what the system refused, what to do, and that nothing is lost.

    Args:
        error: as the system gave it.
        out: the command's output folder, for errors that name no file.
    """
    what, remedy = CAUSES.get(error.errno or 0, (error.strerror or str(error), "see to it and try again"))
    place = out if error.filename is None else error.filename
    safe = "no file is left half-written, what was finished before is safe, and the same command continues from it"
    return f"{'' if place is None else f'{place}: '}{what}: {remedy} ({safe})"


def system_code(error: BaseException) -> int | None:
    """Find the system's error behind one of a library that writes files itself, such as safetensors; None without one.

    They keep its number in their text: "I/O error: No space left on device (os error 28)".
    """
    found = re.search(r"os error (\d+)|errno = (\d+)", str(error))
    return int(found[1] or found[2]) if found else None


def _fail(message: str, code: int) -> int:
    print(f"error: {printable(message)}", file=sys.stderr)
    return code
