"""The structure of the source tree, and that the checker in scripts/structure.py sees what breaks it."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
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


UP = "pgkit.returns (layer 5) imports pgkit.config.load (layer 6)"


@pytest.mark.parametrize(
    ("place", "text", "problem"),
    [
        ("pgkit/returns.py", "from pgkit.config.load import x", f"pgkit/returns.py:1: {UP}"),
        ("pgkit/returns.py", "import pgkit.config.load", UP),
        ("pgkit/returns.py", "from pgkit.config import load", UP),
        ("pgkit/returns.py", "def f():\n    from pgkit.config.load import x", f"pgkit/returns.py:2: {UP}"),
        ("pgkit/returns.py", "if TYPE_CHECKING:\n    from pgkit.config.load import x", f"pgkit/returns.py:2: {UP}"),
        ("pgkit/optim/base.py", "from ..config import load", "pgkit.optim.base (layer 5) imports pgkit.config.load"),
        ("pgkit/optim/base.py", "import pgkit.returns", "(layer 5) imports pgkit.returns (layer 5)"),
        ("agents/one.py", "from pgkit.config.load import x", "pgkit.agents.one (layer 6) imports pgkit.config.load"),
        ("pgkit/novel/one.py", "", "pgkit/novel/one.py: pgkit.novel.one has no layer"),
        ("pgkit/losses.py", "import pgkit.losses.x\nown = 1", "'own' is no identifier"),
        ("pgkit/losses.py", "kind = 1", "pgkit/losses.py:1: 'kind' is no identifier"),
        ("pgkit/losses.py", "x.told", "'told' is no identifier"),
        ("pgkit/losses.py", "def f(here): pass", "'here' is no identifier"),
        (
            "pgkit/optim/base.py",
            "def f():\n    import pgkit.optim.chain",
            "circle: optim.base -> optim.chain -> optim.base",
        ),
        ("pgkit/returns.py", "x = 1\n" * 401, "pgkit/returns.py: 401 lines, at most 400"),
        ("agents/one.py", "def f():\n" + "    x = 1\n" * 60, "agents/one.py:1: f has 61 lines, at most 60"),
    ],
)
def test_checker_sees(tmp_path: Path, place: str, text: str, problem: str) -> None:
    names = ["pgkit/__init__", "pgkit/config/__init__", "pgkit/config/load", "pgkit/returns", "pgkit/losses"]
    names += ["pgkit/optim/__init__", "pgkit/optim/base", "agents/__init__", "agents/one", "pgkit/errors"]
    files = {f"{name}.py": "import torch\n" for name in names}
    files |= {"pgkit/optim/chain.py": "from pgkit.errors import x\nfrom pgkit.optim.base import x\n"}
    assert problems(tmp_path, files) == []
    (problem_line,) = problems(tmp_path, {place: text})
    assert problem in problem_line


def test_checker_refuses_modules_at_the_root(tmp_path: Path) -> None:
    listed = problems(tmp_path, {"pgkit/novel.py": ""})
    assert "pgkit/novel.py: belongs in a package" in listed


def test_checker_is_a_command_that_fails(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    script = tmp_path / "scripts" / "structure.py"
    script.write_bytes((ROOT / "scripts" / "structure.py").read_bytes())
    assert subprocess.run([sys.executable, script], capture_output=True, check=False).returncode == 0
    problems(tmp_path, {"pgkit/novel.py": ""})
    failed = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert failed.returncode == 1
    assert "novel" in failed.stdout


@pytest.mark.parametrize("module", ["pgkit", "pgkit.logging", "pgkit.runs.checkpoint", "pgkit.returns", "pgkit.optim"])
def test_import_is_light(module: str) -> None:
    code = f"import sys, {module}; print(*({set(HEAVY)} & sys.modules.keys()))"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.split() == []
