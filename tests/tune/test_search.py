"""Searches that run: every trial once, whatever stops them, and an honest end."""

import contextlib
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.command_line import pgkit as pgkit_command
from helpers.small_search import SETTINGS, SPACE, WORDS, write_toml

import pgkit
from pgkit.compare.execution.worker import run_batch
from pgkit.errors import PgkitError
from pgkit.system.files import read_json
from pgkit.tune import search
from pgkit.tune.jobs import Member, split, with_seed
from pgkit.tune.plan import make_plan
from pgkit.tune.score import run_score
from pgkit.tune.study import SCORES, Study

optuna = pytest.importorskip("optuna")
pytestmark = pytest.mark.process

TRIALS = 8


def load_study(place: Path) -> Any:
    """The study, as Optuna's own functions and its dashboard load it."""
    return optuna.load_study(study_name="small", storage=f"sqlite:///{place / 'tuning' / 'small' / 'study.db'}")


def finished(place: Path) -> list[Any]:
    return [trial for trial in load_study(place).trials if trial.state.is_finished()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The parent of an uninterrupted search."""
    place = tmp_path_factory.mktemp("whole")
    write_toml(place)
    with contextlib.chdir(place):
        outcome = pgkit_command(f"{WORDS} --n-trials {TRIALS}")
    assert outcome.exit_code == 0, outcome.stderr
    (place / "stdout").write_text(outcome.stdout, encoding="utf-8")
    return place


def test_optuna_opens_the_study(whole: Path) -> None:
    study = load_study(whole)
    assert [trial.number for trial in study.trials] == list(range(TRIALS))
    assert {trial.state.name for trial in study.trials} <= {"COMPLETE", "PRUNED"}
    assert study.trials[0].params == {"optimizer.lr": 3e-3, "optimizer.name": "adam"}  # as it stands
    assert study.best_value == max(trial.value for trial in study.trials if trial.state.name == "COMPLETE")
    assert {150, 300, 450} == set(study.best_trial.intermediate_values)


def test_the_table_and_the_seeds_are_printed(whole: Path) -> None:
    text = (whole / "stdout").read_text(encoding="utf-8")
    assert "0 to 1: they chose the best trial" in text
    assert "1000 to 1002: nothing was chosen by them" in text
    assert "score on tuning seeds [95 %]" in text
    assert "score on fresh seeds [95 %]" in text
    assert "pgkit train tuning/small/best.toml" in text


def test_a_score_is_that_of_runs_alone(whole: Path) -> None:
    best = load_study(whole).best_trial
    plan = make_plan(whole / "small.toml", (), SPACE, 2, 3, 4)
    rows = [run_batch([with_seed(plan.config(best.params), seed)])[0] for seed in range(2)]
    assert [run_score(row) for row in rows] == best.user_attrs[SCORES]
    assert best.value == np.mean(best.user_attrs[SCORES])
    assert len(set(best.user_attrs[SCORES])) > 1


def test_best_toml_trains(whole: Path) -> None:
    config = pgkit.load_config(whole / "tuning" / "small" / "best.toml", {"steps": 100})
    best = load_study(whole).best_trial
    assert config.name == "small-tuned"
    assert config.optimizer["lr"] == best.params["optimizer.lr"]
    assert len(pgkit.train(config).table) == 1


def test_the_same_command_runs_nothing_and_more_trials_go_on(whole: Path) -> None:
    before = [trial.datetime_complete for trial in load_study(whole).trials]
    report = read_json(whole / "tuning" / "small" / "report.json")
    for count in (TRIALS, TRIALS + 2):
        search(whole / "small.toml", SPACE, count, directory=whole / "tuning" / "small", **SETTINGS)
        assert [trial.datetime_complete for trial in load_study(whole).trials][:TRIALS] == before
        assert len(finished(whole)) == count
        again = read_json(whole / "tuning" / "small" / "report.json")
        assert {name: again[name] for name in report} == report


def test_another_search_is_refused(whole: Path) -> None:
    place = whole / "tuning" / "small"
    with pytest.raises(PgkitError, match=r"holds another search \(they differ in space, optimizer\.lr\)"):
        search(whole / "small.toml", ["optimizer.lr=1e-4:1:log", SPACE[1]], 1, directory=place, **SETTINGS)
    with pytest.raises(PgkitError, match=r"they differ in config, steps\)"):
        search(whole / "small.toml", SPACE, 1, {"steps": 700}, directory=place, **SETTINGS)
    with pytest.raises(PgkitError, match="holds no search"):
        search(whole / "small.toml", SPACE, 1, directory=whole, **SETTINGS)


def test_running_trials_of_a_process_that_is_gone_wait_again(tmp_path: Path) -> None:
    file = write_toml(tmp_path)
    place = tmp_path / "tuning" / "small"
    search(file, SPACE, 2, directory=place, **SETTINGS)
    left = Study(place / "study.db", make_plan(file, (), SPACE, 2, 3, 4), seed=7, population=4).ask(3)
    assert [trial.number for trial in left] == [2, 3, 4]
    search(file, SPACE, 6, directory=place, **SETTINGS)
    trials = load_study(tmp_path).trials
    assert [trial.number for trial in trials] == list(range(6))
    assert all(trial.state.is_finished() for trial in trials)
    assert [trials[trial.number].params for trial in left] == [trial.params for trial in left]


@pytest.mark.slow
def test_a_killed_search_goes_on_where_it_was(tmp_path: Path) -> None:
    write_toml(tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-m", "pgkit", *WORDS.split()],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        database = tmp_path / "tuning" / "small" / "study.db"
        while not (database.is_file() and _is_under_way(database)):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    killed = load_study(tmp_path).trials
    left = [trial for trial in killed if trial.state.name == "RUNNING"]
    assert left
    count = len(killed)
    search(tmp_path / "small.toml", SPACE, count, directory=tmp_path / "tuning" / "small", **SETTINGS)
    trials = load_study(tmp_path).trials
    assert len(trials) == count
    assert all(trial.state.is_finished() for trial in trials)
    for trial in left:  # under the same number and with the same values
        assert trials[trial.number].params | trial.params == trials[trial.number].params


def _is_under_way(database: Path) -> bool:
    """Whether trials have ended, and others are running."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        try:
            states = {state for (state,) in connection.execute("SELECT DISTINCT state FROM trials")}
        except sqlite3.OperationalError:  # its tables are being made
            return False
    return {"RUNNING", "COMPLETE"} <= states


def test_what_cannot_share_a_population_is_grouped(tmp_path: Path) -> None:
    space = ("rollout_steps=8,16", "optimizer.lr=1e-3:1e-2", "minibatches=1,32")
    result = search(
        write_toml(tmp_path), space, 6, directory=tmp_path / "out", population=6, tuning_seeds=2, report_seeds=2
    )
    trials = optuna.load_study(study_name="small", storage=f"sqlite:///{tmp_path / 'out' / 'study.db'}").trials
    refused = [trial for trial in trials if "reason" in trial.user_attrs]
    assert all("minibatches must divide" in trial.user_attrs["reason"] for trial in refused)
    assert {trial.params["minibatches"] for trial in refused} == {32}
    assert sum(result.counts.values()) == 6
    plan = make_plan(tmp_path / "small.toml", (), space[:2], 1, 2, 4)
    members = [
        Member(number, with_seed(plan.config({"rollout_steps": steps, "optimizer.lr": lr}), 0))
        for number, (steps, lr) in enumerate([(8, 1e-3), (16, 1e-3), (8, 1e-2)])
    ]
    assert sorted(sorted(member.owner for member in job.members) for job in split(members, 9)) == [[0, 2], [1]]


def test_a_trial_whose_seeds_all_fail_is_never_the_best(tmp_path: Path) -> None:
    write_toml(tmp_path)
    overrides = {"optimizer": {"name": "sgd", "lr": 1e-3}}
    space = ["optimizer.lr=1e-3,1e38"]
    result = search(
        tmp_path / "small.toml", space, 4, overrides, tmp_path / "out", tuning_seeds=1, report_seeds=2, population=4
    )
    assert result.params["optimizer.lr"] == 1e-3
    assert result.counts["pruned"] > 0


def test_a_run_that_fails_counts_as_its_worst_evaluation_from_there() -> None:
    row = {"returns": [20.0, 10.0, np.nan, np.nan, np.nan], "diverged": True}
    assert run_score(row) == 12.0
    assert run_score(row, share=0.5) == pytest.approx(40 / 3)
    assert run_score({"returns": [20.0, 10.0, 30.0, np.nan, np.nan], "diverged": False}, share=0.5) == 20.0


def test_the_example_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readme = Path(pgkit.__file__).parent / "tune" / "README.md"
    (example,) = re.findall(r"^```python\n(.*?)^```$", readme.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "README", "exec"), {"__name__": "__main__"})
    assert (tmp_path / "tuning" / "cartpole-actor-critic" / "best.toml").is_file()


def test_the_example_on_lunarlander_is_a_search() -> None:
    readme = (Path(pgkit.__file__).parent / "tune" / "README.md").read_text(encoding="utf-8")
    section = readme.partition("## LunarLander")[2]
    space = re.findall(r"--space (\S+)", section)
    assert len(space) == 5
    assert make_plan("lunarlander-actor-critic", (), space, 3, 20, 4).as_it_stands() is not None
