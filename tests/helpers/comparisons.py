"""A synthetic analysed comparison, with what reports must not hide: failures, censored steps, an edge optimum."""

from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from pgkit.compare.tables import SCHEMAS, Analysis, make_table

RATES = (1e-3, 3.16e-3, 1e-2, 3.16e-2, 0.1, 0.316, 1.0)
PEAKS = {"sgd": 1.0, "momentum": 0.1, "rmsprop": 3.16e-3, "adam": 1e-2}
"""The best rate of each arm; sgd's is at the upper end of the grid."""
WIDTHS = {"sgd": 1.1, "momentum": 0.9, "rmsprop": 0.5, "adam": 0.8}
HEIGHTS = {"sgd": 0.62, "momentum": 0.78, "rmsprop": 0.8, "adam": 0.93}
RANDOM, REFERENCE, THRESHOLD, STEPS, POINTS = 22.2, 500.0, 475.0, 200_000, 51

Row = dict[str, Any]


def synthetic(
    tier: str = "standard",
    agents: tuple[str, ...] = ("reinforce", "actor-critic"),
    environments: tuple[str, ...] = ("CartPole-v1",),
    rates: tuple[float, ...] = RATES,
    tuning: int = 3,
    evaluation: int = 20,
) -> Analysis:
    """An analysis of four arms; the same arguments give the same numbers."""
    rng = np.random.default_rng(0)
    cases = [(environment, agent) for environment in environments for agent in agents]
    runs, curves = [], []
    for case in cases:
        for arm in PEAKS:
            for lr in rates:
                for seed in range(tuning):
                    _add_run(rng, runs, curves, "tuning", (*case, arm, lr), seed)
            for seed in range(1000, 1000 + evaluation):
                _add_run(rng, runs, curves, "evaluation", (*case, arm, PEAKS[arm]), seed)
    rows: dict[str, list[Row]] = {name: [] for name in SCHEMAS} | {"runs": runs, "curves": curves}
    frame = pd.DataFrame(runs)
    for environment, agent in cases:
        of_case = frame[(frame["environment"] == environment) & (frame["agent"] == agent)]
        _add_case(rng, rows, {"environment": environment, "agent": agent}, of_case, rates)
    for environment in environments:
        rows["baselines"] += list(_baselines(environment))
    if len(environments) >= 3:
        _add_across(rows, environments, agents)
    tables = {name: make_table(name, rows[name]) for name in SCHEMAS}
    return Analysis(_plan(tier, cases, rates, tuning, evaluation), tables, _facts(frame))


def _add_run(
    rng: np.random.Generator, runs: list[Row], curves: list[Row], stage: str, setting: tuple[Any, ...], seed: int
) -> None:
    environment, agent, arm, lr = setting
    keys = {"stage": stage, "environment": environment, "agent": agent, "optimizer": arm, "lr": lr, "seed": seed}
    off = np.log10(lr / PEAKS[arm]) / WIDTHS[arm]
    top = HEIGHTS[arm] * np.exp(-(off**2)) * (1.08 if agent == "actor-critic" else 1.0) + 0.05 * rng.standard_normal()
    x = np.linspace(0, 1, POINTS)
    score = top / (1 + np.exp(-12 * (x - 0.3 - 0.05 * rng.standard_normal()))) + 0.03 * rng.standard_normal(POINTS)
    if stage == "evaluation" and arm in ("sgd", "rmsprop") and rng.random() < 0.1:  # never takes off
        score *= 0.05
    if rng.random() < 0.1:  # a collapse
        start = rng.integers(25, 45)
        score[start : start + 6] *= 0.3
    diverged = off > 1.5 and rng.random() < 0.6
    if diverged:
        score[25:] = 0.0
    final, below = score[-5:].mean(), score[-5:].mean() < 0.1
    drawdown = np.maximum.accumulate(score) - score
    reached = np.flatnonzero(score >= 0.95 * (REFERENCE - RANDOM) / (REFERENCE - RANDOM) - 0.05)
    runs.append(
        keys
        | {
            "outcome": "failed" if diverged else "did not learn" if below else "learnt",
            "failed_at": 100_000.0 if diverged else np.nan,
            "env_steps": float(STEPS),
            "auc": score.mean(),
            "final": final,
            "best": score.max(),
            "greedy": final + 0.02,
            "dt": np.subtract(*np.quantile(np.diff(score[25:]), [0.75, 0.25])),
            "srt": np.sort(np.diff(score))[:3].mean(),
            "lrt": np.sort(drawdown)[-3:].mean(),
            "max_drawdown": drawdown.max(),
            "retention": final / score.max(),
            "collapsed": bool(drawdown.max() > 0.5),
            "solved": bool(len(reached)),
            "steps_to_threshold": x[reached[0]] * STEPS if len(reached) else np.nan,
            "df": 0.05,
            "rf": -0.1,
        }
    )
    for point, value in enumerate(score):
        returns = RANDOM + value * (REFERENCE - RANDOM)
        curves.append(
            keys | {"point": point, "env_steps": x[point] * STEPS, "return_mean": returns, "score": float(value)}
        )


