"""The whole analysis on results with a known answer: three environments, and runs that share their seeds."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.small_comparison import TOML, write_toml

from pgkit import stats
from pgkit.compare.analysis.analyse import analyse
from pgkit.compare.plan.baselines import ScoreScale
from pgkit.compare.plan.plan import Plan, Run, read_plan
from pgkit.compare.report.columns import ARMS_STABILITY
from pgkit.compare.report.html import write_report
from pgkit.compare.selection.scores import score_runs
from pgkit.compare.selection.stages import stages
from pgkit.compare.tables import Analysis, check_tables

ENVIRONMENTS = ("CartPole-v1", "Acrobot-v1", "MountainCar-v0")
SCALES = {name: ScoreScale(0.0, 1.0, 0.9) for name in ENVIRONMENTS}
BASELINES = pd.DataFrame(
    [
        {"environment": name, "policy": "random", "episodes": 10, "return_mean": 0.0, "return_sd": 1.0}
        for name in ENVIRONMENTS
    ]
)
LEVELS = {"sgd": 0.4, "fast adam": 0.8}


def row(run: Run, plan: Plan) -> dict[str, object]:
    """A flat curve at the arm's level, lower at other rates than 0.01; the noise of a seed is the same for all arms."""
    noise = np.random.default_rng(run.seed).normal(0, 0.1)
    level = LEVELS[run.optimizer] * (1.0 if run.lr == 0.01 else 0.5) + noise
    points = plan.cases[0].config.evaluation.points + 1
    curve = {"at": [0.0] * points, "returns": [level] * points, "final": [level] * 3, "greedy": [level] * 3}
    return {**run._asdict(), "diverged": False, "env_steps": 600, **curve}


def analysed(plan: Plan) -> Analysis:
    stored = pd.DataFrame(columns=list(Run._fields))
    while todo := stages(plan, SCALES, stored)[-1].todo:
        rows = pd.DataFrame([row(run, plan) for run in todo])
        stored = pd.concat([stored, rows], ignore_index=True) if len(stored) else rows
    return analyse(plan, SCALES, BASELINES, stored, {"versions": {}, "sessions": []})


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Plan]:
    scores = "\nreference_return = 1\nrandom_return = 0\nthreshold = 0.9\n"
    head = TOML.partition("[environments.CartPole-v1]")[0]
    text = head + "".join(f"\n[environments.{name}]{scores}" for name in ENVIRONMENTS)
    path = write_toml(tmp_path_factory.mktemp("three"), text)
    words = ['agents=["reinforce"]', "evaluation_seeds=12"]
    return {"apart": read_plan(path, words), "paired": read_plan(path, [*words, "paired=true"])}


def test_three_environments_are_aggregated(plans: dict[str, Plan], tmp_path: Path) -> None:
    analysis = analysed(plans["apart"])
    check_tables(analysis.tables)
    across = analysis.tables["across"]
    assert list(across["without"]) == ["", *ENVIRONMENTS] * 2
    runs = analysis.tables["runs"]
    for arm in LEVELS:
        chosen = runs[(runs["stage"] == "evaluation") & (runs["optimizer"] == arm)]
        scores = chosen.pivot(index="seed", columns="environment", values="auc").to_numpy()
        whole = across[(across["optimizer"] == arm) & (across["without"] == "")].iloc[0]
        assert whole["iqm"] == pytest.approx(float(stats.iqm(scores)), abs=1e-12)
        assert whole["mean_low"] < whole["mean"] < whole["mean_high"]
        assert whole["phi"] == pytest.approx(0, abs=1e-12)  # one rate is best everywhere
    profiles = analysis.tables["profiles"]
    assert profiles.groupby("optimizer").size().to_dict() == {"fast adam": 121, "sgd": 121}
    assert profiles["share"].iloc[0] == 1
    assert "profiles" in write_report(analysis, tmp_path).read_text(encoding="utf-8")


def test_pairs_of_runs_that_share_seeds(plans: dict[str, Plan]) -> None:
    apart, paired = (analysed(plans[name]).tables["pairs"] for name in ("apart", "paired"))
    assert (apart["difference"] == paired["difference"]).all()
    assert (apart["verdict"] == "worse").all()
    assert (paired["verdict"] == "worse").all()
    # The noise of a seed cancels in the difference: what is left is the difference of the levels.
    assert (paired["high"] - paired["low"]).max() < 1e-6 < (apart["high"] - apart["low"]).min()
    np.testing.assert_allclose(paired["difference"], LEVELS["sgd"] - LEVELS["fast adam"], atol=1e-9)


def test_pairing_is_part_of_the_plan(plans: dict[str, Plan]) -> None:
    assert plans["apart"].hash != plans["paired"].hash
    assert "paired" not in plans["apart"].as_data()


def scored(plan: Plan, curves: list[list[float]], final: list[float], failed: int = -1) -> pd.DataFrame:
    """Measures of runs with these returns while training, and this mean return of the final policy."""
    case = plan.cases[0]
    rows = []
    for seed, (returns, last) in enumerate(zip(curves, final, strict=True)):
        run = Run("evaluation", case.environment, case.agent, "sgd", 0.01, seed, -1)
        steps = {"diverged": seed == failed, "env_steps": 600, "at": [0.0] * len(returns), "returns": returns}
        rows.append({**run._asdict(), **steps, "final": [last] * 3, "greedy": [last] * 3})
    return score_runs(plan, SCALES, pd.DataFrame(rows))


def test_solved_means_that_the_threshold_was_reached_and_kept(plans: dict[str, Plan]) -> None:
    runs = scored(
        plans["apart"],
        [[0.0] * 2 + [1.0] * 8, [0.0] * 2 + [1.0] * 6 + [0.0] * 2, [0.5] * 10],
        [0.0, 1.0, 1.0],  # what the final policy happens to return decides nothing
    )
    assert runs["solved"].tolist() == [True, False, False]
    assert (runs["solved"] == runs["steps_to_threshold"].notna()).all()
    (text,) = {column.help for column in ARMS_STABILITY.columns if column.name == "solved"}
    assert "reached the threshold and stayed there" in text


def test_outcomes_and_the_floor(plans: dict[str, Plan]) -> None:
    curves = [[0.5] * 10, [-8.0] * 10, [0.8] * 5 + [float("nan")] * 5, [-1.0] * 5 + [0.5] * 5]
    runs = scored(plans["apart"], curves, [0.5] * 4, failed=2)
    assert runs["outcome"].tolist() == ["learnt", "did not learn", "failed", "learnt"]
    assert runs["auc"].tolist() == pytest.approx([0.5, 0.0, 0.4, -0.25])
    assert runs["max_drawdown"].tolist() == pytest.approx([0.0, 0.0, 0.8, 0.0])
    assert runs["failed_at"].isna().tolist() == [True, True, False, True]
