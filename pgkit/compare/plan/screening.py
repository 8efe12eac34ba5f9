"""Screening: when learning rates are compared and dropped, fixed in the plan before anything runs.

Successive halving (Jamieson and Talwalkar 2016, arXiv 1502.07943), on steps and on seeds: every rate trains on few
seeds for a share of its steps, the better half trains on, and only the best few on all tuning seeds.
"""

from collections.abc import Sequence
from math import ceil
from typing import Any, NamedTuple

SHARES = (0.25, 0.5, 1.0)
"""Shares of the steps after which rates are dropped."""

KEEP = 0.5
"""Share of the rates that goes on at each of them."""

SEED_SHARE = 0.4
"""Share of the tuning seeds that rates train on until the last of them."""

LEAST_POINTS = 4
"""Evaluations while training that the first of them needs."""

BESIDE = 1
"""Rates on each side of the best that are never dropped."""


class Rung(NamedTuple):
    """A moment at which the rates of an arm are compared, and the worse ones dropped.

    Attributes:
        seeds: number of tuning seeds, the first ones, that the rates have trained on.
        share: of its steps that each of these runs has trained for.
        keep: share of the rates that goes on, rounded up.
    """

    seeds: int
    share: float
    keep: float

    def __str__(self) -> str:
        return f"{self.seeds} seed{'s' * (self.seeds > 1)} after {100 * self.share:.0f} % of the steps"


def make_rungs(tuning_seeds: int) -> tuple[Rung, ...]:
    """Return the rungs for so many tuning seeds."""
    seeds = max(1, round(SEED_SHARE * tuning_seeds))
    return tuple(Rung(seeds, share, KEEP) for share in SHARES)


def last_evaluation(share: float, count: int) -> int:
    """Return the position of the last evaluation up to a share of the steps, of so many from the first step to the end.

    >>> [last_evaluation(share, 4) for share in (0.0, 1 / 3, 0.6, 1.0)]
    [0, 1, 1, 3]
    """
    return int(share * (count - 1) + 1e-9)  # thirds and the like are rounded


def describe(rungs: Sequence[Rung]) -> dict[str, Any]:
    """Return the rules as plain data, as in ``plan.json``."""
    return {"rungs": [rung._asdict() for rung in rungs], "beside_the_best": BESIDE, "rule": explain(rungs)}


def explain(rungs: Sequence[Rung]) -> str:
    """Return the rules as text."""
    moments = ", ".join(map(str, rungs))
    return (
        f"each arm's rates are compared by their mean scores so far (on {moments}), and those go on that are among the "
        f"better {100 * rungs[0].keep:.0f} %, tie with one of these, or lie next to the best on the grid; what is left "
        "trains on all tuning seeds, and the highest mean is selected"
    )


def least_share(rungs: Sequence[Rung], rates: int, tuning_seeds: int) -> float:
    """Return the share of the steps of the whole grid that screening takes if it keeps no more than it must."""
    left = rates
    used = 0.0
    done = 0.0
    for rung in rungs:
        used += left * rung.seeds * (rung.share - done)
        done = rung.share
        left = max(ceil(rung.keep * left), min(left, 1 + BESIDE))
    used += left * (tuning_seeds - rungs[-1].seeds)
    return used / (rates * tuning_seeds)
