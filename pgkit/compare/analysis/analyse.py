"""Turn stored runs into tables of statistics, with the functions of :mod:`pgkit.stats`."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from pgkit import stats
from pgkit.compare.analysis import across_environments, screened
from pgkit.compare.analysis.facts import facts, in_full
from pgkit.compare.plan.baselines import ScoreScale
from pgkit.compare.plan.plan import Plan, SearchPoint
from pgkit.compare.selection.scores import complete, curves_of, score_curves, score_runs
from pgkit.compare.selection.stages import TuningResult, tuned
from pgkit.compare.tables import FAILED, LEARNT, Analysis, make_table, schemas

Array = np.ndarray[Any, np.dtype[np.float64]]
Row = dict[str, Any]
Case = tuple[str, str]

ROOT_SEED = 20_000
"""Seed of all resampling; the rest of a generator's key is the place of its use, never a name."""


def analyse(
    plan: Plan,
    scale: Mapping[str, ScoreScale],
    baselines: pd.DataFrame,
    stored: pd.DataFrame,
    provenance: Mapping[str, Any],
) -> Analysis:
    """Analyse a comparison; the same arguments give the same numbers to the last bit.

    Args:
        plan: of the comparison.
        scale: of each environment.
        baselines: returns of the baseline policies.
        stored: raw results of runs, complete or not; stages that have not begun leave their tables empty.
        provenance: plain data as in ``provenance.json``.
    """
    whole = complete(stored)
    runs = score_runs(plan, scale, whole)
    results = tuned(plan, scale, stored)
    evaluated = runs[runs["stage"] == "evaluation"]
    wanted = schemas(plan.all_tuned, plan.greedy, screened=bool(plan.rungs))
    rows: dict[str, list[Row]] = {name: [] for name in wanted}
    for index, (case, of_case) in enumerate(results.items()):
        _add_tuning(plan, rows, case, of_case, runs, stored, index)
        scores = _scores(plan, evaluated, case)
        if all(len(of_arm) for of_arm in scores.values()):
            _add_evaluation(plan, scale[case[0]], rows, case, of_case, runs, whole, index)
            rows["pairs"] += _pairs(plan, case, of_case, runs, index)
    for agent in plan.config.agents:
        across_environments.add(plan, rows, agent, evaluated, results)
    rows["baselines"] = [
        {**row, "score": float(scale[str(row["environment"])].score(float(row["return_mean"])))}
        for row in baselines.to_dict("records")
    ]
    if plan.all_tuned:
        rows["settings"] = _settings(plan)
    long = {"runs": runs, "curves": score_curves(plan, scale, whole)}
    tables = {
        name: long[name][list(schema.all)] if name in long else make_table(name, rows[name], schema)
        for name, schema in wanted.items()
    }
    known = facts(plan, scale, stored, runs, provenance)
    if plan.rungs:
        known["screening"] = screened.saved(plan, results, stored)
    return Analysis(plan.as_data(), tables, known)


def seed(*key: int) -> np.random.Generator:
    """Return the random generator of one place in the analysis."""
    return np.random.default_rng([ROOT_SEED, *key])


def _of_case(frame: pd.DataFrame, case: Case) -> pd.DataFrame:
    return frame[(frame["environment"] == case[0]) & (frame["agent"] == case[1])]


def _scores(plan: Plan, runs: pd.DataFrame, case: Case) -> dict[str, Array]:
    """Return the scores ``(n,)`` of each arm in a case, ordered by seed."""
    of_case = _of_case(runs, case).sort_values("seed")
    return {arm: of_case.loc[of_case["optimizer"] == arm, "auc"].to_numpy(dtype=float) for arm in plan.arms}


def _add_tuning(
    plan: Plan,
    rows: dict[str, list[Row]],
    case: Case,
    result: TuningResult,
    runs: pd.DataFrame,
    stored: pd.DataFrame,
    index: int,
) -> None:
    """Add the rows of the tuning stage; measures of the whole grid are left out where screening has dropped rates."""
    tuning, cost = (_of_case(frame[frame["stage"] == "tuning"], case) for frame in (runs, stored))
    for number, (arm, scores) in enumerate(result.scores.items()):
        keys = {"environment": case[0], "agent": case[1], "optimizer": arm}
        of_arm = cost[cost["optimizer"] == arm]
        spent = {"runs": len(of_arm), "env_steps": int(of_arm["env_steps"].sum())}
        rows["selection"].append({**keys, **_selected(plan, result, arm), "edge": result.edges[arm], **spent})
        learnt = _learnt(tuning[tuning["optimizer"] == arm], result.points[arm])
        rows["sensitivity"] += _sensitivity(plan, keys, result, arm, learnt)
        if plan.rungs:
            continue
        if not plan.all_tuned:
            measures = stats.rate_sensitivity(scores, ~learnt, result.rates, seed(0, index, number))
            rows["rates"].append({**keys, **across_environments.spread(measures._asdict())})
        best = stats.expected_best_intervals(scores, seed(1, index, number))
        rows["expected_best"] += [{**keys, "k": k, **value._asdict()} for k, value in enumerate(best, start=1)]
    if plan.rungs:
        rows["screening"] += screened.dropped_rows(case, result, stored)


