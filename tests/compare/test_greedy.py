"""Evaluations with most likely actions: a second column that changes nothing in the first."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.small_comparison import write_toml

import pgkit
from pgkit.compare import api
from pgkit.compare.analysis.analyse import analyse
from pgkit.compare.execution.store import Store
from pgkit.compare.execution.worker import run_batch
from pgkit.compare.plan.baselines import ScoreScale
from pgkit.compare.plan.plan import Plan, Run, read_plan
from pgkit.compare.selection.scores import score_curves, score_runs
from pgkit.compare.tables import SCHEMAS, Analysis, check_tables, schemas
from pgkit.rollouts.evaluate import EvalKey, evaluate_policy
from pgkit.training.population import build, build_envs

WORDS = ['agents=["actor-critic"]', "evaluation.greedy=true"]
SCALES = {"CartPole-v1": ScoreScale(22.2, 500, 475)}
RUN = Run("tuning", "CartPole-v1", "actor-critic", "fast adam", 0.01, 3)


@pytest.fixture
def plans(tmp_path: Path) -> tuple[Plan, Plan]:
    """Without and with it."""
    path = write_toml(tmp_path)
    return read_plan(path, WORDS[:1]), read_plan(path, WORDS)


def test_nothing_else_changes(plans: tuple[Plan, Plan]) -> None:
    without, with_it = (run_batch([plan.train_config(RUN)])[0] for plan in plans)
    greedy = with_it.pop("greedy_returns")
    assert with_it == without
    assert len(greedy) == len(without["returns"]) == 5
    assert greedy != without["returns"]


def test_points_are_played_with_most_likely_actions_on_the_evaluation_streams(plans: tuple[Plan, Plan]) -> None:
    config = plans[1].train_config(RUN)
    evaluations = pgkit.train([config]).evaluations
    population = build([config])
    envs = build_envs(config, 2, torch.device("cpu"))
    alone = evaluate_policy(population.policy, population.params, envs, [EvalKey(3, 0)], 2, deterministic=True)
    assert evaluations[0].greedy is not None
    assert evaluations[0].greedy.returns.tolist() == alone.returns[0].tolist()
    assert all(evaluation.greedy is not None for evaluation in evaluations)
    assert len(evaluations) == len({evaluation.point for evaluation in evaluations})


def test_the_score_is_that_of_sampled_actions(plans: tuple[Plan, Plan]) -> None:
    """A run whose most likely actions score 1 at every point, sampled ones 0.5; it diverges behind the third point."""
    half, full, lost = 22.2 + 477.8 / 2, 500.0, np.nan
    rows = [
        {**RUN._asdict(), "diverged": False, "env_steps": 600, "returns": [half] * 5, "greedy_returns": [full] * 5},
        {
            **RUN._replace(seed=4)._asdict(),
            "diverged": True,
            "env_steps": 300,
            "returns": [half] * 3 + [lost] * 2,
            "greedy_returns": [full] * 3 + [lost] * 2,
        },
    ]
    stored = pd.DataFrame([{**row, "final": [half] * 3, "greedy": [full] * 3} for row in rows])
    runs = score_runs(plans[1], SCALES, stored)
    assert runs["auc"].tolist() == pytest.approx([0.5, 0.3])
    assert runs["greedy_auc"].tolist() == pytest.approx([1.0, 0.6])
    curves = score_curves(plans[1], SCALES, stored)
    assert curves["greedy_score"].tolist() == pytest.approx([1.0] * 8 + [0.0] * 2)
    assert curves["greedy_return_mean"].isna().sum() == 2
    assert "greedy_score" not in score_curves(plans[0], SCALES, stored.drop(columns="greedy_returns"))


def test_tables_have_the_columns_only_where_they_were_played(plans: tuple[Plan, Plan]) -> None:
    extra = {"runs": {"greedy_auc"}, "arms": {"greedy_auc"}, "curves": {"greedy_return_mean", "greedy_score"}}
    for name, schema in schemas(greedy=True).items():
        assert set(schema.all) - set(SCHEMAS[name].all) == extra.get(name, set())
    empty = pd.DataFrame(columns=[*Run._fields])
    baselines = pd.DataFrame(columns=["environment", "policy", "episodes", "return_mean", "return_sd"])
    found: list[Analysis] = [analyse(plan, SCALES, baselines, empty, {}) for plan in plans]
    check_tables(found[0].tables)
    check_tables(found[1].tables, schemas(greedy=True))


def test_a_comparison_shows_it_as_a_second_column(tmp_path: Path) -> None:
    words = [*WORDS, "evaluation_seeds=[70,71]", "learning_rates=[1e-2]", "tier=quick"]
    analysis = api.compare(write_toml(tmp_path), words, tmp_path / "c", workers=1)
    runs, curves = analysis.tables["runs"], analysis.tables["curves"]
    of_run = curves.groupby(["stage", "optimizer", "seed"])["greedy_score"].mean()
    merged = runs.set_index(["stage", "optimizer", "seed"])["greedy_auc"]
    np.testing.assert_allclose(merged.sort_index(), of_run.sort_index(), atol=1e-12)
    arms = analysis.tables["arms"].set_index("optimizer")
    evaluated = runs[runs["stage"] == "evaluation"].groupby("optimizer")
    np.testing.assert_allclose(arms["greedy_auc"].sort_index(), evaluated["greedy_auc"].mean().sort_index())
    np.testing.assert_allclose(arms["mean"].sort_index(), evaluated["auc"].mean().sort_index())
    page = (tmp_path / "c" / "report.html").read_text(encoding="utf-8")
    assert "score, deterministic" in page
    assert "with the stochastic and with the deterministic policy" in page
    assert "Dotted: the median of the deterministic policy" in page
    assert "greedy_returns" in Store(tmp_path / "c").load()


def test_training_logs_it(tmp_path: Path) -> None:
    words = ["steps=400", "evaluation.points=2", "evaluation.episodes=2", "evaluation.final_episodes=2"]
    config = pgkit.load_config("cartpole-actor-critic", [*words, "evaluation.greedy=true"])
    pgkit.train([config], tmp_path / "run")
    metrics = pd.read_parquet(tmp_path / "run" / "metrics.parquet")
    tags = metrics.loc[:, [name for name in metrics if metrics[name].dtype != float]].astype(str).to_numpy().ravel()
    assert "eval/greedy_return_mean" in tags
