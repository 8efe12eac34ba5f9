"""Code generators that are imported when something is compiled: every path exists, and respects the layers."""

import importlib
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from pgkit.compiler.lazy import lazy_kernel

ROOT = Path(__file__).parents[2]


def lazy_paths() -> list[tuple[Path, str]]:
    """(file, path) of every call of ``lazy_kernel`` in the sources."""
    return [
        (file, path)
        for file in sorted((ROOT / "pgkit").rglob("*.py"))
        for path in re.findall(r'^\w+ = lazy_kernel\(\s*"([^"]+)"', file.read_text(encoding="utf-8"), re.MULTILINE)
    ]


@pytest.fixture
def structure(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    return importlib.import_module("structure")


def test_every_path_names_a_function_of_a_layer_below(structure: ModuleType) -> None:
    paths = lazy_paths()
    assert len(paths) > 1
    for file, path in paths:
        module, _, name = path.partition(":")
        assert callable(getattr(importlib.import_module(module), name)), path
        importer = ".".join(file.relative_to(ROOT / "pgkit").with_suffix("").parts)
        assert structure.may_import(importer, module.removeprefix("pgkit.")), f"{importer} -> {path}"


def test_a_kernel_is_compiled_once_for_the_same_arguments() -> None:
    compile_once = lazy_kernel("fractions:Fraction")
    assert compile_once(1, 3) is compile_once(1, 3)
    assert compile_once(1, 3) != compile_once(2, 3)


def test_modules_that_compile_import_no_llvm_before() -> None:
    program = "import sys, pgkit.training.train; print('llvmlite' in sys.modules)"
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert printed.stdout.strip() == "False"
