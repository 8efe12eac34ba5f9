"""Draw the README's learning curves from the runs of ``scripts/results.py``: twenty seeds, median, 10-90 % band.

python scripts/plot_learning.py                   # runs/results -> scripts/figures/learning.png, optimizers.png
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from results import CONFIGS, PLACE, Row, rows_of

from pgkit.plots import draw_each, draw_median, read_curves
from pgkit.plots.style import arm_styles

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

FIGURES = Path(__file__).parent / "figures"
SHOWN = 20
"""Seeds that are drawn as a line each; median and band are of all."""

LEARNING = [
    next(rows_of(name, shipped_only=True))
    for name in ("cartpole-reinforce", "cartpole-actor-critic", "lunarlander-actor-critic", "lunarlander-ppo")
]
OPTIMIZERS = [row for row in rows_of("cartpole-actor-critic", False) if "optimizer.name" in row.overrides]


def draw_row(axes: Axes, row: Row) -> None:
    """The evaluation returns of one row of the results table."""
    curves = read_curves(PLACE / row.name)
    look = arm_styles([row.name])[row.name]
    draw_median(axes, curves.steps, curves.values, look)
    draw_each(axes, curves.seeds[:SHOWN], look)
    axes.axhline(CONFIGS[row.config].solved, color="tab:red", linestyle="--", linewidth=1)
    axes.set_title(f"{row.config} {row.overrides} ({len(curves.seeds)} seeds)")
    axes.grid(alpha=0.25)
    axes.locator_params(axis="x", nbins=5)
    axes.xaxis.set_major_formatter(lambda steps, _: f"{steps / 1e6:g}M")


def draw(rows: Sequence[Row], columns: int, path: Path) -> None:
    """A panel for each row."""
    figure, panels = plt.subplots(
        len(rows) // columns, columns, figsize=(4.6 * columns, 3.2 * len(rows) // columns), layout="constrained"
    )
    for axes, row in zip(np.ravel(panels), rows, strict=True):
        draw_row(axes, row)
    figure.supxlabel("environment steps of each run")
    figure.supylabel("mean return of the evaluation episodes")
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=110)
    print(path)


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    draw(LEARNING, 2, FIGURES / "learning.png")
    draw(OPTIMIZERS, 3, FIGURES / "optimizers.png")
