"""The figures of a comparison. Every ``draw_...`` takes tables and matplotlib axes (or makes some), and returns axes:

>>> from pgkit.compare.report.figures import draw_expected_best
>>> import pandas as pd
>>> rows = [{"optimizer": "sgd", "k": k, "value": k / 3, "low": 0.0, "high": 1.0} for k in (1, 2, 3)]
>>> draw_expected_best(pd.DataFrame(rows)).get_xlabel()
'learning rates tried (k)'
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pgkit.compare.report.figures_pairs import (
    FEW_ENVIRONMENTS,
    draw_expected_best,
    draw_improvement,
    draw_pairs,
    draw_profiles,
)
from pgkit.compare.report.figures_runs import (
    draw_drawdowns,
    draw_learning,
    draw_learnt,
    draw_scores,
    draw_sensitivity,
    draw_setting,
)
from pgkit.compare.report.figures_stability import MEASURES, draw_stability
from pgkit.compare.tables import Analysis
from pgkit.plots.style import WIDTH, arm_legend, arm_styles, freeze_layout, new_figure, settings

__all__ = [
    "draw_across",
    "draw_all",
    "draw_drawdowns",
    "draw_expected_best",
    "draw_improvement",
    "draw_learning",
    "draw_learnt",
    "draw_pairs",
    "draw_profiles",
    "draw_scores",
    "draw_sensitivity",
    "draw_setting",
    "draw_stability",
]

MIN_COLUMNS = 4
"""Number of panels of a row that fit into the usual width of a figure."""

CAPTIONS: Mapping[str, str] = {
    "stability": "Evaluation runs at the selected setting: how many learnt, how many collapsed on the way, and the "
    "mean score of the worst tenth. Bars are 95 % intervals: Wilson's and, for the worst tenth, the bootstrap's, which "
    "knows nothing below the worst run. Fewer than ten runs have none.",
    "settings": "Each panel shows all settings of an optimizer against one of its hyperparameters: a small dot for "
    "each tuning run, a mark for the mean of a setting, hollow where a run did not learn, with a ring for the selected "
    "one. The other hyperparameters vary, too. These runs selected settings; they do not measure performance.",
    "sensitivity": "Each dot is a tuning run, each line the mean of an optimizer; the outlined mark is the selected "
    "learning rate, dotted lines are the ends of the grid. Below: the share of runs that learnt. These runs selected "
    "learning rates; they do not measure performance.",
    "learning": "Evaluation at the selected setting on fresh seeds. Top: median and 10-90 % band of each optimizer. "
    "Below: every run of one optimizer (thin), its median (bold), the medians of the others in grey.",
    "scores": "Each mark is one evaluation run: the normalised area under its learning curve. Below: the mean with its "
    "95 % interval, and a stroke at the median where the scores are skewed.",
    "pairs": "Difference of mean scores with Welch's 95 % interval, and the band of differences that do not matter.",
    "improvement": "The probability that a run of the first optimizer scores higher than a run of the second.",
    "drawdowns": "For each optimizer the evaluation run that fell deepest: best score so far minus the present one.",
    "expected_best": "The expected score of the best of k settings, drawn at random, on tuning seeds.",
    "profiles": "The share of evaluation runs above each score, with bootstrap bands.",
}
"""Caption of each figure."""

RULE = "A pair is resolved if the whole interval lies outside the band, and equivalent if it lies inside."
"""Added to the caption of pairs if there are verdicts."""


SCREENED = (
    "Crosses: rates that screening has dropped, at their mean score until then, of fewer seeds and perhaps fewer "
    "steps. They are no points of the line, and how wide the range of good rates is cannot be seen."
)
"""Added to the caption of sensitivity if rates were dropped."""


GREEDY = "Dotted: the median of the deterministic policy, which is not compared."
"""Added to the caption of learning curves if the deterministic policy was evaluated, too."""


@settings()
def draw_all(analysis: Analysis, case: tuple[str, str]) -> dict[str, Figure]:
    """Draw all figures of a case (environment, agent), by the names of :data:`CAPTIONS`.

    Figures without data, or with intervals of too few runs, are left out.
    """
    tables = {name: analysis.of(name, case) for name in ("runs", "arms", "pairs", "expected_best")}
    labels, claims = analysis.labels, analysis.claims
    figures = {}
    if len(analysis.of("sensitivity", case)):
        name, draw = ("settings", _settings) if analysis.all_tuned else ("sensitivity", _sensitivity)
        figures[name] = draw(analysis, case)
    if len(tables["arms"]):
        figures["stability"] = _stability(tables["arms"], labels)
        figures["learning"] = _learning(analysis, case)
        figures["scores"] = _around(draw_scores(tables["runs"], tables["arms"], labels))
    if len(tables["pairs"]) and analysis.intervals:
        figures["pairs"] = _around(draw_pairs(tables["pairs"], analysis.plan["rope"], claims))
        figures["improvement"] = _around(draw_improvement(tables["pairs"], claims))
    if len(tables["arms"]):
        figures["drawdowns"] = _around(draw_drawdowns(analysis.of("curves", case), labels))
    if len(tables["expected_best"]):
        unit = "settings" if analysis.all_tuned else "learning rates"
        figures["expected_best"] = _around(draw_expected_best(tables["expected_best"], labels, unit=unit))
    return {name: freeze_layout(figure) for name, figure in figures.items()}


@settings()
def draw_across(analysis: Analysis, agent: str) -> dict[str, Figure]:
    """Draw the figures of an agent across environments; none if there are fewer than three environments."""
    profiles = analysis.tables["profiles"]
    profiles = profiles[profiles["agent"] == agent]
    if len(analysis.plan["environments"]) < FEW_ENVIRONMENTS or profiles.empty:
        return {}
    return {"profiles": freeze_layout(_around(draw_profiles(profiles, analysis.labels)))}


def _around(axes: Axes) -> Figure:
    """Return the figure that holds the axes."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    return figure


