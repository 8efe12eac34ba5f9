"""What screening has dropped, and what that saved."""

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from pgkit.compare.plan.plan import Plan
from pgkit.compare.selection.stages import TuningResult

Row = dict[str, Any]


def dropped_rows(case: tuple[str, str], result: TuningResult, stored: pd.DataFrame) -> Iterator[Row]:
    """Yield a row for each rate that was dropped in a case.

    Args:
        case: environment and agent.
        result: of its tuning.
        stored: all runs, those that paused as well.
    """
    tuning = stored[(stored["stage"] == "tuning") & (stored["environment"] == case[0]) & (stored["agent"] == case[1])]
    steps = tuning.groupby(["optimizer", "lr"])["env_steps"].sum()
    for arm, drops in result.drops.items():
        for point, drop in sorted(drops.items()):
            keys = {"environment": case[0], "agent": case[1], "optimizer": arm, "lr": point.lr}
            yield {**keys, **drop._asdict(), "env_steps": int(steps[arm, point.lr])}


def saved(plan: Plan, results: Mapping[tuple[str, str], TuningResult], stored: pd.DataFrame) -> dict[str, int]:
    """Return how many rates were tried and dropped, and the steps of tuning against those of the whole grid.

    Args:
        plan: of the comparison.
        results: of the cases whose tuning is complete; others are not counted.
        stored: all runs, those that paused as well.
    """
    tuning = stored[stored["stage"] == "tuning"]
    of_cases = [case in results for case in zip(tuning["environment"], tuning["agent"], strict=True)]
    tried = {case: sum(map(len, result.points.values())) for case, result in results.items()}
    budgets = {(case.environment, case.agent): case.config.steps for case in plan.cases}
    return {
        "tried": sum(tried.values()),
        "dropped": sum(len(drops) for result in results.values() for drops in result.drops.values()),
        "env_steps": int(tuning.loc[of_cases, "env_steps"].sum()),
        "grid_env_steps": sum(count * budgets[case] * len(plan.tuning_seeds) for case, count in tried.items()),
    }