def _learnt(runs: pd.DataFrame, points: Sequence[SearchPoint]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Whether each run ``(L, S)`` of an arm learnt, by setting and seed."""
    table = runs.pivot(index=["lr", "setting"], columns="seed", values="outcome")
    learnt: np.ndarray[Any, np.dtype[np.bool_]] = table.reindex(pd.MultiIndex.from_tuples(points)).to_numpy() == LEARNT
    return learnt


def _sensitivity(
    plan: Plan, keys: Row, result: TuningResult, arm: str, learnt: np.ndarray[Any, np.dtype[np.bool_]]
) -> list[Row]:
    """Return a row for each setting of an arm that was trained on all tuning seeds."""
    selection = result.selections[arm]
    return [
        {
            **keys,
            **_numbered(plan, point),
            "n": len(plan.tuning_seeds),
            "mean": float(result.scores[arm][r].mean()),
            "learnt_rate": float(learnt[r].mean()),
            "chosen_share": float(selection.chosen_share[r]),
            "in_set": bool(selection.in_set[r]),
            "selected": r == selection.best,
        }
        for r, point in enumerate(result.points[arm])
        if point not in result.drops[arm]
    ]


def _numbered(plan: Plan, point: SearchPoint) -> Row:
    """Return the columns that identify a setting: its rate and, with track "all tuned", its number."""
    return {"setting": point.setting, "lr": point.lr} if plan.all_tuned else {"lr": point.lr}


def _selected(plan: Plan, result: TuningResult, arm: str) -> Row:
    """Return the selected and the second-best setting of an arm, in full with track "all tuned"."""
    best, second = result.selected(arm), result.second(arm)
    row: Row = {"lr": best.lr, "second_lr": np.nan if second is None else second.lr}
    if not plan.all_tuned:
        return row
    row |= {"setting": best.setting, "second_setting": np.nan if second is None else second.setting}
    row |= {"hyperparameters": in_full(plan.settings[arm][best.setting])}
    return row | {"second_hyperparameters": "" if second is None else in_full(plan.settings[arm][second.setting])}


def _settings(plan: Plan) -> list[Row]:
    """Return the rows of the table ``settings``: the hyperparameters behind the numbers of settings."""
    return [
        {"optimizer": arm, "setting": number, "hyperparameter": name, "value": value}
        for arm, of_arm in plan.settings.items()
        for number, setting in enumerate(of_arm)
        for name, value in setting.items()
    ]


def _add_evaluation(
    plan: Plan,
    scale: ScoreScale,
    rows: dict[str, list[Row]],
    case: Case,
    result: TuningResult,
    runs: pd.DataFrame,
    stored: pd.DataFrame,
    index: int,
) -> None:
    """Add the rows of the tables ``arms`` and ``neighbours``."""
    evaluated, beside = (_of_case(runs[runs["stage"] == stage], case) for stage in ("evaluation", "neighbour"))
    ranks = stats.rank_arms(list(_scores(plan, evaluated, case).values()), seed(2, index))
    budget = next(c.config.steps for c in plan.cases if (c.environment, c.agent) == case)
    for number, arm in enumerate(plan.arms):
        keys = {"environment": case[0], "agent": case[1], "optimizer": arm}
        of_arm = evaluated[evaluated["optimizer"] == arm]
        scores = curves_of(plan, scale, stored.loc[of_arm.index])
        rank = {"p_best": float(ranks.p_best[number]), "mean_rank": float(ranks.mean_rank[number])}
        of_arm_row = _of_arm(of_arm, scores, budget, seed(3, index, number))
        of_arm_row |= _worst_tenth(of_arm, seed(5, index, number))
        of_arm_row |= _numbered(plan, result.selected(arm))
        of_arm_row |= {"greedy_auc": float(of_arm["greedy_auc"].mean())} if plan.greedy else {}
        rows["arms"].append({**keys, **of_arm_row, **rank})
        for (rate, number_of), of_point in beside[beside["optimizer"] == arm].groupby(["lr", "setting"]):
            point = SearchPoint(rate, number_of)
            offset = 0 if plan.all_tuned else result.points[arm].index(point) - result.selections[arm].best
            rows["neighbours"].append(
                {
                    **keys,
                    **_numbered(plan, point),
                    "offset": offset if abs(offset) == 1 else 0,
                    "n": len(of_point),
                    "mean": float(of_point["auc"].mean()),
                    "minimum": float(of_point["auc"].min()),
                    "learnt_rate": float((of_point["outcome"] == LEARNT).mean()),
                }
            )


def _of_arm(runs: pd.DataFrame, scores: Array, budget: int, rng: np.random.Generator) -> Row:
    """Return the statistics of an arm's evaluation runs; ``scores (n, K)`` are their learning curves."""
    x, n = runs["auc"].to_numpy(dtype=float), len(runs)
    steps = runs["steps_to_threshold"].to_numpy(dtype=float)
    (t_low, t_high), (bca_low, bca_high) = stats.t_interval(x), stats.bca_interval(x, rng)
    tolerance = stats.tolerance_interval(x)
    row: Row = {
        "lr": float(runs["lr"].iloc[0]),
        "n": n,
        "mean": float(x.mean()),
        "median": float(np.median(x)),
        "sd": float(x.std(ddof=1)) if n > 1 else np.nan,
        "t_low": t_low,
        "t_high": t_high,
        "bca_low": bca_low,
        "bca_high": bca_high,
        "skew": stats.skewness(x),
        "tolerance_low": tolerance.low,
        "tolerance_high": tolerance.high,
        "tolerance_confidence": tolerance.confidence,
        "steps_mean": stats.restricted_mean(steps, budget),
        "steps_median": stats.median_time(steps, budget),
        "failed": int((runs["outcome"] == FAILED).sum()),
        "worst_drawdown": float(runs["max_drawdown"].max()),
        "dr": float(stats.dispersion_across_runs(scores).mean()),
        "rr": float(stats.risk_across_runs(scores).mean()),
    }
    events = {"learnt": runs["outcome"] == LEARNT, "collapse": runs["collapsed"], "solved": runs["solved"]}
    for name, count_name in (("learnt", "learnt"), ("collapse", "collapses"), ("solved", "solved")):
        count = int(events[name].sum())
        rate = stats.wilson(count, n)
        row |= {count_name: count, f"{name}_rate": rate.value, f"{name}_low": rate.low, f"{name}_high": rate.high}
    means = ("final", "greedy", "dt", "srt", "lrt", "max_drawdown", "retention", "df", "rf")
    return row | {name: float(runs[name].mean()) for name in means}


def _worst_tenth(runs: pd.DataFrame, rng: np.random.Generator) -> Row:
    """Return the mean score of the worst tenth of an arm's evaluation runs, with its interval."""
    worst = stats.worst_tenth(runs["auc"].to_numpy(dtype=float), rng)
    return across_environments.spread({"worst_tenth": worst})


def _pairs(plan: Plan, case: Case, result: TuningResult, runs: pd.DataFrame, index: int) -> list[Row]:
    """Compare every pair of arms, and check whether their second-best settings would contradict the verdict."""
    scores = _scores(plan, runs[runs["stage"] == "evaluation"], case)
    second = _second_best(case, result, runs)
    rows = []
    for number, (first, other) in enumerate(combinations(plan.arms, 2)):
        a, b, rope = scores[first], scores[other], plan.config.rope
        difference, p, better = _compare(a, b, plan.config.paired, seed(4, index, number))
        verdict = stats.verdict(difference.low, difference.high, rope)
        seconds = (second.get(first, a), second.get(other, b)) if first in second or other in second else None
        rows.append(
            {
                "environment": case[0],
                "agent": case[1],
                "first": first,
                "second": other,
                "difference": difference.value,
                "low": difference.low,
                "high": difference.high,
                "p": p,
                **across_environments.spread({"improvement": better}),
                "verdict": verdict,
                "second_best_verdict": "" if seconds is None else _verdict(seconds, rope),
                "flips": seconds is not None and _flips(verdict, seconds, rope),
            }
        )
    if not rows:
        return []
    adjusted = stats.holm([row["p"] for row in rows])
    return [{**row, "p_holm": float(p)} for row, p in zip(rows, adjusted, strict=True)]


def _compare(
    a: Array, b: Array, paired: bool, rng: np.random.Generator
) -> tuple[stats.Difference, float, stats.Estimate]:
    """Return difference of means, permutation p-value and probability of improvement, paired by seed on demand."""
    if paired:
        return stats.paired_difference(a, b), stats.paired_permutation_test(a, b, rng), stats.paired_improvement(a, b)
    return stats.welch(a, b), stats.permutation_test(a, b, rng), stats.probability_of_improvement(a, b)


def _verdict(pair: tuple[Array, Array], rope: float) -> str:
    difference = stats.welch(*pair)
    return stats.verdict(difference.low, difference.high, rope)


def _second_best(case: Case, result: TuningResult, runs: pd.DataFrame) -> dict[str, Array]:
    """Return the scores of each arm's second-best setting on evaluation seeds, if it was run."""
    beside = _of_case(runs[runs["stage"] == "neighbour"], case)
    scores = {}
    for arm in result.selections:
        if (point := result.second(arm)) is not None:
            chosen = (beside["optimizer"] == arm) & (beside["lr"] == point.lr) & (beside["setting"] == point.setting)
            scores[arm] = beside.loc[chosen, "auc"].to_numpy(dtype=float)
    return {arm: x for arm, x in scores.items() if len(x)}


def _flips(verdict: str, alternative: tuple[Array, Array], rope: float) -> bool:
    """Whether the second-best settings contradict a verdict; judged by the point estimate, as there are few seeds."""
    difference = float(alternative[0].mean() - alternative[1].mean())
    contradicted = {"better": difference <= rope, "worse": difference >= -rope, "equivalent": abs(difference) > rope}
    return contradicted.get(verdict, False)
