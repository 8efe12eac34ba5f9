"""The structure of the source tree, and that the checker in scripts/structure.py sees what breaks it."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = ("gymnasium", "tensorboard", "matplotlib", "pandas", "pyarrow", "scipy", "envpool", "rich", "llvmlite")


def load_checker() -> ModuleType:
    """scripts/structure.py as a module."""
    spec = importlib.util.spec_from_file_location("structure", ROOT / "scripts" / "structure.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


structure = load_checker()


def problems(root: Path, files: dict[str, str]) -> list[str]:
    """What the checker says of a tree with these files."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return structure.check(root)


def test_source_tree_is_sound() -> None:
    assert len(structure.find_modules(ROOT)) > 30
    assert structure.check(ROOT) == []


@pytest.mark.parametrize(
    ("place", "text", "problem"),
    [
        ("pgkit/returns.py", "from pgkit.config import load", "pgkit/returns.py:1: pgkit.returns (layer 1) imports"),
        ("pgkit/returns.py", "from pgkit import config", "imports pgkit.config (layer 5)"),
        ("pgkit/returns.py", "import pgkit.config", "imports pgkit.config (layer 5)"),
        ("pgkit/returns.py", "def f():\n    from pgkit.config import load", "pgkit/returns.py:2:"),
        ("pgkit/optim/core.py", "from ..config import load", "pgkit.optim.core (layer 1) imports pgkit.config"),
        ("pgkit/optim/core.py", "from pgkit.optim.recipes import x", "(layer 1) imports pgkit.optim.recipes (layer 2)"),
        ("pgkit/optim/recipes.py", "from pgkit.agents.one import x", "(layer 2) imports pgkit.agents.one (layer 4)"),
        ("agents/one.py", "from pgkit.config import load", "pgkit.agents.one (layer 4) imports pgkit.config"),
        ("pgkit/novel.py", "", "pgkit/novel.py: pgkit.novel has no layer"),
        ("pgkit/policies.py", "import pgkit.rundir", "in a circle: policies -> rundir -> policies"),
        ("pgkit/returns.py", "x = 1\n" * 401, "pgkit/returns.py: 401 lines, at most 400"),
        ("agents/one.py", "def f():\n" + "    x = 1\n" * 60, "agents/one.py:1: f has 61 lines, at most 60"),
    ],
)
def test_checker_sees(tmp_path: Path, place: str, text: str, problem: str) -> None:
    files = ["pgkit/__init__", "pgkit/config", "pgkit/returns", "pgkit/optim/__init__", "pgkit/optim/core"]
    files += ["pgkit/optim/recipes", "agents/__init__", "agents/one", "pgkit/policies"]
    sound = {f"{file}.py": "import torch\nfrom pgkit.types import x\n" for file in files}
    sound |= {"pgkit/types.py": "", "pgkit/rundir.py": "from pgkit.policies import x\n"}
    assert problems(tmp_path, sound) == []
    (found,) = problems(tmp_path, {place: text})
    assert problem in found


def test_checker_allows_lazy_circles_within_a_layer(tmp_path: Path) -> None:
    lazy = (
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import pgkit.envs\ndef f():\n    import pgkit.envs\n"
    )
    assert problems(tmp_path, {"pgkit/envs.py": "import pgkit.logging", "pgkit/logging.py": lazy}) == []


def test_checker_is_a_command_that_fails(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    script = tmp_path / "scripts" / "structure.py"
    script.write_bytes((ROOT / "scripts" / "structure.py").read_bytes())
    assert subprocess.run([sys.executable, script], capture_output=True, check=False).returncode == 0
    problems(tmp_path, {"pgkit/novel.py": ""})
    failed = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert failed.returncode == 1
    assert "novel" in failed.stdout


@pytest.mark.parametrize("module", ["pgkit", "pgkit.logging", "pgkit.checkpoint", "pgkit.returns", "pgkit.optim"])
def test_import_is_light(module: str) -> None:
    code = f"import sys, {module}; print(*({set(HEAVY)} & sys.modules.keys()))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []
