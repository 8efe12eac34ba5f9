"""The points of one member in the order of training, as the rules of the verdicts read them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy import stats as scipy_stats

from pgkit.diagnose.results import PointResult, Quantity, Verdict
from pgkit.diagnose.thresholds import Thresholds
from pgkit.diagnose.words import number
from pgkit.stats import LEVEL

RETURN = "return/mean"
RANDOM = "return/random"
AFTER = "post_update/K"
HALF = "post_update/K/half_share"
CERTAIN = "health/policy/certain"
GRADIENT = "noise/actor/grad_norm"
NSR = "noise/actor/nsr"
P_FLIP = "noise/actor/p_flip"
ODD, EVEN, GAP, TOTAL, BEST = (f"parts/{name}" for name in ("odd", "even", "gap", "total", "best_multiple"))
EXPLAINED, TARGETS = "critic/explained_variance", "critic/target_variance"
BIAS = "estimators/{estimator}/bias2"
CLIFF = "cliff/alpha"
RANDOM_FALLS = "cliff/random_share"
TOP, BOTTOM, ALONG_GRADIENT = (f"curvature/{name}" for name in ("top", "bottom", "gradient"))
RANDOM_UP = "curvature/random_up"

NOT_MEASURED = Quantity.missing("not measured")


def get(point: PointResult, name: str) -> Quantity:
    """Return a quantity of a point, a missing one if nobody measured it."""
    return point.quantities.get(name, NOT_MEASURED)


def exists(point: PointResult, *names: str) -> bool:
    """Whether all these quantities have a value."""
    return not any(math.isnan(get(point, name).value) for name in names)


def within(quantity: Quantity, bound: float) -> bool:
    """Whether an interval lies within -bound and bound; False where either is missing."""
    return -bound <= quantity.low and quantity.high <= bound


def at_level(quantity: Quantity, level: float) -> Quantity:
    """Return a mean with its t interval at another level.

    >>> round(at_level(Quantity(0.0, -2.093, 2.093, 20), 0.99).high, 3)
    2.861
    """
    df = max(quantity.n - 1, 1)
    factor = scipy_stats.t.ppf((1 + level) / 2, df) / scipy_stats.t.ppf((1 + LEVEL) / 2, df)
    low, high = (quantity.value + float(factor) * (end - quantity.value) for end in (quantity.low, quantity.high))
    return quantity._replace(low=low, high=high)


@dataclass(frozen=True)
class History:
    """The points of one member in the order of training, and what its returns are compared with.

    Attributes:
        points: at least one.
        reference: R_ref, the return at which the task counts as solved; None if nobody says.
        estimator: name of the advantages that the run learns from, such as ``"gae-0.95"``.
        thresholds: what counts as much.
    """

    points: Sequence[PointResult]
    reference: float | None
    estimator: str | None
    thresholds: Thresholds

    @property
    def played(self) -> list[PointResult]:
        """Points with the next K updates: the only ones that rules speak of."""
        return [point for point in self.points if exists(point, f"{AFTER}/mean")]

    @property
    def trained(self) -> list[PointResult]:
        """Those of them after the first step: that an untrained critic explains nothing is no fault of the run."""
        return [point for point in self.played if point.env_steps > 0]

    @property
    def best(self) -> float:
        """R_ref; without it, the best return of this member."""
        returns = [get(point, RETURN).value for point in self.points if exists(point, RETURN)]
        return max(returns, default=math.nan) if self.reference is None else self.reference

    @property
    def span(self) -> float:
        """R_ref - R_random, the unit of returns; NaN if there is none."""
        floors = [get(point, RANDOM).value for point in self.points if exists(point, RANDOM)]
        span = self.best - floors[0] if floors else math.nan
        return span if span > 0 else math.nan

    @property
    def rope(self) -> float:
        """The change of the return that does not matter, in units of the return."""
        return self.thresholds.rope * self.span

    def is_far(self, point: PointResult) -> bool:
        """Whether the return of a point is resolved to be far from the best."""
        return get(point, RETURN).high < self.best - self.thresholds.far * self.span

    @property
    def bias(self) -> str:
        """The name of the squared bias of the estimator that the run learns from."""
        return BIAS.format(estimator=self.estimator)

    def is_solved(self, point: PointResult) -> bool:
        """Whether the return of a point is at R_ref; never without one."""
        return self.reference is not None and get(point, RETURN).value >= self.reference - self.rope

    def best_in_words(self) -> str:
        """Name the best return."""
        text = number(self.best)
        return f"the best return of this run, {text}" if self.reference is None else f"the reference, {text}"

    def speak(
        self, rule: str, points: Sequence[PointResult], words: str, evidence: Sequence[str], refuted_by: str
    ) -> Verdict:
        """Put a verdict together."""
        steps = sorted(point.env_steps for point in points)
        return Verdict(self.points[0].member, rule, words, steps, evidence, refuted_by)
