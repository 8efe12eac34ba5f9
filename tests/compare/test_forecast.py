"""The cost that ``--dry-run`` prints: what is counted, what is measured, and what the sentence promises."""

from pathlib import Path

import pytest
from helpers.odd_envs import odd_id
from helpers.small_comparison import write_toml
from typer.testing import CliRunner

from pgkit.cli import app
from pgkit.compare.execution import forecast as module
from pgkit.compare.execution.forecast import Forecast, episode_seconds, expected_runs, makespan, run_seconds
from pgkit.compare.execution.trial import Trial, try_batch
from pgkit.compare.plan.plan import Plan, read_plan
from pgkit.config.load import load_config

CASE = ("CartPole-v1", "actor-critic")
ONE_AGENT = 'agents=["actor-critic"]'
TRIAL = Trial(3.0, training_speed=1000.0, episode_seconds=0.1, episode_steps=20.0, longest_episode=500, actions=2)


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return read_plan(write_toml(tmp_path), [ONE_AGENT])


def test_runs_are_the_most_that_there_can_be(plan: Plan) -> None:
    runs = expected_runs(plan)
    assert {stage: len(of_stage) for stage, of_stage in runs.items()} == {
        "tuning": 2 * 3 * 2,  # arms, rates, seeds
        "extension": 2 * 8 * 2,  # two rates, twice, at both ends
        "evaluation": 2 * 3,
        "neighbour": 2 * 3 * 3,  # the rates beside, and another second-best
    }
    assert not {run.lr for run in runs["extension"]} & set(plan.rates)


def test_one_rate_has_neither_extensions_nor_neighbours(plan: Plan, tmp_path: Path) -> None:
    one = read_plan(tmp_path / "small.toml", [ONE_AGENT, "learning_rates=[0.1]"])
    assert not expected_runs(one)["extension"]
    assert not expected_runs(one)["neighbour"]


def test_settings_have_one_neighbour_and_no_grid(plan: Plan, tmp_path: Path) -> None:
    tuned = read_plan(tmp_path / "small.toml", [ONE_AGENT, 'track="all tuned"', "settings=4"])
    runs = expected_runs(tuned)
    assert [len(runs[stage]) for stage in ("tuning", "extension", "neighbour")] == [2 * 4 * 2, 0, 2 * 3]


def test_a_long_episode_costs_its_beginning_and_steps_as_fast_as_training() -> None:
    assert episode_seconds(TRIAL, 20.0) == 0.1
    assert episode_seconds(TRIAL, 520.0) == pytest.approx(0.1 + 500 / 1000)
    slow_training = TRIAL._replace(training_speed=100.0)
    assert episode_seconds(slow_training, 520.0) == pytest.approx(0.1 + 500 / 200)


def test_a_run_trains_and_plays_all_episodes_of_its_evaluations(plan: Plan) -> None:
    config = plan.cases[0].config
    episodes = 5 * 2 + 2 * 3
    assert run_seconds(config, TRIAL, 20.0) == pytest.approx(600 / 1000 + episodes * 0.1)
    evaluation = config.evaluation.model_copy(update={"greedy": True})
    twice = config.model_copy(update={"evaluation": evaluation})
    assert run_seconds(twice, TRIAL, 20.0) == pytest.approx(600 / 1000 + (2 * 5 * 2 + 2 * 3) * 0.1)


