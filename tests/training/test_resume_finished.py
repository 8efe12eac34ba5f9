"""A run that is over is trained on with more steps, and says otherwise what can be done with it."""

import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
from helpers.command_line import pgkit as command_line
from helpers.parameters import few_by_default
from helpers.resumable_runs import ADAM, CARTPOLE, DIVERGES, by_tag, config, same_result, without_clock
from helpers.trees import assert_equal

import pgkit
from pgkit.config.schema import TrainConfig
from pgkit.errors import PgkitError
from pgkit.logging import read_metrics
from pgkit.system.signals import Stopped
from pgkit.training import monitor
from pgkit.training.result import TrainResult

OPTIMIZERS = [ADAM, ADAM | {"lr": 0.02}, {"name": "rmsprop", "lr": 0.003, "max_grad_norm": 0.5}, DIVERGES]
LANDER = {"id": "LunarLander-v3", "backend": "gymnasium", "max_episode_steps": 60, "normalize_rewards": True}


def members(agent: str, env: dict[str, Any], factor: int) -> list[TrainConfig]:
    """Three members that learn and one that fails, for ``factor`` times 600 steps, and all else as often."""
    evaluation = {"points": 3 * factor, "episodes": 2, "final_episodes": 2, "greedy": True}
    changes: dict[str, Any] = {"steps": 600 * factor, "evaluation": evaluation, "checkpoint_points": 2 * factor}
    return [
        config(agent, seed=seed, env=env, optimizer=table, log_interval=100, **changes)
        for seed, table in enumerate(OPTIMIZERS)
    ]


def rows_of(place: Path) -> list[Any]:
    """The rows of each member's metrics, without times, sorted."""
    rows = without_clock(read_metrics(place / "metrics.parquet"))
    return [by_tag(rows[rows["member"] == member]) for member in range(len(OPTIMIZERS))]


@pytest.mark.parametrize(
    ("agent", "env", "workers"),
    [
        ("actor-critic", CARTPOLE, 1),
        pytest.param("actor-critic", LANDER, 1, marks=pytest.mark.slow),
        pytest.param("reinforce", CARTPOLE, 1, marks=pytest.mark.slow),
        ("reinforce", CARTPOLE, 2),
        pytest.param("reinforce", LANDER, 1, marks=pytest.mark.slow),
    ],
)
def test_more_steps_have_the_bits_of_a_run_that_was_given_them(
    agent: str, env: dict[str, Any], workers: int, tmp_path: Path
) -> None:
    whole = pgkit.train(members(agent, env, 2), tmp_path / "whole")
    pgkit.train(members(agent, env, 1), tmp_path / "twice", workers=workers)
    same_result(whole, pgkit.resume(tmp_path / "twice", steps=1200))
    assert [row["failed"] for row in whole.table] == [False, False, False, True]
    for one, other in zip(rows_of(tmp_path / "whole"), rows_of(tmp_path / "twice"), strict=True):
        assert one.equals(other)
    for name in ("config.toml", "seed-0/config.toml"):
        assert (tmp_path / "whole" / name).read_text() == (tmp_path / "twice" / name).read_text()
    (entry,) = json.loads((tmp_path / "twice" / "provenance.json").read_text())["resumed"]
    assert entry["differences"] == []
    assert pgkit.resume(tmp_path / "twice") is None


