"""The score of a run and of a trial: mean returns, and nothing that needs a scale."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pgkit.compare.plan.screening import last_evaluation
from pgkit.stats import t_interval


def run_score(row: Mapping[str, Any], share: float = 1.0) -> float:
    """Return the mean over a run's evaluations, the untrained policy's included, of their mean returns.

    From where a run failed, each evaluation counts as its worst one before; a trial whose seeds all fail has no score.

    Args:
        row: of :func:`pgkit.compare.execution.worker.run_part`.
        share: of its steps; later evaluations do not count.
    """
    returns = np.asarray(row["returns"], dtype=np.float64)
    curve = returns[: last_evaluation(share, len(returns)) + 1]
    if row["diverged"]:
        curve = np.where(np.isnan(curve), np.nanmin(returns), curve)
    return float(np.nanmean(curve))


def with_interval(values: Sequence[float]) -> str:
    """Write the mean of one number per seed, with Student's 95 % interval if there are several."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return f"{mean:,.1f}"
    low, high = t_interval(values)
    return f"{mean:,.1f} [{low:,.1f}, {high:,.1f}]"
