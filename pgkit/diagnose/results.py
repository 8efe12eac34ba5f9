"""What a diagnosis holds: quantities with intervals at points of training, tables, and verdicts.

A quantity's name is a path such as ``"noise/actor/nsr"``, the same in ``diagnosis.json``, in the table ``points`` (a
column, and its ``_low`` and ``_high``) and in TensorBoard (behind ``diagnosis/``).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

FORMAT = 1


class Quantity(NamedTuple):
    """A number with its 95 % interval; ``low`` and ``high`` may be infinite.

    >>> Quantity(1.5, 1.2, 1.9, 64).excludes(1.0)
    True
    >>> Quantity.missing("the gradient is not resolved").reason
    'the gradient is not resolved'

    Attributes:
        value: the estimate; NaN if there is none.
        low: lower end of the interval; NaN if there is none.
        high: upper end.
        n: how many independent units it rests on.
        reason: why there is no value, in words.
    """

    value: float
    low: float = math.nan
    high: float = math.nan
    n: int = 0
    reason: str | None = None

    @classmethod
    def missing(cls, reason: str) -> "Quantity":
        """A quantity that could not be measured, and why."""
        return cls(math.nan, reason=reason)

    def excludes(self, boundary: float) -> bool:
        """Whether the interval lies on one side of a boundary; False where there is no interval."""
        return self.low > boundary or self.high < boundary


def is_measured(quantity: Quantity) -> bool:
    """Whether there is a finite value."""
    return math.isfinite(quantity.value)


Quantities = Mapping[str, Quantity]
"""Quantities by name."""

Row = Mapping[str, Any]
"""One row of a table: plain numbers and strings by column."""


@dataclass
class Measured:
    """What has been measured at a point so far.

    Attributes:
        quantities: by name.
        tables: rows by name of the table, without the columns that name the point.
        env_steps: how many environment steps it took.
        seconds: how long it took.
        not_done: what was left out, and why.
    """

    quantities: dict[str, Quantity] = field(default_factory=dict)
    tables: dict[str, list[Row]] = field(default_factory=dict)
    env_steps: float = 0.0
    seconds: float = 0.0
    not_done: list[tuple[str, str]] = field(default_factory=list)

    def add(self, section: str, quantities: dict[str, Quantity]) -> None:
        """Add quantities under a section's name."""
        self.quantities |= {f"{section}/{name}": quantity for name, quantity in quantities.items()}

    def value(self, name: str) -> float:
        """A number, NaN if it was not measured."""
        quantity = self.quantities.get(name)
        return math.nan if quantity is None else quantity.value

    def merge(self, other: "Measured") -> None:
        """Add what has been measured later at the same point."""
        self.quantities |= other.quantities
        for table, rows in other.tables.items():
            self.add_rows(table, rows)
        self.env_steps += other.env_steps
        self.seconds += other.seconds
        self.not_done += other.not_done

    def add_rows(self, table: str, rows: Sequence[Row]) -> None:
        """Append rows to a table."""
        self.tables.setdefault(table, []).extend(rows)


@dataclass(frozen=True)
class PointResult:
    """What was measured at one point.

    Attributes:
        member: label of the member, such as ``"seed-3"``.
        env_steps: environment steps of that member.
        share: of the budget, in [0, 1].
        critical: whether the expensive measurements were made here, too.
        quantities: by name.
    """

    member: str
    env_steps: float
    share: float
    critical: bool
    quantities: Quantities


@dataclass(frozen=True)
class Verdict:
    """One sentence about a member, and what backs it.

    Attributes:
        member: label of the member.
        rule: name of the rule that spoke, such as ``"fragile"``.
        words: the sentence, with its numbers and intervals.
        env_steps: of the points that it is about.
        evidence: names of the quantities that it rests on.
        refuted_by: what would show that it is wrong, in words.
    """

    member: str
    rule: str
    words: str
    env_steps: Sequence[float]
    evidence: Sequence[str]
    refuted_by: str


@dataclass(frozen=True)
class Diagnosis:
    """All results for one run.

    Attributes:
        run: its directory or name.
        settings: copies, updates, episodes, seed, ... as they were used.
        points: by member, then by environment steps.
        verdicts: by member, in the order of the rules.
        summary: the first sentences of the report, by member.
        tables: rows by the name of the table; every row has ``member``, ``label`` and ``env_steps``.
        not_done: what was left out, and why, each ``(what, why)``.
        cost: ``env_steps`` and ``seconds``.
        versions: of pgkit, torch, ...
    """

    run: str
    settings: Mapping[str, Any]
    points: Sequence[PointResult]
    verdicts: Sequence[Verdict] = ()
    summary: Mapping[str, str] = field(default_factory=dict)
    tables: Mapping[str, Sequence[Row]] = field(default_factory=dict)
    not_done: Sequence[tuple[str, str]] = ()
    cost: Mapping[str, float] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)


