"""`lfm VERB key=value`, also `python -m lfm_cli VERB key=value`."""

import os
import sys
from collections.abc import Sequence

from lfm_cli.describe import VERBS, overview
from lfm_policy.errors import LFMError, nearest
from lfm_policy.processes import end_with_parent, fill_standard_streams


def main(verb: str | None = None, arguments: Sequence[str] | None = None) -> None:
    """Run a verb, the one that the first argument names by default, and exit with its code; see `lfm --help`."""
    fill_standard_streams()
    end_with_parent()
    try:
        here = os.getcwd()
    except FileNotFoundError:
        sys.exit(_fail("the folder that this was called in has been removed: cd to another one"))
    if here not in sys.path:
        sys.path.append(here)  # networks and environments of the user's; last, so that they hide nothing
    given = list(sys.argv[1:] if arguments is None else arguments)
    if verb is None:
        if not given or given[0] in ("-h", "--help", "help"):
            _print(overview())
            return
        verb = given.pop(0)
    if verb in ("--version", "version"):
        from importlib.metadata import version

        _print(f"lfm-policy {version('lfm-policy')}")
    elif verb in ("completion", "--complete"):
        from lfm_cli import completion

        try:
            _print(completion.script(*given) if verb == "completion" else "\n".join(completion.candidates(given)))
        except LFMError as error:
            sys.exit(_fail(str(error)))
    elif verb.replace("-", "_") not in VERBS:
        sys.exit(_fail(f"there is no command '{verb}': {nearest(verb, VERBS)} (lfm --help)"))
    else:
        from lfm_cli.command_line import run

        if code := run(verb.replace("-", "_"), given):
            sys.exit(code)


def _print(text: str) -> None:
    from lfm_cli.terminal import speak_plainly

    speak_plainly()
    try:
        print(text, flush=True)
    except BrokenPipeError:  # lfm --help | head
        sys.stderr.close()
        sys.exit(141)


def _fail(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
