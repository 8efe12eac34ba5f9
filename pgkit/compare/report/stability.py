"""Sentences about stability in one case: how many runs learnt and collapsed, and how bad the worst ones were."""

from typing import NamedTuple

import pandas as pd

from pgkit.compare.tables import FEW_SEEDS
from pgkit.plots.style import joined, rate


class _Extreme(NamedTuple):
    """The arms that have the lowest, or the highest, value of a measure.

    Attributes:
        names: the arms, joined.
        row: the row of the first of them in the table ``arms``.
        all: whether these are all arms.
    """

    names: str
    row: pd.Series
    all: bool


def in_short(arms: pd.DataFrame) -> str:
    """Return one plain sentence about the evaluation runs of a case.

    Args:
        arms: table ``arms`` of the case, at least one row.
    """
    learnt = _clause(arms, "learnt", "learnt_rate", "learnt")
    collapsed = _clause(arms, "collapses", "collapse_rate", "collapsed on the way")
    sentence = f"{learnt}; {collapsed}; the worst tenth of the runs scored {_worst(arms)}."
    return sentence[0].upper() + sentence[1:]


def uncertainty(arms: pd.DataFrame) -> str:
    """Return the intervals of both shares, and whether they tell arms apart; arguments as :func:`in_short`."""
    runs = f"{arms['n'].min():.0f} runs per optimizer"
    if arms["n"].min() < FEW_SEEDS:
        return f"With {runs} there are too few for intervals."
    text = f"95 % intervals with {runs}: {_intervals(arms, 'learnt')} of runs learn, "
    text += f"{_intervals(arms, 'collapse')} collapse."
    if len(arms) == 1:
        return text
    apart = [verb for name, verb in (("learnt", "learn"), ("collapse", "collapse")) if _lie_apart(arms, name)]
    if not apart:
        return f"{text} They overlap: so few runs cannot tell the optimizers apart by them."
    return f"{text} Those of runs that {joined(apart)} lie apart, a difference that is worth confirming."


def learning_rates(sensitivity: pd.DataFrame) -> str:
    """Say at which learning rates around the selected one every tuning run learnt.

    Args:
        sensitivity: table ``sensitivity`` of one case on the grid of learning rates, at least one row.
    """
    ranges = {
        str(arm): _range(of_arm.sort_values("lr")) for arm, of_arm in sensitivity.groupby("optimizer", sort=False)
    }
    by_range = {ends: [arm for arm in ranges if ranges[arm] == ends] for ends in dict.fromkeys(ranges.values())}
    nowhere = by_range.pop("", [])
    parts = [f"{ends} ({joined(names)})" for ends, names in by_range.items()]
    rates = "learning rate" if len(parts) == 1 and not parts[0].startswith("from") else "learning rates"
    text = f"All tuning runs learnt at {rates} {joined(parts)}" if parts else ""
    if not nowhere:
        return f"{text}."
    lost = f"at the selected learning rate of {joined(nowhere)} some did not learn"
    return f"{text}; {lost}." if text else f"{lost[0].upper()}{lost[1:].replace('some', 'some tuning runs')}."


def _clause(arms: pd.DataFrame, count: str, share: str, verb: str) -> str:
    """Say how many runs did something: ``from 0 of 10 runs (sgd) to 3 of 10 runs (momentum) collapsed``."""
    low, high = _extremes(arms, share)
    if not low.all:
        return f"from {_counted(low.row, count)} ({low.names}) to {_counted(high.row, count)} ({high.names}) {verb}"
    if low.row[share] in (0, 1):
        return f"{'every' if low.row[share] else 'no'} run {verb}"
    return f"{_counted(low.row, count)}{' of each optimizer' if len(arms) > 1 else ''} {verb}"


def _counted(row: pd.Series, count: str) -> str:
    """Return a share as counts: ``3 of 10 runs``."""
    return f"{row[count]:.0f} of {row['n']:.0f} runs"


def _worst(arms: pd.DataFrame) -> str:
    """Return the lowest and the highest worst tenth: ``from 0.49 (momentum) to 0.75 (adam)``."""
    low, high = _extremes(arms.assign(worst_tenth=arms["worst_tenth"].round(2)), "worst_tenth")
    text = f"{low.row['worst_tenth']:.2f}"
    return text if low.all else f"from {text} ({low.names}) to {high.row['worst_tenth']:.2f} ({high.names})"


def _intervals(arms: pd.DataFrame, name: str) -> str:
    """Return the intervals of the lowest and the highest share: ``0 to 28 % (sgd) and 11 to 60 % (momentum)``."""
    low, high = _extremes(arms, f"{name}_rate")
    ends = [f"{100 * end.row[f'{name}_low']:.0f} to {100 * end.row[f'{name}_high']:.0f} %" for end in (low, high)]
    return ends[0] if low.all else f"{ends[0]} ({low.names}) and {ends[1]} ({high.names})"


def _lie_apart(arms: pd.DataFrame, name: str) -> bool:
    """Whether the intervals of the lowest and the highest share do not overlap."""
    low, high = _extremes(arms, f"{name}_rate")
    return bool(low.row[f"{name}_high"] < high.row[f"{name}_low"])


def _extremes(arms: pd.DataFrame, column: str) -> tuple[_Extreme, _Extreme]:
    """Return the arms with the lowest and those with the highest value of a column."""
    return _arms_at(arms, column, arms[column].min()), _arms_at(arms, column, arms[column].max())


def _arms_at(arms: pd.DataFrame, column: str, value: float) -> _Extreme:
    same = arms[arms[column] == value]
    same = same[same["n"] == same["n"].iloc[0]]
    return _Extreme(joined(same["optimizer"]), same.iloc[0], len(same) == len(arms))


def _range(sensitivity: pd.DataFrame) -> str:
    """Return the learning rates of an arm around the selected one at which every run learnt; "" if there is none."""
    rates = sensitivity["lr"].tolist()
    learnt = (sensitivity["learnt_rate"] == 1).tolist()
    low = high = sensitivity["selected"].tolist().index(True)
    if not learnt[low]:
        return ""
    while low > 0 and learnt[low - 1]:
        low -= 1
    while high < len(rates) - 1 and learnt[high + 1]:
        high += 1
    return f"from {rate(rates[low])} to {rate(rates[high])}" if low < high else rate(rates[low])