QUANTITIES: Mapping[str, str] = {
    "return/mean": "J: mean return of whole episodes, sampled actions",
    "return/random": "mean return of the initial policy's trivial baseline: random actions",
    "noise/<network>/signal": "squared norm of the expected gradient, |G|^2",
    "noise/<network>/noise": "trace of the covariance of one batch's gradient",
    "noise/<network>/nsr": "noise / signal of one batch",
    "noise/<network>/noise_scale": "environment steps in which noise equals signal",
    "noise/<network>/pairwise_cosine": "mean cosine of two batches' gradients",
    "noise/<network>/true_cosine": "mean cosine of a batch's gradient and the expected one",
    "noise/<network>/p_flip": "p value of the sign flip test of G = 0",
    "noise/<network>/grad_norm": "median norm of a batch's gradient",
    "noise/<network>/update_snr": "squared norm of the mean update / trace of the covariance of one update",
    "post_update/<K>/mean": "mean return after K updates, over copies",
    "post_update/<K>/change": "that minus the return before, episode by episode",
    "post_update/<K>/std": "standard deviation between copies, without evaluation noise",
    "post_update/<K>/cvar10": "mean of the worst tenth of the copies (too low: evaluation noise)",
    "post_update/<K>/cvar10_crossed": "the same, ranked on half of the episodes, averaged on the other half (too high)",
    "post_update/<K>/min": "worst copy",
    "post_update/<K>/half_share": "share of copies below half of the return before, P_K(half)",
    "post_update/<K>/kl": "median KL divergence of the policies before and after",
    "post_update/<K>/norm": "median norm of the change of parameters",
    "parts/odd": "what the mean update gains to first order: [J(+d) - J(-d)] / 2",
    "parts/even": "its overshoot: [J(+d) + J(-d)] / 2 - J",
    "parts/gap": "what noise costs: mean of J(theta + d_i), minus J(theta + mean d)",
    "parts/total": "odd + even + gap: the mean change of the return by one update",
    "parts/best_multiple": "odd / (-2 even): the best multiple of the mean update",
    "interventions/<name>/half_share": "P_K(half) with one thing changed",
    "interventions/<name>/improvement": "P_K(half) as it is, minus that",
    "interventions/<name>/mean": "mean return after these updates",
    "directions/<optimizer>/<equal>/half_share": "P_1(half) of another optimizer at equal KL or equal norm",
    "directions/<optimizer>/<equal>/mean": "mean return after that update",
    "estimators/<name>/variance": "trace of the covariance of a batch's gradient",
    "estimators/<name>/bias2": "squared distance of its mean from the true gradient / squared norm of that",
    "estimators/<name>/mse": "variance + squared bias, / squared norm of the true gradient",
    "estimators/<name>/cosine": "cosine of its mean and the true gradient",
    "critic/explained_variance": "1 - Var(G - V) / Var(G), G returns of whole episodes",
    "critic/explained_variance_bootstrapped": "the same with V behind the time limit",
    "critic/explained_variance_far": "the same on steps whose time limit is too far to matter",
    "critic/bias": "mean of V - G",
    "critic/target_variance": "Var(G)",
    "curvature/top": "v'Hv of the most positive direction that was found, on fresh episodes",
    "curvature/bottom": "the same of the most negative one",
    "curvature/top_differences": "the same by finite differences of the return, common random numbers",
    "curvature/bottom_differences": "likewise",
    "curvature/mean_update": "d'Hd / |d|^2 of the mean update",
    "curvature/gradient": "g'Hg / |g|^2 of the gradient",
    "curvature/sharpness": "largest eigenvalue of minus H, in units of the loss, preconditioned as the optimizer is",
    "curvature/sharpness_ratio": "that over the optimizer's threshold of stability",
    "curvature/fisher_max": "largest eigenvalue of the Fisher matrix",
    "curvature/fisher_trace": "its trace: how much the policy can still move",
    "curvature/top_share": "share of the squared gradient in the 10 directions of largest |curvature|",
    "health/<network>/<measure>": "see the README",
    "curvature/random_up": "share of 25 random directions that surely curve up",
    "cliff/random_share": "share of random directions along which it does, as far",
    "cliff/alpha": "smallest multiple of the mean update or gradient at which the return halves",
}
"""Names and meanings; ``<...>`` stands for one part."""
