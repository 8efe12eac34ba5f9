"""All figures of a diagnosis, with captions, and several arms side by side.

>>> from pgkit.diagnose.results import Diagnosis, PointResult, Quantity
>>> points = [PointResult("seed-0", 0.0, 0.0, False, {"return/mean": Quantity(9.5, 9.0, 10.0, 100)})]
>>> [drawing.name for drawing in draw_all(Diagnosis("runs/short", {}, points))]
['seed-0-timeline']
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pgkit.diagnose.pool import results_of
from pgkit.diagnose.report.figures_gradient import (
    draw_cosines,
    draw_curvature,
    draw_estimators,
    draw_noise,
    draw_pairwise_cosines,
    draw_probes,
)
from pgkit.diagnose.report.figures_networks import draw_critic, draw_health
from pgkit.diagnose.report.figures_return import (
    draw_directions,
    draw_interventions,
    draw_parts,
    draw_post_update,
    draw_same_states,
    draw_timeline,
)
from pgkit.diagnose.results import Diagnosis, PointResult, Row
from pgkit.plots.page import Drawing, drawing
from pgkit.plots.style import ArmStyle, arm_legend, arm_styles, freeze_layout, new_figure, percent, settings

CAPTIONS: Mapping[str, str] = {
    "side-by-side": "What matters most, of all members side by side.",
    "same-states": "What the next updates of each member's optimizer do to the same policies.",
    "timeline": "The return J of frozen policies along training, with 95 % intervals (band and strokes); rings mark "
    "the points that were looked at closely. Below, a dot at each point that a rule speaks about.",
    "nsr": "Noise over signal of one batch's gradient (1: as much noise as signal) and the median norm of that "
    "gradient, both on log scales. An open arrow starts at a lower end: the gradient is not resolved there, or its "
    "ratio has no upper end.",
    "cosines": "Solid: the mean cosine of a batch's gradient and the expected gradient. Dotted: of two batches' "
    "gradients. Crosses: what isotropic noise of the measured size would give for two batches.",
    "pairwise-cosines": "Cosines of the gradients of all pairs of batches, at the points that were looked at closely. "
    "Dotted: where isotropic noise of the measured size would put them, if the gradient is resolved. Humps at -1 and 1 "
    "mean that most of the noise lies along one direction.",
    "estimators": "Variance and squared bias of each estimator's gradient on the same batches. The dashed line: a "
    "bias as large as the true gradient. An open triangle at the left edge: not above zero.",
    "critic": "Top, at the points that were looked at closely: values against Monte-Carlo returns of whole episodes, "
    "nothing counted behind the time limit, dark where there are many steps (log); on the dashed diagonal the critic "
    "is right. Below: explained variance; 0 is no better than a constant.",
    "post-update": "Each half violin shows the returns of copies of the policy that trained on with fresh random "
    "numbers: one update to the left, K to the right; a dot marks their mean, a black stroke the return before. "
    "Below: the share that fell below half of it, with Wilson's interval.",
    "parts": "The mean change of the return by one update (diamond), and its parts: what the mean update gains to "
    "first order, what it loses to curvature, and what noise costs. The three add up exactly.",
    "interventions": "K more updates once more, each time with one thing changed: the share of copies that fall "
    "below half of the return. Filled blue: resolved to be better than as it is; orange: worse; hollow: not "
    "resolved.",
    "directions": "One update of other optimizers from the same gradients, scaled to the KL divergence and to the "
    "length of the run's update.",
    "curvature": "Curvature of the return along the most positive and the most negative direction that was searched "
    "for, along the gradient and the mean update, with 95 % intervals on fresh episodes. Where both methods differ, "
    "the step of the differences is too large.",
    "probes": "Slope and curvature of the return along each direction; grey: random ones.",
    "health": "Policy, last hidden layer and weights on the states that the policy visits. With tanh, units "
    "saturate; dormant ones are a measure for ReLU.",
}
"""Caption of each figure."""


ALL = "all members"
"""What figures of several members are about."""


class _Task(NamedTuple):
    """One figure."""

    diagnosis: Diagnosis
    label: str
    name: str
    caption: str


def draw_all(diagnosis: Diagnosis, workers: int = 1) -> list[Drawing]:
    """Draw all figures of the members that :func:`members_shown` names; those without data are left out.

    Args:
        diagnosis: what was measured.
        workers: how many processes draw.
    """
    shown = members_shown(diagnosis)
    together = [drawing(freeze_layout(figure), name, ALL, CAPTIONS[name]) for name, figure in _draw_together(diagnosis)]
    tasks = [
        _Task(diagnosis, label, name, CAPTIONS[name] if len(shown) == 1 else f"{label}. {CAPTIONS[name]}")
        for label in shown
        for name in _member_figures(diagnosis, label)
    ]
    drawn = dict(results_of(_draw, tasks, workers))
    return together + [each for each in (drawn[number] for number in range(len(tasks))) if each is not None]


def _draw(task: _Task) -> Drawing | None:
    figure = _member_figures(task.diagnosis, task.label)[task.name]()
    return None if figure is None else drawing(freeze_layout(figure), task.name, task.label, task.caption)


def _draw_together(diagnosis: Diagnosis) -> Iterator[tuple[str, Figure]]:
    """Yield (name, figure) of several members, which are the arms of a comparison or the seeds of a run."""
    labels = members(diagnosis)
    if len(labels) < 2:
        return
    by_label = {label: [point for point in diagnosis.points if point.member == label] for label in labels}
    figures = {
        "side-by-side": draw_side_by_side({k: replace(diagnosis, points=points) for k, points in by_label.items()}),
        "same-states": draw_same_states(diagnosis.tables.get("same_states", ()), arm_styles(labels)),
    }
    yield from ((name, figure) for name, figure in figures.items() if figure is not None)


def members_shown(diagnosis: Diagnosis) -> list[str]:
    """Return the members that figures are drawn of: those looked at closely, or else all, three at most."""
    closely = list(dict.fromkeys(point.member for point in diagnosis.points if point.critical))
    return closely or members(diagnosis)[:3]


def members(diagnosis: Diagnosis) -> list[str]:
    """Return the labels of all members, in the order of the points."""
    return list(dict.fromkeys(point.member for point in diagnosis.points))


def _member_figures(diagnosis: Diagnosis, label: str) -> dict[str, Callable[[], Figure | None]]:
    """Return what draws the figures of one member, by name."""
    points = [point for point in diagnosis.points if point.member == label]
    verdicts = [verdict for verdict in diagnosis.verdicts if verdict.member == label]

    def rows(table: str) -> list[Row]:
        return [row for row in diagnosis.tables.get(table, ()) if row.get("label") == label]

    return {
        "timeline": lambda: draw_timeline(points, verdicts, diagnosis.settings.get("reference_return")),
        "nsr": lambda: draw_noise(points),
        "cosines": lambda: draw_cosines(points),
        "pairwise-cosines": lambda: draw_pairwise_cosines(points, rows("cosines")),
        "estimators": lambda: draw_estimators(points),
        "critic": lambda: draw_critic(points, rows("critic_histogram")),
        "post-update": lambda: draw_post_update(points, rows("updates")),
        "parts": lambda: draw_parts(points),
        "interventions": lambda: draw_interventions(points),
        "directions": lambda: draw_directions(points),
        "curvature": lambda: draw_curvature(points),
        "probes": lambda: draw_probes(points, rows("curvature")),
        "health": lambda: draw_health(points),
    }


SIDE_BY_SIDE: Mapping[str, str] = {
    "return/mean": "return J",
    "post_update/K/half_share": "fell below half\nafter K updates",
    "post_update/1/kl": "KL of one update",
    "noise/actor/nsr": "noise / signal\n(actor)",
}
"""Quantities of :func:`draw_side_by_side`, and how they are called there."""

LOG = ("post_update/1/kl", "noise/actor/nsr")


@settings()
def draw_side_by_side(diagnoses: Mapping[str, Diagnosis], names: Mapping[str, str] = SIDE_BY_SIDE) -> Figure | None:
    """Draw several arms side by side: the median over members of each quantity, single members thin.

    Args:
        diagnoses: by the label of the arm, such as an optimizer at its selected setting.
        names: quantities, and their labels; those that no arm has are left out.
    """
    shown = [name for name in names if any(name in p.quantities for d in diagnoses.values() for p in d.points)]
    if not shown:
        return None
    arms = arm_styles(list(diagnoses))
    figure = new_figure(0.9 + 1.5 * len(shown))
    panels: Any = np.ravel(figure.subplots(len(shown), 1, sharex=True, squeeze=False))
    for axes, name in zip(panels, shown, strict=True):
        if name in LOG:
            axes.set_yscale("log")
        for label, diagnosis in diagnoses.items():
            _draw_arm(axes, diagnosis, name, arms[label])
        axes.set_ylabel(names[name])
        if name.endswith("half_share"):
            axes.set_ylim(-0.03, 1.03)
            axes.yaxis.set_major_formatter(percent)
    shares = (0.0, 0.05, 0.2, 0.5, 1.0)
    panels[-1].set_xticks(np.sqrt(shares), [percent(share) for share in shares])
    panels[-1].set_xlabel("share of training (square-root scale)")
    arm_legend(figure, arms)
    return freeze_layout(figure)


def _draw_arm(axes: Axes, diagnosis: Diagnosis, name: str, look: ArmStyle) -> None:
    """Draw one quantity of one arm."""
    labels = members(diagnosis)
    by_share: dict[float, list[float]] = {}
    for label in labels:
        curve = _curve([point for point in diagnosis.points if point.member == label], name)
        for share, value in curve:
            by_share.setdefault(share, []).append(value)
        if len(labels) > 1:
            axes.plot(*_line(curve), color=look.color, linewidth=0.6, alpha=0.5)
    medians = [(share, float(np.median(values))) for share, values in sorted(by_share.items())]
    axes.plot(*_line(medians), look.marker, color=look.color, linestyle=look.dashes, markersize=4, linewidth=1.7)


def _curve(points: Sequence[PointResult], name: str) -> list[tuple[float, float]]:
    pairs = [(point.share, point.quantities[name].value) for point in points if name in point.quantities]
    return [(share, value) for share, value in pairs if math.isfinite(value)]


def _line(curve: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [math.sqrt(share) for share, _ in curve], [value for _, value in curve]