@pytest.mark.parametrize(("workers", "seconds"), [(1, 9.0), (2, 5.0), (3, 4.0)])
def test_the_last_job_is_waited_for(workers: int, seconds: float) -> None:
    assert makespan([3.0, 2.0, 2.0, 2.0], workers) == seconds


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials whose result is known; sgd is ten times slower than the other arm."""

    def try_batches(plan: Plan, batches: object, workers: int) -> dict[tuple[str, str, str], list[Trial]]:
        slow = TRIAL._replace(training_speed=100.0)
        return {(*CASE, "sgd"): [slow], (*CASE, "fast adam"): [TRIAL]}

    monkeypatch.setattr(module, "try_batches", try_batches)


@pytest.mark.usefixtures("measured")
def test_every_arm_has_its_own_speed(plan: Plan) -> None:
    rows = {row["stage"]: row for row in module.forecast(plan, 2).rows}
    episodes = 16 * 0.1
    least = 6 * (600 / 100 + episodes) + 6 * (600 / 1000 + episodes)
    assert rows["tuning"]["minutes_from"] == pytest.approx(least / 2 / 60)
    assert rows["tuning"]["minutes_to"] > rows["tuning"]["minutes_from"]
    assert rows["extension"]["minutes_from"] == 0.0
    assert rows["baselines"]["minutes_from"] == pytest.approx(3 * 1000 * 0.1 / 60)


@pytest.mark.usefixtures("measured")
def test_the_last_row_is_the_sum(plan: Plan) -> None:
    *rows, total = module.forecast(plan, 1).rows
    for name in ("runs", "env_steps", "evaluation_steps", "minutes_from", "minutes_to"):
        assert total[name] == pytest.approx(sum(row[name] for row in rows))
    assert total["runs"] == 12 + 32 + 6 + 18


def test_the_sentence_promises_no_maximum() -> None:
    total = {"minutes_from": 0.84, "minutes_to": 12.3}
    sentence = Forecast([total], 2, 4.2).sentence
    assert sentence.startswith(
        "about 0.8 to 12 minutes with 2 workers, from a trial of 4 s on this machine, as busy as"
    )
    assert "at most" not in sentence


def test_one_process_is_one_worker() -> None:
    assert " minutes with 1 worker, from " in Forecast([{"minutes_from": 1.0, "minutes_to": 2.0}], 1, 4.2).sentence


def test_without_a_time_limit_the_upper_end_is_of_episodes_as_in_the_trial(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Evaluations cut endless episodes at 108,000 steps, which made hours of minutes."""
    endless = TRIAL._replace(longest_episode=60, has_time_limit=False)
    trials = {(*CASE, arm): [endless, endless._replace(longest_episode=40)] for arm in ("sgd", "fast adam")}
    monkeypatch.setattr(module, "try_batches", lambda plan, batches, workers: trials)
    forecast = module.forecast(plan, 2)
    assert forecast.rows[1]["minutes_to"] < 3 * forecast.rows[1]["minutes_from"]
    assert "CartPole-v1 has no time limit: " in forecast.sentence.splitlines()[-1]
    assert "is for episodes of up to 60 steps, the longest of the trial" in forecast.sentence


def test_a_trial_without_a_time_limit_has_the_longest_episode_that_it_saw() -> None:
    config = load_config("cartpole-actor-critic", [f"env.id={odd_id('Plain')}", "env.backend=gymnasium", "steps=100"])
    trial = try_batch([config])
    assert (trial.longest_episode, trial.episode_steps, trial.has_time_limit) == (5, 5.0, False)


def test_a_trial_measures_a_batch(plan: Plan) -> None:
    runs = expected_runs(plan)["tuning"]
    trial = try_batch([plan.train_config(run) for run in runs])
    assert min(trial.training_speed, trial.episode_seconds, trial.setup_seconds) > 0
    assert 8 <= trial.episode_steps < 60
    assert (trial.longest_episode, trial.actions) == (500, 2)


@pytest.mark.process
def test_a_dry_run_tries_every_arm_and_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_toml(tmp_path)
    result = CliRunner().invoke(app, ["compare", "small.toml", "--dry-run", "--workers", "2"])
    assert result.exit_code == 0, result.output
    assert "minutes with 2 workers, from a trial of" in result.stdout
    for stage in ("baselines", "tuning", "extension", "evaluation", "neighbour", "all"):
        assert any(line.split()[:1] == [stage] for line in result.stdout.splitlines()), stage
    assert [path.name for path in tmp_path.iterdir()] == ["small.toml"]
