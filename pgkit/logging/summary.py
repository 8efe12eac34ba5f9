"""The summary of a population in TensorBoard: medians over its members, and what one opens first."""

import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from pgkit.logging.tensorboard import ChartGroup, TensorBoardWriter

RETURNS = ("eval/return_mean", "train/episode_return")
"""What the Custom Scalars tab shows first: a median with a band from 10 % to 90 % of the members."""

CHARTS = {
    "returns: each member, and the median": RETURNS,
    "losses": ("loss/policy", "loss/value", "policy/entropy", "value/explained_variance"),
    "optimizer": ("optimizer/lr", "optimizer/grad_norm", "optimizer/update_norm", "optimizer/update_ratio"),
}
"""What it shows then: each member and their median, and of ``optimizer/`` also each network and group by itself."""

_BAND = {"{}": 0.5, "spread/{}/p10": 0.1, "spread/{}/p90": 0.9}

Array = np.ndarray[Any, Any]


class SummaryWriter:
    """Median over members of each member's latest number; of :data:`RETURNS` also ``spread/<tag>/p10`` and ``.../p90``.

    Members log at different times. A point is written as soon as more than half of them have a new number, at the
    median of their steps. Members without a new number (failed, finished, or late) count with their latest one.

    Args:
        directory: of the TensorBoard run.
        size: P, the number of members.
        resumed: as of :class:`~pgkit.logging.tensorboard.TensorBoardWriter`.
    """

    def __init__(self, directory: Path, size: int, resumed: bool) -> None:
        self._writer = TensorBoardWriter(directory, resumed)
        self._writer.charts(chart_groups())
        self._size = size
        self._latest: dict[str, tuple[Array, Array]] = {}  # steps and numbers, (P,) each
        self._new: dict[str, Array] = {}

    def add(self, logged: Mapping[str, tuple[Array, Array, Array]], now: float) -> None:
        """Add new numbers: by tag (members, their steps, their numbers), ``(M,)`` each."""
        due = []
        for tag, (members, steps, values) in logged.items():
            empty = np.zeros(self._size, np.int64), np.full(self._size, np.nan)
            latest_steps, latest = self._latest.setdefault(tag, empty)
            latest_steps[members] = steps
            latest[members] = values
            new = self._new.setdefault(tag, np.zeros(self._size, bool))
            new[members] = True
            if 2 * new.sum() > self._size:
                due.append(tag)
        self._write(due, now)

    def text(self, tag: str, markdown: str) -> None:
        """Show a text of all members in TensorBoard's Text tab."""
        self._writer.text(tag, markdown)
        self._writer.flush()

    def close(self) -> None:
        """Write a last point of each curve that has changed since its last one."""
        with closing(self._writer):
            self._write([tag for tag, new in self._new.items() if new.any()], time.time())

    def _write(self, tags: Sequence[str], now: float) -> None:
        """Write a point of each of these curves."""
        points: dict[int, dict[str, float]] = {}
        groups: dict[bytes, list[str]] = {}  # curves of the same members at the same steps share one call of quantile
        for tag in tags:
            self._new[tag][:] = False
            steps, latest = self._latest[tag]
            present = ~np.isnan(latest)
            groups.setdefault(present.tobytes() + steps[present].tobytes(), []).append(tag)
        for tags in groups.values():
            steps, latest = self._latest[tags[0]]
            present = ~np.isnan(latest)
            numbers = np.stack([self._latest[tag][1][present] for tag in tags], 1)
            with np.errstate(invalid="ignore"):  # interpolating between infinities
                quantiles = np.quantile(numbers, list(_BAND.values()), axis=0)
            point = points.setdefault(int(np.median(steps[present])), {})
            for tag, column in zip(tags, quantiles.T.tolist(), strict=True):
                named = zip(_BAND if tag in RETURNS else ("{}",), column, strict=False)
                point |= {name.format(tag): number for name, number in named if not np.isnan(number)}
        for step, values in points.items():
            self._writer.scalars(step, values, now)
        self._writer.flush()


def chart_groups() -> list[ChartGroup]:
    """The charts of the Custom Scalars tab: returns, then losses, then the optimizer."""
    # TensorBoard 2.21 shows charts with bands in reversed order.
    bands = {tag: (tag, f"spread/{tag}/p10", f"spread/{tag}/p90") for tag in reversed(RETURNS)}
    lines = {title: {tag: line_pattern(tag) for tag in tags} for title, tags in CHARTS.items()}
    first = ChartGroup("returns: median and 10-90 % of members", bands, {})
    return [first, *(ChartGroup(title, {}, charts) for title, charts in lines.items())]


def line_pattern(tag: str) -> str:
    """The regular expression of a tag's curves: of ``optimizer/<name>`` also those of networks and groups.

    >>> line_pattern("optimizer/lr")
    '^optimizer/([^/]+/)?lr$'
    """
    first, _, name = tag.partition("/")
    return f"^{first}/([^/]+/)?{name}$" if first == "optimizer" else f"^{tag}$"
