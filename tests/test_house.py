"""The laws of the house: imports point one way, in no circle; the ground is named; functions stay readable."""

import ast
import functools
from collections.abc import Collection, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]
HOUSES = {"lfm_policy": ROOT / "lfm_policy", "lfm_envs": ROOT / "envs/lfm_envs", "lfm_cli": ROOT / "scripts/lfm_cli"}
MAY_IMPORT = {
    "lfm_policy": {"lfm_policy"},
    "lfm_envs": {"lfm_policy", "lfm_envs"},
    "lfm_cli": {"lfm_policy", "lfm_envs", "lfm_cli"},
}
GROUND = {
    "__init__",
    "choices",
    "compiled",
    "compiling",
    "contract",
    "errors",
    "files",
    "hub",
    "locks",
    "processes",
    "protocols",
    "settings",
}
LONGEST_FUNCTION = 50
"""Lines of a function, without its docstring."""


def modules() -> dict[str, Path]:
    """Return all modules of the house by name."""
    found = {}
    for house, folder in HOUSES.items():
        for path in sorted(folder.rglob("*.py")):
            parts = [house, *path.relative_to(folder).with_suffix("").parts]
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


@functools.cache
def tree_of(path: Path) -> ast.Module:
    """Return the syntax tree of a module."""
    return ast.parse(path.read_text())


def imported(tree: ast.AST) -> Iterator[str]:
    """Yield the names of the house's modules that are imported when a module is; not those for type checkers."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Try | ast.With):
            yield from imported(node)


def needed(name: str) -> set[str]:
    """Return the modules that a module imports from the house."""
    names = imported(tree_of(MODULES[name]))
    whole = {found if found in MODULES else found.rpartition(".")[0] for found in names}
    return {found for found in whole if found in MODULES and found != name}


def circle(graph: Mapping[str, Collection[str]]) -> list[str]:
    """Return the names on a circle of arrows; none where there is no circle."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def rooms(arrows: Mapping[str, Collection[str]]) -> dict[str, set[str]]:
    """Return the arrows between the rooms of the library, given those between modules; ground modules are rooms."""

    def room(name: str) -> str:
        return name.split(".")[1]

    found: dict[str, set[str]] = {}
    for name, others in arrows.items():
        between = {room(other) for other in others if other.startswith("lfm_policy.")}
        if name.startswith("lfm_policy."):
            found.setdefault(room(name), set()).update(between - {room(name)})
    return found


def test_no_imports_go_in_a_circle() -> None:
    arrows = {name: needed(name) for name in MODULES}
    assert sum(map(len, arrows.values())) > len(MODULES), "imports were found"
    assert circle(arrows) == []
    assert circle(rooms(arrows)) == []


def test_a_circle_is_found() -> None:
    there = {"lfm_policy.flow.ode": {"lfm_policy.models.spec"}}
    back = {"lfm_policy.models.policy": {"lfm_policy.flow.chain"}}
    assert circle(there | back) == []
    assert set(circle(rooms(there | back))) == {"flow", "models"}


def test_imports_point_one_way() -> None:
    houses = {
        (name.split(".")[0], node.split(".")[0])
        for name, path in MODULES.items()
        for tree in ast.walk(tree_of(path))
        for node in imported(ast.Module([tree], [])) if isinstance(tree, ast.Import | ast.ImportFrom)
    }  # fmt: skip
    wrong = [pair for pair in houses if pair[1] in HOUSES and pair[1] not in MAY_IMPORT[pair[0]]]
    assert not wrong


def test_no_module_floats_beside_the_rooms() -> None:
    assert {path.stem for path in HOUSES["lfm_policy"].glob("*.py")} == GROUND


def test_functions_stay_readable() -> None:
    long = [
        f"{name}.{node.name}: {lines} lines"
        for name, path in MODULES.items()
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (lines := _lines(node)) > LONGEST_FUNCTION
    ]
    assert not long


def _lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    said = ast.get_docstring(function, clean=False)
    assert function.end_lineno is not None
    return function.end_lineno - function.lineno + 1 - (said.count("\n") + 1 if said else 0)
