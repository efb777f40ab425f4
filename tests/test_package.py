"""`import lfm_policy` is light, and the names that it offers are there."""

import ast
import inspect
import subprocess
import sys

import pytest

import lfm_policy


def test_importing_the_package_imports_neither_torch_nor_numpy() -> None:
    code = (
        "import sys, lfm_policy; heavy = {'torch', 'numpy', 'pydantic', 'onnxruntime'} & set(sys.modules);"
        "assert not heavy, heavy;"
        "lfm_policy.Contract; lfm_policy.RecedingHorizon; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("name", lfm_policy.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(lfm_policy, name) is getattr(lfm_policy, name)
    assert name in dir(lfm_policy)


def test_type_checkers_are_told_of_the_same_names() -> None:
    tree = ast.parse(inspect.getsource(lfm_policy))
    told = {
        (alias.asname, node.module.removeprefix("lfm_policy."))
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("lfm_policy.")
        for alias in node.names
    }
    assert told == set(lfm_policy._HOMES.items())
    assert {*lfm_policy._HOMES, "__version__"} == set(lfm_policy.__all__)


def test_other_names_are_refused() -> None:
    with pytest.raises(AttributeError, match="no attribute 'LFMPolice'"):
        _ = lfm_policy.LFMPolice