def _add_case(
    rng: np.random.Generator, rows: dict[str, list[Row]], case: Row, runs: pd.DataFrame, rates: tuple[float, ...]
) -> None:
    tuning, evaluation = runs[runs["stage"] == "tuning"], runs[runs["stage"] == "evaluation"]
    scores = {str(arm): of_arm["auc"].to_numpy() for arm, of_arm in evaluation.groupby("optimizer")}
    for place, arm in enumerate(PEAKS):
        keys, of_arm = case | {"optimizer": arm}, evaluation[evaluation["optimizer"] == arm]
        for lr, of_setting in tuning[tuning["optimizer"] == arm].groupby("lr"):
            chosen = 0.8 if lr == PEAKS[arm] else 0.2 if lr == PEAKS[arm] / 3.16 else 0.0
            rows["sensitivity"].append(
                keys
                | {"lr": lr, "n": len(of_setting), "mean": of_setting["auc"].mean()}
                | {"learnt_rate": (of_setting["outcome"] == "learnt").mean(), "chosen_share": chosen}
                | {"in_set": chosen >= 0.05, "selected": lr == PEAKS[arm]}
            )
        rows["selection"].append(
            keys
            | {"lr": PEAKS[arm], "second_lr": PEAKS[arm] / 3.16, "edge": "high" if arm == "sgd" else ""}
            | {"runs": len(tuning) // 4, "env_steps": len(tuning) // 4 * STEPS}
        )
        rows["arms"].append(keys | _of_arm(of_arm, place))
        rows["neighbours"] += [
            keys | {"lr": PEAKS[arm] * factor, "offset": offset, "n": 5, "mean": 0.5, "minimum": 0.2, "learnt_rate": 1}
            for offset, factor in ((-1, 1 / 3.16), (1, 3.16))
        ]
        limits = {"": 0.0, "_low": -0.1, "_high": 0.1}
        names = {"width": 1 + place / 2, "area": 1.5, "times_sqrt10": 0.7, "over_sqrt10": 0.6, "safe_ratio": 3.16}
        rows["rates"].append(keys | {name + end: v + d for name, v in names.items() for end, d in limits.items()})
        best = np.sort(rng.random(len(rates))) * HEIGHTS[arm]
        for k in range(1, len(rates) + 1):
            value = float(best[:k].mean() + 0.1 * k / len(rates))
            rows["expected_best"].append(keys | {"k": k, "value": value, "low": value - 0.05, "high": value + 0.05})
    rows["pairs"] += [case | _pair(first, second, scores) for first, second in combinations(PEAKS, 2)]


def _of_arm(runs: pd.DataFrame, place: int) -> Row:
    scores, n = runs["auc"].to_numpy(), len(runs)
    error = 2 * scores.std(ddof=1) / np.sqrt(n)
    row: Row = {"lr": runs["lr"].iloc[0], "n": n, "mean": scores.mean(), "median": np.median(scores)}
    row |= {"sd": scores.std(ddof=1), "t_low": scores.mean() - error, "t_high": scores.mean() + error}
    row |= {"bca_low": scores.mean() - error * 1.1, "bca_high": scores.mean() + error * 0.9}
    row |= {"skew": -1.4 if place == 2 else 0.2, "tolerance_low": scores.min(), "tolerance_high": scores.max()}
    row |= {"tolerance_confidence": 1 - 0.9**n - n * 0.1 * 0.9 ** (n - 1)}
    row |= {"final": runs["final"].mean(), "greedy": runs["greedy"].mean()}
    happened = {"learnt": runs["outcome"] == "learnt", "collapse": runs["collapsed"], "solved": runs["solved"]}
    for (name, column), count in zip(happened.items(), ("learnt", "collapses", "solved"), strict=True):
        share = column.mean()
        low, high = max(0, share - 0.1), min(1, share + 0.2)
        row |= {count: int(column.sum()), f"{name}_rate": share, f"{name}_low": low, f"{name}_high": high}
    row |= {"failed": int((runs["outcome"] == "failed").sum())}
    worst = np.sort(scores)[: 1 + (n - 1) // 10].mean()
    row |= {"worst_tenth": worst, "worst_tenth_low": scores.min(), "worst_tenth_high": np.median(scores)}
    row |= {"steps_mean": 150_000.0, "steps_median": np.nan if place == 0 else 120_000.0}
    row |= {name: runs[name].mean() for name in ("dt", "srt", "lrt", "max_drawdown", "retention", "df", "rf")}
    row |= {"worst_drawdown": runs["max_drawdown"].max(), "dr": 0.1, "rr": 0.3}
    return row | {"p_best": (0.0, 0.02, 0.03, 0.95)[place], "mean_rank": 4.0 - place}


def _pair(first: str, second: str, scores: Mapping[str, np.ndarray[Any, Any]]) -> Row:
    a, b = scores[first], scores[second]
    difference, error = a.mean() - b.mean(), 2 * np.hypot(a.std(), b.std()) / np.sqrt(len(a))
    low, high = difference - error, difference + error
    better = (a[:, None] > b[None]).mean()
    verdict = "better" if low > 0.05 else "worse" if high < -0.05 else "unresolved"
    verdict = "equivalent" if low > -0.05 and high < 0.05 else verdict
    flips = (first, second) == ("momentum", "rmsprop")
    row: Row = {"first": first, "second": second, "difference": difference, "low": low, "high": high}
    row |= {"p": 0.01, "p_holm": 0.04, "improvement": better}
    row |= {"improvement_low": max(0, better - 0.15), "improvement_high": min(1, better + 0.1), "verdict": verdict}
    return row | {"second_best_verdict": "worse" if flips else verdict, "flips": flips}


def _baselines(environment: str) -> Iterator[Row]:
    for policy, value in (("random", 22.2), ("constant 0", 9.3), ("constant 1", 9.4)):
        score = (value - RANDOM) / (REFERENCE - RANDOM)
        row = {"environment": environment, "policy": policy, "episodes": 1000}
        yield row | {"return_mean": value, "return_sd": 11.0, "score": score}


def _add_across(rows: dict[str, list[Row]], environments: tuple[str, ...], agents: tuple[str, ...]) -> None:
    for agent in agents:
        for arm, height in HEIGHTS.items():
            keys = {"agent": agent, "optimizer": arm}
            for without in ("", *environments):
                names = {"iqm": height, "mean": height - 0.02, "optimality_gap": 1 - height, "phi": 0.05}
                limits = {"": 0.0, "_low": -0.04, "_high": 0.04}
                values = {name + end: v + d for name, v in names.items() for end, d in limits.items()}
                rows["across"].append(keys | {"without": without} | values)
            for tau in np.linspace(0, 1.2, 121):
                share = float(1 / (1 + np.exp(20 * (tau - height))))
                rows["profiles"].append(
                    keys | {"tau": tau, "share": share, "low": max(0, share - 0.05), "high": min(1, share + 0.05)}
                )


def _plan(
    tier: str, cases: list[tuple[str, str]], rates: tuple[float, ...], tuning: int, evaluation: int
) -> dict[str, Any]:
    scale = {"random_return": RANDOM, "reference_return": REFERENCE, "threshold": THRESHOLD}
    return {
        "name": "synthetic",
        "question": "Which optimizer is more stable on CartPole-v1, and over which learning rates?",
        "tier": tier,
        "track": "lr only: everything else at documented defaults",
        "metric": "normalised area under the learning curve, actions sampled",
        "selection": "mean of the metric over tuning seeds",
        "arms": {
            "sgd": {"name": "sgd"},
            "momentum": {"name": "momentum", "beta": 0.9},
            "rmsprop": {"name": "rmsprop", "alpha": 0.99, "eps": 1e-8},
            "adam": {"name": "adam", "beta1": 0.9, "beta2": 0.999, "eps": 1e-8},
        },
        "agents": list(dict.fromkeys(agent for _, agent in cases)),
        "environments": {environment: scale for environment, _ in cases},
        "learning_rates": list(rates),
        "tuning_seeds": list(range(tuning)),
        "evaluation_seeds": list(range(1000, 1000 + evaluation)),
        "neighbour_seeds": [] if tier == "quick" else list(range(1000, 1005)),
        "rope": 0.05,
        "failure_below": 0.1,
        "evaluation": {"points": POINTS - 1, "episodes": 20, "final_episodes": 100},
        "held_equal": {"network": {"hidden": [64, 64]}, "envs_per_member": 8, "threads": 1, "dtype": "float32"},
        "cases": [
            {"environment": e, "agent": a, "config": f'steps = {STEPS}\n[agent]\nname = "{a}"\n'} for e, a in cases
        ],
        "hash": "0123456789abcdef" * 4,
    }


def _facts(runs: pd.DataFrame) -> dict[str, Any]:
    versions = {"python": "3.12.1", "pgkit-rl": "0.1.0", "torch": "2.13.0", "numpy": "2.4.6"}
    return {
        "planned": len(runs) + 1,
        "finished": len(runs),
        "not_learnt": int((runs["outcome"] == "did not learn").sum()),
        "failed": int((runs["outcome"] == "failed").sum()),
        "missing": 1,
        "deviations": ["one chunk was run again after its worker ended unexpectedly"],
        "formulas": {
            "sgd": "p <- p - lr g",
            "momentum": "m <- beta m + g; p <- p - lr m;  m starts at 0",
            "rmsprop": "v <- alpha v + (1 - alpha) g^2; p <- p - lr g / (sqrt(v) + eps);  v starts at 0",
            "adam": "m, v <- moments of g, g^2; p <- p - lr m' / (sqrt(v') + eps);  bias-corrected, from 0",
        },
        "provenance": {
            "versions": versions,
            "git": {"commit": "0123456789abcdef0123456789abcdef01234567", "changed": False},
            "hardware": {"cpu": "a processor", "cores": 2, "memory_bytes": 8 * 2**30},
            "threads": {"torch": 1, "OMP_NUM_THREADS": "1"},
            "command_line": ["pgkit", "compare", "synthetic"],
        },
        "not_varied": ["network", "batch size", "discount", "clipping", "the critic's optimizer"],
        "wall_seconds": 4321.0,
    }
