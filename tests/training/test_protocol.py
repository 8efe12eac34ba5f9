"""The rules of a comparison, through the whole analysis: synthetic runs go in, tables come out.

The statistics on their own are held to these rules in ``test_stats_protocol.py``.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pgkit import stats
from pgkit.compare.analysis.analyse import analyse
from pgkit.compare.execution.store import RAW
from pgkit.compare.plan.baselines import ScoreScale
from pgkit.compare.plan.plan import Plan, Run, make_plan
from pgkit.compare.selection.stages import stages
from pgkit.compare.tables import Analysis

Curve = Callable[[Run, int], list[float]]
"""The returns of a run of the arm of that number; returns are scores."""

SCALE = {"CartPole-v1": ScoreScale(random=0.0, reference=1.0, threshold=0.95)}
RATES = [round(10.0**k, 10) for k in range(-9, 2)]
POINTS, STEPS = 5, 400
TRUTH = 20.0
"""The true score of every setting that may be selected, so high that every run learns."""


def plan_of(labels: Sequence[str]) -> Plan:
    """A comparison of an optimizer with itself, under several labels."""
    return make_plan(
        {
            "name": "synthetic",
            "question": "Does an optimizer differ from itself?",
            "tier": "standard",
            "agents": ["reinforce"],
            "optimizers": [{"name": "sgd", "label": label} for label in labels],
            "environments": {"CartPole-v1": {"random_return": 0.0, "reference_return": 1.0, "threshold": 0.95}},
            "learning_rates": RATES,
            "tuning_seeds": 3,
            "evaluation_seeds": 10,
            "steps": STEPS,
            "evaluation": {"points": POINTS - 1, "episodes": 1, "final_episodes": 1},
        }
    )


def equal_settings(run: Run, arm: int) -> list[float]:
    """Nine settings that are equal, TRUTH with a standard deviation of 1, between two that nobody would select."""
    rate = RATES.index(run.lr)
    drawn = np.random.default_rng([arm, rate, run.seed]).normal()
    return [TRUTH + (-9.0 if rate in (0, len(RATES) - 1) else float(drawn))] * POINTS


def with_failures(run: Run, arm: int) -> list[float]:
    """The same, but the first seed of tuning and that of evaluation diverge after two points, for the first arm."""
    curve = equal_settings(run, arm)
    diverges = arm == 0 and run.stage != "neighbour" and run.seed in (0, 1000)
    return curve[:2] + [np.nan] * (POINTS - 2) if diverges else curve


def results(plan: Plan, curve: Curve) -> pd.DataFrame:
    """Stored results of every run that the plan asks for, stage by stage."""
    rows: list[tuple[Any, ...]] = []
    stored = pd.DataFrame(rows, columns=list(RAW))
    at = np.linspace(0, STEPS, POINTS).tolist()
    while todo := stages(plan, SCALE, stored)[-1].todo:
        for run in todo:
            returns = curve(run, list(plan.arms).index(run.optimizer))
            diverged = bool(np.isnan(returns).any())
            steps = at[int(np.isnan(returns).argmax())] if diverged else STEPS
            rows.append((*run, diverged, steps, at, returns, returns[-1:], returns[-1:], 1.0, "batch"))
        stored = pd.DataFrame(rows, columns=list(RAW))
    return stored


def analysed(plan: Plan, stored: pd.DataFrame) -> Analysis:
    row = {"environment": "CartPole-v1", "policy": "random", "episodes": 1, "return_mean": 0.0, "return_sd": 1.0}
    return analyse(plan, SCALE, pd.DataFrame([row]), stored, {"sessions": []})


def written(analysis: Analysis, renamed: dict[str, str] | None = None) -> dict[str, str]:
    """Every table with all digits; labels of arms replaced."""
    return {
        name: table.replace(renamed or {}).to_csv(index=False, float_format="%.17g")
        for name, table in analysis.tables.items()
    }


@pytest.fixture(scope="module")
def three() -> tuple[Plan, pd.DataFrame]:
    plan = plan_of(["a", "b", "c"])
    return plan, results(plan, with_failures)


def test_nothing_of_tuning_is_quoted_as_performance():
    plan = plan_of([f"arm {number}" for number in range(16)])
    tables = analysed(plan, results(plan, equal_settings)).tables
    chosen = tables["sensitivity"][tables["sensitivity"]["selected"]]
    assert len(chosen) == len(tables["arms"]) == 16
    # Expected .86 above the truth with a standard error of .35 / 4, and none with one of .32 / 4: three to either side.
    assert chosen["mean"].mean() == pytest.approx(TRUTH + 0.86, abs=0.26)
    assert tables["arms"]["mean"].mean() == pytest.approx(TRUTH, abs=0.24)
    assert (tables["arms"]["lr"].to_numpy() == chosen["lr"].to_numpy()).all()
    assert (tables["arms"]["n"] == 10).all()
    assert (tables["selection"]["edge"] == "").all()
    assert (tables["pairs"]["p_holm"] > 0.05).all()  # of 120 pairs of an arm with itself
    assert (tables["pairs"]["verdict"] == "better").mean() <= 0.05


def test_verdicts_are_those_of_fresh_seeds(three: tuple[Plan, pd.DataFrame]):
    tables = analysed(*three).tables
    runs = tables["runs"][tables["runs"]["stage"] == "evaluation"]
    for pair in tables["pairs"].itertuples():
        a, b = (runs.loc[runs["optimizer"] == arm, "auc"].to_numpy() for arm in (pair.first, pair.second))
        difference = stats.welch(a, b)
        assert (pair.difference, pair.low, pair.high) == pytest.approx(difference[:3])
        assert pair.verdict == stats.verdict(difference.low, difference.high, 0.05)
        assert pair.improvement == stats.probability_of_improvement(a, b).value
    assert len(tables["pairs"]) == 3


def test_the_same_results_give_the_same_bytes_in_any_order(three: tuple[Plan, pd.DataFrame]):
    plan, stored = three
    first = written(analysed(plan, stored))
    assert first == written(analysed(plan, stored))
    shuffled = written(analysed(plan, stored.sample(frac=1, random_state=1)))
    ordered = {"runs", "curves"}  # the raw tables follow the order of what is stored
    assert {k: v for k, v in first.items() if k not in ordered} == {
        k: v for k, v in shuffled.items() if k not in ordered
    }


def test_names_of_arms_change_no_number(three: tuple[Plan, pd.DataFrame]):
    names = {"a": "zeta", "b": "alpha", "c": "m"}
    plan = plan_of(list(names.values()))
    renamed = analysed(plan, results(plan, with_failures))
    assert written(renamed) == written(analysed(*three), names)


def test_listing_arms_the_other_way_round_mirrors_pairs(three: tuple[Plan, pd.DataFrame]):
    plan, stored = three
    there, back = (
        analysed(each, stored).tables["pairs"].set_index(["first", "second"])
        for each in (plan, plan_of(["c", "b", "a"]))
    )
    opposite = {"better": "worse", "worse": "better"}
    for (first, second), pair in there.iterrows():
        other = back.loc[(second, first)]
        assert (other["difference"], other["low"], other["high"]) == (-pair["difference"], -pair["high"], -pair["low"])
        assert other["p"] == pair["p"]
        assert other["improvement"] == pytest.approx(1 - pair["improvement"])
        assert other["verdict"] == opposite.get(pair["verdict"], pair["verdict"])


def test_a_run_that_diverges_is_counted_and_scored_zero_from_then_on(three: tuple[Plan, pd.DataFrame]):
    plan, stored = three
    tables = analysed(plan, stored).tables
    arm = tables["arms"].set_index("optimizer").loc["a"]
    runs = tables["runs"][(tables["runs"]["stage"] == "evaluation") & (tables["runs"]["optimizer"] == "a")]
    lost = runs[runs["outcome"] == "failed"]
    assert lost["seed"].tolist() == [1000]
    raw = stored.loc[lost.index[0], "returns"]
    assert lost["auc"].item() == pytest.approx(sum(raw[:2]) / POINTS)
    assert lost["final"].item() == 0
    assert arm["n"] == 10
    assert arm["mean"] == pytest.approx(runs["auc"].mean())
    assert arm["n"] - arm["learnt"] == (runs["outcome"] != "learnt").sum() >= arm["failed"] == 1
    every = tables["sensitivity"][tables["sensitivity"]["optimizer"] == "a"]
    assert (every["learnt_rate"] <= 2 / 3 + 1e-9).all()
    assert np.isfinite(every["mean"]).all()