def _sensitivity(analysis: Analysis, case: tuple[str, str]) -> Figure:
    """Draw scores above the share of runs that learnt, on one axis of learning rates."""
    figure = new_figure(4.2)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    sensitivity = analysis.of("sensitivity", case)
    screening = analysis.of("screening", case) if analysis.screened else None
    draw_sensitivity(analysis.of("runs", case), sensitivity, analysis.labels, above, screening).set_xlabel("")
    draw_learnt(sensitivity, analysis.labels, below)
    arm_legend(figure, arm_styles(analysis.labels))
    return figure


def _stability(arms: pd.DataFrame, labels: Sequence[str]) -> Figure:
    """Draw the measures of stability side by side, in rows that they share."""
    figure = new_figure(1.0 + 0.4 * len(labels), wspace=0.12)
    for axes, measure in zip(figure.subplots(1, len(MEASURES)), MEASURES, strict=True):
        draw_stability(arms, measure, labels, axes).tick_params(labelleft=measure is MEASURES[0])
    return figure


def _settings(analysis: Analysis, case: tuple[str, str]) -> Figure:
    """Draw a row of panels for each arm, one panel for each of its hyperparameters, on one axis of scores."""
    labels, spaces = analysis.labels, analysis.plan["spaces"]
    columns = max(MIN_COLUMNS, *map(len, spaces.values()))
    figure = new_figure(0.5 + 1.45 * len(labels), WIDTH * max(1.0, columns / MIN_COLUMNS))
    panels = figure.subplots(len(labels), columns, sharey=True, squeeze=False)
    runs, sensitivity, table = analysis.of("runs", case), analysis.of("sensitivity", case), analysis.tables["settings"]
    for row, arm in zip(panels, labels, strict=True):
        for axes, (name, each) in zip(row, spaces[arm].items(), strict=False):
            draw_setting(runs, sensitivity, table, arm, name, each, labels, axes)
        for axes in row[len(spaces[arm]) :]:
            axes.set_axis_off()
        row[0].set_title(arm, color=arm_styles(labels)[arm].color)
        row[0].set_ylabel("score")
    return figure


def _learning(analysis: Analysis, case: tuple[str, str]) -> Figure:
    """Draw all arms above, and below a small panel for each arm with all of its runs."""
    labels, curves, scale = analysis.labels, analysis.of("curves", case), analysis.scale(case[0])
    rows = -(-len(labels) // 2)
    figure = new_figure(2.7 + 1.6 * rows)
    above, below = np.ravel(figure.subfigures(2, 1, squeeze=False, height_ratios=(2.7, 1.6 * rows)))
    draw_learning(curves, scale, labels, axes=above.add_subplot())
    panels = np.ravel(below.subplots(rows, 2, sharex=True, sharey=True, squeeze=False))
    for arm, axes in zip(labels, panels, strict=False):
        draw_learning(curves, scale, labels, [arm], axes)
        axes.set_title(arm, color=arm_styles(labels)[arm].color)
        axes.label_outer()
    for axes in panels[len(labels) :]:
        axes.set_axis_off()
    return figure
