"""`lfm VERB key=value`, also `python -m lfm_cli VERB key=value`."""

import runpy
import sys
from pathlib import Path

from lfm_policy.errors import nearest
from lfm_policy.processes import end_with_parent

VERBS = sorted(path.stem for path in Path(__file__).parent.glob("[a-z]*.py") if "__main__" in path.read_text())


def main(verb: str | None = None) -> None:
    """Run a verb, the one that the first argument names by default."""
    end_with_parent()
    verb = verb or (sys.argv.pop(1) if len(sys.argv) > 1 else "")
    if verb not in VERBS:
        print(f"error: there is no command '{verb}': {nearest(verb, VERBS)}", file=sys.stderr)
        sys.exit(2)
    runpy.run_module(f"lfm_cli.{verb}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
