"""The notebooks run from the first cell to the last, and results show themselves in them."""

from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

import pgkit
from pgkit.plots.page import Drawing

NOTEBOOKS = Path(__file__).parents[2] / "scripts" / "notebooks"
pytestmark = pytest.mark.process


def run_cells(name: str, *changes: tuple[str, str]) -> dict[str, Any]:
    """Run the cells of a notebook with other parameters; return its variables."""
    text = (NOTEBOOKS / f"{name}.py").read_text(encoding="utf-8")
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    names: dict[str, Any] = {"__name__": "notebook"}
    for cell in text.split("# %%")[1:]:
        if not cell.startswith(" [markdown]"):
            exec(compile(cell, name, "exec"), names)
    return names


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("notebooks")


@pytest.fixture(scope="module")
def compared(place: Path) -> dict[str, Any]:
    small = '"steps": STEPS, "learning_rates": [1e-3, 1e-2], "extensions": 0, "tuning_seeds": 2, '
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        return run_cells("compare_two_optimizers", ("STEPS = 100_000", "STEPS = 1_000"), ('"steps": STEPS, ', small))


def test_two_optimizers_are_compared(compared: dict[str, Any]) -> None:
    assert list(compared["analysis"].tables["arms"]["optimizer"]) == ["sgd", "adam"]
    assert isinstance(compared["figures"]["sensitivity"], Figure)


def test_a_figure_is_drawn_from_a_comparison(
    compared: dict[str, Any], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    names = run_cells("paper_figure")
    assert len(names["axes"].get_legend().get_texts()) == 2
    assert (place / "figure.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.slow
def test_the_lecture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = run_cells("rates_cliffs_saddles", ("STEPS = 100_000", "STEPS = 3_000"))
    assert [row["failed"] for row in names["result"].table] == [False] * 7
    assert isinstance(names["picture"].figures[0], Drawing)
    sgd, _, adam = (line.get_ydata()[-1] for line in names["axes"].lines)
    assert adam < -1 < sgd


def test_results_show_themselves(compared: dict[str, Any]) -> None:
    plan, analysis = compared["plan"], compared["analysis"]
    assert plan.hash[:12] in plan._repr_html_()
    assert "adam" in plan._repr_html_()
    assert "<table" in analysis._repr_html_()
    result = pgkit.train(pgkit.load_config("cartpole-actor-critic", {"steps": 200, "seeds": 2}))
    assert "return_mean" in result._repr_html_()
