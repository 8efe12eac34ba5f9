"""The examples in docstrings run and print what they say."""

import doctest
import importlib.util
import pkgutil
from pathlib import Path

import pytest

import pgkit


def modules_with_examples() -> list[str]:
    """All modules of pgkit whose docstrings hold an example."""
    names = ["pgkit", *(info.name for info in pkgutil.walk_packages([str(Path(pgkit.__file__).parent)], "pgkit."))]
    specs = [importlib.util.find_spec(name) for name in names if not name.endswith("__main__")]
    return [spec.name for spec in specs if spec and spec.origin and ">>> " in Path(spec.origin).read_text("utf-8")]


@pytest.mark.parametrize("name", modules_with_examples())
def test_examples_of_docstrings_run(name: str) -> None:
    attempted = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert attempted.attempted > 0
    assert attempted.failed == 0


def test_public_names_have_examples() -> None:
    assert len(modules_with_examples()) > 5
