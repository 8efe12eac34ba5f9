"""Figures that compare arms: differences, probabilities, budgets. Each function takes the tables of one case."""

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from pgkit.compare.report.figures_runs import Array
from pgkit.plots.style import (
    FAINT,
    INK,
    SOLID,
    ArmStyle,
    arm_styles,
    arms_in,
    label_at_right,
    panel,
    percent,
    settings,
)

VERDICTS: Mapping[str, ArmStyle] = {
    "better": ArmStyle("#1b6ca8", ">", SOLID),
    "worse": ArmStyle("#b3400e", "<", SOLID),
    "equivalent": ArmStyle("#3f7d3f", "s", SOLID),
    "unresolved": ArmStyle("#8a8a8a", "o", SOLID),
}
"""Color and marker of each verdict; without claims every pair is drawn as unresolved."""

FEW_ENVIRONMENTS = 3
"""The smallest number of environments for which measures across environments are drawn."""


@settings()
def draw_pairs(pairs: pd.DataFrame, rope: float, claims: bool = True, axes: Axes | None = None) -> Axes:
    """Draw the difference of mean scores of each pair of arms with its 95 % interval (Welch) and its verdict.

    Each pair has a row; the band is the region of practical equivalence.

    Args:
        pairs: table ``pairs`` of one case.
        rope: half the width of the band.
        claims: whether verdicts are shown.
        axes: where to draw; None for a new figure.
    """
    axes = panel(axes, 0.9 + 0.3 * len(pairs))
    axes.axvspan(-rope, rope, color="#e9eef2", zorder=0)
    axes.axvline(0, color=FAINT, linewidth=0.8)
    limits = (pairs["difference"].to_numpy(), pairs["low"].to_numpy(), pairs["high"].to_numpy())
    _forest(axes, pairs, "{first} - {second}", limits, claims)
    axes.set_xlabel(f"difference of mean scores; band: within {rope:g} it does not matter")
    axes.set_title("Differences between optimizers" if claims else "Differences (exploratory: no verdicts)")
    return axes


@settings()
def draw_improvement(pairs: pd.DataFrame, claims: bool = True, axes: Axes | None = None) -> Axes:
    """Draw the probability that a run of the first arm beats one of the second, with its interval, a row for each pair.

    Arguments as :func:`draw_pairs`.
    """
    axes = panel(axes, 0.9 + 0.3 * len(pairs))
    axes.axvline(0.5, color=FAINT, linewidth=0.8)
    limits = (
        pairs["improvement"].to_numpy(),
        pairs["improvement_low"].to_numpy(),
        pairs["improvement_high"].to_numpy(),
    )
    _forest(axes, pairs, "{first} beats {second}", limits, claims)
    axes.set_xlim(-0.02, 1.02)
    axes.xaxis.set_major_formatter(percent)
    axes.set_xlabel("probability of improvement (95 % interval; 50 %: no difference)")
    axes.set_title("How often one run beats another")
    return axes


@settings()
def draw_expected_best(
    expected_best: pd.DataFrame,
    labels: Sequence[str] | None = None,
    axes: Axes | None = None,
    unit: str = "learning rates",
) -> Axes:
    """Draw the expected best score of k settings drawn from those tried, with its bootstrap band.

    Args:
        expected_best: table ``expected_best`` of one case.
        labels: all arms, in the order that decides their styles; default: those of the table.
        axes: where to draw; None for a new figure.
        unit: the name of the settings in labels and title.
    """
    axes = panel(axes)
    _bands(axes, expected_best, "k", "value", labels)
    axes.set_xlim(1, max(float(expected_best["k"].max()), 1.01))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel(f"{unit} tried (k)")
    axes.set_ylabel("expected best score")
    axes.set_title(f"What tuning buys: best of k {unit}")
    return axes


@settings()
def draw_profiles(profiles: pd.DataFrame, labels: Sequence[str] | None = None, axes: Axes | None = None) -> Axes:
    """Draw the share of runs, over all environments, whose score is above tau.

    Args:
        profiles: table ``profiles`` of one agent.
        labels: all arms, in the order that decides their styles; default: those of the table.
        axes: where to draw; None for a new figure.
    """
    axes = panel(axes)
    _bands(axes, profiles, "tau", "share", labels, at_right=False)
    axes.yaxis.set_major_formatter(percent)
    axes.margins(x=0)
    axes.set_xlabel("score tau")
    axes.set_ylabel("runs with a score above tau")
    axes.set_title("Performance profiles across environments")
    axes.legend(loc="lower left")
    return axes


def _forest(axes: Axes, pairs: pd.DataFrame, words: str, limits: tuple[Array, Array, Array], claims: bool) -> None:
    """Draw a row for each pair: its name at the left, a point with its interval, its verdict at the right."""
    for row, (pair, middle, low, high) in enumerate(zip(pairs.itertuples(), *limits, strict=True)):
        verdict = str(pair.verdict) if claims else "unresolved"
        look = VERDICTS[verdict]
        face = "white" if verdict == "unresolved" else look.color
        color = look.color if claims else INK
        axes.plot([low, high], [row, row], color=color, linewidth=1.7, solid_capstyle="butt")
        axes.scatter([middle], [row], s=34, marker=look.marker, color=face, edgecolors=color, linewidths=1.4, zorder=4)
        if claims:
            winner = {"better": f"{pair.first} better", "worse": f"{pair.second} better"}.get(verdict, verdict)
            text = f"{winner}{' (flips)' if pair.flips else ''}"
            axes.text(1.015, row, text, color=color, transform=axes.get_yaxis_transform(), va="center")
    names = [
        words.format(first=pair.first, second=pair.second).replace(" - ", " \u2212 ") for pair in pairs.itertuples()
    ]
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)


def _bands(
    axes: Axes, table: pd.DataFrame, x: str, y: str, labels: Sequence[str] | None, at_right: bool = True
) -> None:
    """Draw a line with its interval for each arm."""
    ends = []
    for arm, look in arm_styles(arms_in(labels, table["optimizer"])).items():
        line = table[table["optimizer"] == arm].sort_values(x)
        if len(line):
            axes.fill_between(line[x], line["low"], line["high"], color=look.color, alpha=0.13, linewidth=0)
            axes.plot(line[x], line[y], color=look.color, linestyle=look.dashes, linewidth=1.8, label=arm)
            ends.append((arm, float(line[y].iloc[-1]), look.color))
    if at_right:
        label_at_right(axes, ends)
