"""The page beside the optimizers: its numbers are computed, its code runs, its pictures are there."""

import importlib
import re
from pathlib import Path
from types import ModuleType

import pytest

from pgkit.optim import list_optimizers
from pgkit.optim import registry as optim_registry

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "pgkit" / "optim" / "README.md"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """scripts/optimizers_readme.py as a module."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    return importlib.import_module("optimizers_readme")


def block(name: str) -> str:
    match = re.search(f"<!-- {name} -->\n(.*?)\n<!-- end of {name} -->", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert match is not None
    return match[1]


def test_recipes_and_their_steps_are_what_the_code_says(script: ModuleType) -> None:
    assert block("optimizers") == script.optimizer_table()
    assert block("steps") == script.step_table()


def test_first_steps_and_steady_states(script: ModuleType) -> None:
    """By hand: what the tables must say, whatever the code."""
    momentum, rmsprop = (script.step_lengths(name, 1.0, 1000) for name in ("momentum", "rmsprop"))
    assert (momentum[0], momentum[-1]) == pytest.approx((1.0, 1 / (1 - 0.9)))
    assert (rmsprop[0], rmsprop[-1]) == pytest.approx((1 / 0.01**0.5, 1.0), rel=1e-4)
    assert script.step_lengths("adam", 0.01, 1)[0] == pytest.approx(1.0, rel=1e-5)
    assert script.step_lengths("sgd", 0.01, 1)[0] == 0.01


@pytest.mark.parametrize("landscape", ["quadratic", "saddle"])
@pytest.mark.parametrize("recipe", ["sgd", "momentum", "adam"])
def test_walks_are_those_of_the_table(script: ModuleType, landscape: str, recipe: str) -> None:
    convergence = script.convergence
    (line,) = [line for line in block("convergence").splitlines() if line.startswith(f"| `{recipe}` ")]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    walk = convergence.walk(landscape, recipe)
    shown = cells[1 + list(convergence.LANDSCAPES).index(landscape)]
    assert shown == convergence.cell(convergence.LANDSCAPES[landscape], walk)
    assert walk.arrived is not None


def test_every_recipe_walks_everywhere(script: ModuleType) -> None:
    lines = block("convergence").splitlines()
    names = [re.match(r"\| `(\w+)`", line)[1] for line in lines[2:]]  # type: ignore[index]
    assert names == script.convergence.walkers()
    assert set(list_optimizers()) - set(names) == {"muon", "soap"}


def test_pictures_are_there_and_small() -> None:
    pictures = re.findall(r"!\[.*\]\((.*)\)", PAGE.read_text(encoding="utf-8"))
    assert len(pictures) == 3
    assert all(0 < (PAGE.parent / picture).stat().st_size < 300_000 for picture in pictures)


def test_the_code_on_the_page_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        optim_registry, "_REGISTRY", dict(optim_registry._REGISTRY)
    )  # what the page registers is forgotten
    codes = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(codes) == 5
    for code in codes:
        exec(compile(code, str(PAGE), "exec"), {"__name__": "page"})
    assert "careful" in list_optimizers()