@pytest.mark.parametrize("agent", few_by_default(["actor-critic", "reinforce"], "reinforce"))
def test_training_on_can_be_stopped_and_resumed(agent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where members train on one after the other, because they had left training one after the other."""
    whole = pgkit.train(members(agent, CARTPOLE, 2), tmp_path / "whole")
    pgkit.train(members(agent, CARTPOLE, 1), tmp_path / "run")
    updates = 0

    def stopping(self: monitor.Monitor, original: Any = monitor.Monitor.maybe_checkpoint) -> None:
        nonlocal updates
        updates += 1
        if updates % 3 == 0:
            os.kill(os.getpid(), signal.SIGINT)
        original(self)

    monkeypatch.setattr(monitor.Monitor, "maybe_checkpoint", stopping)
    stops = 0
    result = None
    while result is None:
        try:
            result = pgkit.resume(tmp_path / "run", steps=None if stops else 1200)
        except Stopped:
            stops += 1
    assert stops >= 4
    same_result(whole, result)


@pytest.mark.parametrize("env", [CARTPOLE, LANDER])
def test_a_repeated_evaluation_keeps_where_environments_stand(env: dict[str, Any], tmp_path: Path) -> None:
    whole = pgkit.train(members("actor-critic", env, 2))
    half = pgkit.train(members("actor-critic", env, 1), tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    again = pgkit.resume(tmp_path / "run")
    more = pgkit.resume(tmp_path / "run", steps=1200)
    assert again is not None
    assert again.table == half.table
    assert more is not None
    assert more.table == whole.table
    same_result(whole, more)


def test_episodes_restart_where_environments_cannot_be_saved(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The probe counts its episodes, which its generator does not know."""
    settings = config(env={"id": "helpers.probe_envs:ProbeCounting-v0"}, steps=300)
    pgkit.train(settings, tmp_path / "run")
    capsys.readouterr()
    result = pgkit.resume(tmp_path / "run", steps=600)
    assert "note: all episodes restart: environment" in capsys.readouterr().err
    assert result is not None
    assert result.table[0]["env_steps"] >= 600


def test_a_stretched_schedule_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = config(optimizer={"name": "adam", "lr": 0.01, "schedule": {"lr": "linear"}}, steps=300)
    pgkit.train(settings, tmp_path / "run")
    capsys.readouterr()
    result = pgkit.resume(tmp_path / "run", steps=600)
    assert result is not None
    assert result.table[0]["env_steps"] >= 600
    stretched = "the schedule of the optimizer ran over 300 steps, and goes on as one over 600"
    assert capsys.readouterr().err == f"note: {stretched}\n"
    (entry,) = json.loads((tmp_path / "run" / "provenance.json").read_text())["resumed"]
    assert entry["differences"] == [stretched]
    rows = read_metrics(tmp_path / "run" / "metrics.parquet")
    rates = rows[rows["tag"] == "optimizer/lr"].set_index("step")["value"]
    assert rates.iloc[-1] < rates.max() / 4
    assert rates[rates.index > 300].max() > rates[rates.index <= 300].min()


@pytest.fixture
def finished(tmp_path: Path) -> tuple[Path, TrainResult]:
    """The directory of a run of 300 steps, and its result."""
    return tmp_path / "run", pgkit.train(config(steps=300, env=CARTPOLE), tmp_path / "run")


def contents(place: Path) -> dict[Path, bytes]:
    """All files of a run."""
    return {file: file.read_bytes() for file in place.rglob("*") if file.is_file()}


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("result", ["result.json kept", "result.json gone"])
def test_steps_that_were_raised_by_hand_name_the_command(
    result: str, force: bool, finished: tuple[Path, TrainResult]
) -> None:
    place, _ = finished
    file = place / "config.toml"
    file.write_text(file.read_text().replace("\nsteps = 300\n", "\nsteps = 600\n"))
    if result == "result.json gone":
        (place / "result.json").unlink()
    before = contents(place)
    message = (
        f"{place} was given 300 steps, and its config.toml now says 600: pgkit resume {place} --steps 600 trains on"
    )
    with pytest.raises(PgkitError, match=f"^{re.escape(message)}$"):
        pgkit.resume(place, force=force)
    assert contents(place) == before
    done = command_line(f"resume {place} --steps 600 -q")
    assert done.exit_code == 0, done.stderr
    assert json.loads((place / "result.json").read_text())["members"][0]["env_steps"] >= 600


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (300, "resume: steps must be more than the 300 of the run so far, got 300"),
        (1.5, "resume: steps must be a whole number, got 1.5"),
        ("many", 'resume: steps must be a whole number, got "many"'),
        (-5, "resume: steps must be greater than or equal to 1, got -5"),
    ],
)
def test_wrong_steps_are_one_line_and_change_nothing(
    steps: Any, message: str, finished: tuple[Path, TrainResult]
) -> None:
    place, _ = finished
    before = contents(place)
    with pytest.raises(PgkitError, match=f"^{re.escape(message)}"):
        pgkit.resume(place, steps=steps)
    assert contents(place) == before
    done = command_line(f"resume {place} --steps {steps}")
    assert done.exit_code == 2
    assert done.stderr.count("\n") == 1
    assert contents(place) == before


def test_members_that_have_failed_are_not_trained_on(tmp_path: Path) -> None:
    pgkit.train(config(optimizer=DIVERGES, steps=300), tmp_path / "run")
    with pytest.raises(PgkitError, match="all members have failed, so none can be trained on"):
        pgkit.resume(tmp_path / "run", steps=600)


def test_one_member_is_trained_on_alone(tmp_path: Path) -> None:
    pgkit.train(members("reinforce", CARTPOLE, 1), tmp_path / "run")
    with pytest.raises(PgkitError, match="steps must be more than the 600"):
        pgkit.resume(tmp_path / "run", member="seed-1", out=tmp_path / "alone", steps=600)
    assert not (tmp_path / "alone").exists()
    alone = pgkit.resume(tmp_path / "run", member="seed-1", out=tmp_path / "alone", steps=1200)
    assert alone is not None
    whole = pgkit.train(members("reinforce", CARTPOLE, 2)[1])
    assert_equal(whole.params, alone.params)
    assert whole.table == alone.table


@pytest.mark.parametrize("force", [False, True])
def test_a_repeated_evaluation_says_that_nothing_was_trained(
    force: bool, finished: tuple[Path, TrainResult], capsys: pytest.CaptureFixture[str]
) -> None:
    place, whole = finished
    (place / "result.json").unlink()
    again = pgkit.resume(place, force=force)
    assert again is not None
    assert again.table == whole.table
    assert capsys.readouterr().err == "note: all steps are trained already: only the final evaluation is repeated\n"


def test_a_finished_run_stays_finished(finished: tuple[Path, TrainResult]) -> None:
    assert pgkit.resume(finished[0]) is None
