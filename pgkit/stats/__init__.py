"""Statistics of comparisons: pure functions of NumPy arrays, each with its source.

In come scores of runs, ``(n,)`` for the n seeds of an arm, ``(n, E)`` with E environments, ``(n, K)`` for learning
curves; out go estimates with their intervals. ``curves.py`` measures single runs, ``intervals.py``, ``pairs.py`` and
``paired.py`` describe and compare arms, ``selection.py`` and ``sensitivity.py`` judge tuned settings, ``aggregate.py``
pools environments, ``ranking.py`` and ``survival.py`` rank arms and time to a threshold. Start with the example below,
then ``pairs.py``. Functions draw random numbers only from the generator that they are given.

>>> from pgkit.stats import permutation_test, verdict, welch
>>> adam, sgd = [0.91, 0.93, 0.88, 0.95, 0.9], [0.71, 0.8, 0.64, 0.75, 0.69]
>>> difference = welch(adam, sgd)
>>> verdict(difference.low, difference.high, rope=0.05), round(permutation_test(adam, sgd, rng=0), 4)
('better', 0.0079)
"""

from pgkit.stats.aggregate import (
    MIN_ENVIRONMENTS,
    Aggregates,
    Profile,
    aggregates,
    iqm,
    leave_one_out,
    optimality_gap,
    performance_profile,
)
from pgkit.stats.curves import (
    apply_floor,
    auc,
    best,
    cvar_low,
    cvar_up,
    dispersion_across_runs,
    dispersion_across_time,
    dispersion_of_final,
    drawdown,
    final,
    floor_unlearnt,
    has_collapsed,
    has_learnt,
    long_term_risk,
    max_drawdown,
    normalize,
    retention,
    risk_across_runs,
    risk_of_final,
    short_term_risk,
    steps_to_threshold,
)
from pgkit.stats.intervals import (
    MIN_TOLERANCE_RUNS,
    SKEW_LIMIT,
    Tolerance,
    bca_interval,
    skewness,
    t_interval,
    tolerance_confidence,
    tolerance_interval,
    wilson,
    worst_tenth,
)
from pgkit.stats.paired import paired_difference, paired_improvement, paired_permutation_test
from pgkit.stats.pairs import (
    ROPE,
    Difference,
    holm,
    permutation_test,
    probability_of_improvement,
    standardized_difference,
    verdict,
    welch,
)
from pgkit.stats.ranking import Ranking, rank_arms
from pgkit.stats.samples import LEVEL, MIN_EVALUATION_SEEDS, Estimate, Interval, Verdict
from pgkit.stats.selection import Selection, select
from pgkit.stats.sensitivity import (
    Sensitivity,
    area,
    beside_best,
    expected_best,
    expected_best_intervals,
    phi,
    rate_sensitivity,
    safe_ratio,
    width,
)
from pgkit.stats.survival import Survival, kaplan_meier, median_time, restricted_mean

__all__ = [
    "LEVEL",
    "MIN_ENVIRONMENTS",
    "MIN_EVALUATION_SEEDS",
    "MIN_TOLERANCE_RUNS",
    "ROPE",
    "SKEW_LIMIT",
    "Aggregates",
    "Difference",
    "Estimate",
    "Interval",
    "Profile",
    "Ranking",
    "Selection",
    "Sensitivity",
    "Survival",
    "Tolerance",
    "Verdict",
    "aggregates",
    "apply_floor",
    "area",
    "auc",
    "bca_interval",
    "beside_best",
    "best",
    "cvar_low",
    "cvar_up",
    "dispersion_across_runs",
    "dispersion_across_time",
    "dispersion_of_final",
    "drawdown",
    "expected_best",
    "expected_best_intervals",
    "final",
    "floor_unlearnt",
    "has_collapsed",
    "has_learnt",
    "holm",
    "iqm",
    "kaplan_meier",
    "leave_one_out",
    "long_term_risk",
    "max_drawdown",
    "median_time",
    "normalize",
    "optimality_gap",
    "paired_difference",
    "paired_improvement",
    "paired_permutation_test",
    "performance_profile",
    "permutation_test",
    "phi",
    "probability_of_improvement",
    "rank_arms",
    "rate_sensitivity",
    "restricted_mean",
    "retention",
    "risk_across_runs",
    "risk_of_final",
    "safe_ratio",
    "select",
    "short_term_risk",
    "skewness",
    "standardized_difference",
    "steps_to_threshold",
    "t_interval",
    "tolerance_confidence",
    "tolerance_interval",
    "verdict",
    "welch",
    "width",
    "wilson",
    "worst_tenth",
]
