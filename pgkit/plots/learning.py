"""Learning curves of runs, as axes and as figures for papers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties

from pgkit.errors import PgkitError
from pgkit.plots.runs import Array, RunCurves, labels_of, read_curves
from pgkit.plots.style import ArmStyle, arm_styles, new_figure, settings, steps_axis

Style = Literal["default", "two-column"]


class Format(NamedTuple):
    """Size of a panel in inches, and settings of matplotlib."""

    width: float
    height: float
    settings: Mapping[str, Any]


FORMATS: Mapping[str, Format] = {
    "default": Format(5.4, 3.2, {}),
    "two-column": Format(
        3.3,
        2.3,
        {
            "font.size": 7,
            "legend.fontsize": 7,
            "axes.titlesize": 7.5,
            "axes.titlepad": 4,
            "xtick.major.size": 2.5,
            "ytick.major.size": 2.5,
        },
    ),
}
"""``two-column`` fits a column of the usual conference templates (3.25 to 3.5 inches) without being scaled."""

CAPTION = "median over seeds, with the band from 10 % to 90 % and each seed as a thin line"

_HEIGHTS = {"eval/return_mean": "return", "train/episode_return": "return of training episodes"}


def learning_curves(
    runs: Sequence[str | Path],
    metric: str = "return",
    labels: Sequence[str] | None = None,
    axes: Axes | None = None,
) -> Axes:
    """Draw a metric of runs against environment steps: median over seeds, band from 10 % to 90 %, each seed thin.

    Runs differ in colour and, for print in grey, in brightness and dashes. Failed seeds count as the lowest return of
    their run.

    >>> import tempfile
    >>> import pgkit
    >>> config = pgkit.load_config("cartpole-actor-critic", {"steps": 2_000, "seeds": 2, "evaluation.points": 4})
    >>> with tempfile.TemporaryDirectory() as place:
    ...     _ = pgkit.train(config, f"{place}/mine")
    ...     axes = pgkit.plots.learning_curves([f"{place}/mine"])
    >>> axes.get_ylabel()
    'return on CartPole-v1'

    Args:
        runs: directories of runs of one environment, or their names below ``runs/``.
        metric: ``"return"``, any tag in their ``metrics.parquet``, or the last part of one, such as ``"entropy"``.
        labels: one for each run; default: in what their configurations differ.
        axes: where to draw; None for a new figure.

    Raises:
        PgkitError: no run, one that cannot be read or has not logged the metric, or runs of several environments.
    """
    curves = _read(runs, metric)
    environments = list(_by_environment(curves))
    if len(environments) > 1:
        raise PgkitError(f"runs of {' and '.join(environments)} need axes each: pgkit.plots.figure_of_runs draws them")
    names = _labels(curves, labels)
    with settings():
        axes = new_figure(FORMATS["default"].height).add_subplot() if axes is None else axes
        _draw(axes, curves, names, arm_styles(names))
    return axes


def figure_of_runs(
    runs: Sequence[str | Path], metric: str = "return", labels: Sequence[str] | None = None, style: Style = "default"
) -> Figure:
    """Return a figure with the learning curves of runs, a panel for each environment.

    Args:
        runs: directories of runs, or their names below ``runs/``.
        metric: see :func:`learning_curves`.
        labels: see :func:`learning_curves`.
        style: ``"two-column"`` is as wide as a column of a paper, with text of 7 points.

    Raises:
        PgkitError: see :func:`learning_curves`, or an unknown style.
    """
    if style not in FORMATS:
        raise PgkitError(f"style must be {' or '.join(FORMATS)}, got {style!r}")
    curves = _read(runs, metric)
    names = _labels(curves, labels)
    looks = arm_styles(list(dict.fromkeys(names)))
    panels = _by_environment(curves)
    size = FORMATS[style]
    with settings(size.settings):
        figure = new_figure(size.height * len(panels), size.width)
        for axes, places in zip(figure.subplots(len(panels), squeeze=False)[:, 0], panels.values(), strict=True):
            _draw(axes, [curves[k] for k in places], [names[k] for k in places], looks)
    return figure


def draw_median(axes: Axes, steps: Array, values: Array, look: ArmStyle, label: str | None = None) -> None:
    """Draw the median of values ``(n, K)`` at steps ``(K,)`` with the band from 10 % to 90 %; NaN is left out."""
    low, median, high = np.nanquantile(values, [0.1, 0.5, 0.9], axis=0)
    axes.fill_between(steps, low, high, color=look.color, alpha=0.16, linewidth=0)
    axes.plot(steps, median, color=look.color, linestyle=look.dashes, linewidth=2.0, zorder=3, label=label)


def draw_each(axes: Axes, curves: Sequence[tuple[Array, Array]], look: ArmStyle, alpha: float = 0.5) -> None:
    """Draw every curve, steps and values ``(K,)``, as a thin line of this opacity; one collection holds all."""
    lines = [np.column_stack(curve) for curve in curves]
    axes.add_collection(LineCollection(lines, colors=look.color, linewidths=0.5, alpha=alpha, zorder=2))


def _read(runs: Sequence[str | Path], metric: str) -> list[RunCurves]:
    if isinstance(runs, str | Path) or not runs:
        raise PgkitError(f"runs must be a list with at least one directory, got {runs!r}")
    return [read_curves(run, metric) for run in runs]


def _labels(curves: Sequence[RunCurves], labels: Sequence[str] | None) -> list[str]:
    """The labels of runs, which are different within each environment.

    Raises:
        PgkitError: the labels are not one for each run, or not different.
    """
    panels = _by_environment(curves).values()
    names = ["" for _ in curves] if labels is None else list(labels)
    if len(names) != len(curves):
        raise PgkitError(f"labels must be one for each of {len(curves)} runs, got {len(names)}")
    for places in panels:
        if labels is None:
            those = [curves[k] for k in places]
            for k, label in zip(
                places, labels_of([each.config for each in those], [each.name for each in those]), strict=True
            ):
                names[k] = label
        if len({names[k] for k in places}) < len(places):
            raise PgkitError(f"labels of runs in one environment must differ, got {', '.join(names)}")
    return names


def _by_environment(curves: Sequence[RunCurves]) -> dict[str, list[int]]:
    """Positions of the runs of each environment."""
    ids = [each.config.env.id for each in curves]
    return {name: [k for k, each in enumerate(ids) if each == name] for name in dict.fromkeys(ids)}


def _draw(axes: Axes, curves: Sequence[RunCurves], labels: Sequence[str], looks: Mapping[str, ArmStyle]) -> None:
    """Draw runs of one environment."""
    for each, label in zip(curves, labels, strict=True):
        lost = f" ({each.failed} of {len(each.seeds)} failed)" if each.failed else ""
        draw_median(axes, each.steps, each.values, looks[label], label + lost)
        draw_each(axes, each.seeds, looks[label], alpha=0.35)
    steps_axis(axes)
    tag = curves[0].tag
    axes.set_ylabel(f"{_HEIGHTS.get(tag, tag)} on {curves[0].config.env.id}")
    if len(curves) > 1 or curves[0].failed:
        _legend(axes)


def _legend(axes: Axes) -> None:
    """Name the runs above the axes, in as many columns as there is room for."""
    texts = axes.get_legend_handles_labels()[1]
    figure = axes.get_figure(root=True)
    assert figure is not None
    characters = (
        figure.get_figwidth() * 72 / (0.62 * FontProperties(size=mpl.rcParams["legend.fontsize"]).get_size_in_points())
    )
    columns = int(characters / (max(map(len, texts)) + 8))
    place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0.2}
    axes.legend(ncols=min(max(columns, 1), len(texts)), handlelength=3, columnspacing=1.5, **place)
