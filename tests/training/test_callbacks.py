"""Callbacks see what happens, change nothing, and stop runs that can be continued."""

import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.callbacks import Notes, Raises, StopsAt, Vandal
from helpers.command_line import pgkit as command_line
from helpers.resumable_runs import CARTPOLE, DIVERGES, config, population, same, same_result
from helpers.trees import assert_equal

import pgkit
from pgkit.callbacks import CallbackError, Stop, StopTrainingOnNoModelImprovement, StopTrainingOnRewardThreshold
from pgkit.callbacks.protocol import MOMENTS
from pgkit.config.schema import TrainConfig
from pgkit.errors import PgkitError
from pgkit.logging import read_metrics
from pgkit.system.signals import Stopped
from pgkit.training import monitor
from pgkit.training.captured import CapturedUpdates

LANDER = {"id": "LunarLander-v3", "backend": "gymnasium", "max_episode_steps": 60, "normalize_rewards": True}
TABLES = [
    {"name": "adam", "lr": 0.01},
    {"name": "adam", "lr": 0.02},
    {"name": "rmsprop", "lr": 0.003, "max_grad_norm": 0.5},
]


def members(agent: str = "actor-critic", **changes: Any) -> list[TrainConfig]:
    """Three members that learn, and whose updates can be captured."""
    evaluation = {"points": 6, "episodes": 2, "final_episodes": 2}
    env = {"id": "CartPole-v1", "max_episode_steps": 40}
    settings = {"env": env, "evaluation": evaluation, "steps": 3000, **changes}
    return [config(agent, seed=seed, optimizer=table, **settings) for seed, table in enumerate(TABLES)]


class Only:
    """Defines the methods that it is asked for, which do nothing."""

    def __init__(self, *moments: str, every: int = 1) -> None:
        self.every = every
        for moment in moments:
            setattr(self, moment, lambda view: None)


@pytest.mark.parametrize(
    ("agent", "env", "workers"),
    [
        pytest.param("actor-critic", CARTPOLE, 1, marks=pytest.mark.slow),
        pytest.param("actor-critic", CARTPOLE, 2, marks=pytest.mark.process),
        pytest.param("ppo", CARTPOLE, 1, marks=pytest.mark.slow),
        ("reinforce", LANDER, 1),
    ],
)
def test_a_callback_changes_nothing(agent: str, env: dict[str, Any], workers: int, tmp_path: Path) -> None:
    """Whatever it writes into, a member that fails among them."""
    configs = population(agent, env, steps=600)
    plain = pgkit.train(configs, tmp_path / "plain")
    notes = Notes()
    seen = pgkit.train(configs, tmp_path / "seen", workers=workers, callbacks=[Vandal(), notes, Vandal(every=3)])
    same(plain, seen) if workers == 1 else same_result(plain, seen)
    assert [row["failed"] for row in seen.table] == [False, False, False, True]
    assert {moment for moment, _ in notes.calls} == set(MOMENTS)
    logged, other = (read_metrics(tmp_path / name / "metrics.parquet") for name in ("seen", "plain"))
    keys = ["member", "tag", "step", "value"]
    logged, other = (rows[rows["tag"] != "time/env_steps_per_second"][keys] for rows in (logged, other))
    assert logged.sort_values(keys).reset_index(drop=True).equals(other.sort_values(keys).reset_index(drop=True))


@pytest.mark.parametrize("agent", ["actor-critic", "reinforce"])
def test_what_callbacks_see_is_what_happens(agent: str) -> None:
    notes = Notes()
    result = pgkit.train(members(agent), callbacks=[notes])
    moments = [moment for moment, _ in notes.calls]
    assert moments[0] == "on_start"
    assert moments[-1] == "on_end"
    (start,) = notes.of("on_start")
    assert start.seeds == (0, 1, 2)
    assert start.env_steps == (0.0, 0.0, 0.0)
    (end,) = notes.of("on_end")
    assert end.status == "finished"
    assert list(end.table) == result.table
    assert end.summary == result.summary
    assert_equal(end.params, result.params)
    last = {member: k for update in notes.of("on_update") for k, member in enumerate(update.members)}
    assert last.keys() == {0, 1, 2}
    for member in last:
        update = [update for update in notes.of("on_update") if member in update.members][-1]
        row = update.members.index(member)
        assert_equal(
            {k: leaf[row] for k, leaf in update.params.items()}, {k: v[member] for k, v in result.params.items()}
        )
        assert update.env_steps[row] == result.table[member]["env_steps"]
        assert update.metrics["policy/entropy"][row] > 0
    seen = [(e.member, e.env_steps, e.returns.tolist()) for e in notes.of("on_evaluation")]
    made = [(e.member, e.env_steps, e.episodes.returns.tolist()) for e in result.evaluations]
    assert sorted(seen) == sorted(made)
    assert len(seen) == 21
    final = [evaluation for evaluation in notes.of("on_evaluation") if evaluation.member == 1][-1]
    assert len(final.history) == 7
    assert final.history[-1] == final.return_mean == final.returns.mean().item()
    assert {leaf.shape[0] for leaf in final.params.values()} == {1}


@pytest.mark.parametrize("agent", ["actor-critic", "reinforce"])
def test_rollouts_hold_every_step_of_training(agent: str) -> None:
    notes = Notes()
    result = pgkit.train(members(agent), callbacks=[notes])
    steps = [0] * 3
    for view in notes.of("on_rollout"):
        for row, member in enumerate(view.members):
            assert view.env_steps[row] == steps[member]
            assert torch.equal(view.unnormalized.reward[:, row].bool(), view.rollout.valid[:, row])
            steps[member] += int(view.rollout.valid[:, row].sum())
    assert steps == [row["env_steps"] for row in result.table]


def test_log_rows_are_those_of_the_run(tmp_path: Path) -> None:
    notes = Notes()
    pgkit.train(members(), tmp_path / "run", callbacks=[notes])
    seen = {
        (member, int(steps), tag, values[k])
        for row in notes.of("on_log")
        for k, (member, steps) in enumerate(zip(row.members, row.env_steps, strict=True))
        for tag, values in row.values.items()
        if values[k] == values[k]
    }
    rows = read_metrics(tmp_path / "run" / "metrics.parquet")
    logged = set(zip(rows["member"], rows["step"], rows["tag"], rows["value"], strict=True))
    assert len(seen) > 100
    assert seen <= logged
    final = {tag for _, _, tag, _ in logged - seen}
    assert final == {"eval/return_mean", "eval/return_std", "eval/length_mean"}  # TensorBoard's HParams, see on_end


@pytest.mark.parametrize(
    ("agent", "callback", "captured", "watched"),
    [
        ("actor-critic", Only("on_start", "on_log", "on_evaluation", "on_end"), True, 0),
        ("actor-critic", Only("on_update", every=10), True, 10),
        ("actor-critic", Only("on_rollout"), False, 1),
        ("reinforce", Only("on_evaluation"), True, 0),
        ("reinforce", Only("on_update", every=10), False, 10),
    ],
)
def test_only_updates_that_are_watched_run_in_python(
    agent: str, callback: Only, captured: bool, watched: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """on_evaluation and on_log cost no captured update, on_update only those that it sees."""
    lengths = []

    def running(self: CapturedUpdates, population: Any, *rest: Any, original: Any = CapturedUpdates.run) -> Any:
        before = population.updates
        output = original(self, population, *rest)
        lengths.append(population.updates - before)
        return output

    monkeypatch.setattr(CapturedUpdates, "run", running)
    pgkit.train(members(agent), callbacks=[callback])
    assert (max(lengths) > 1) == captured
    assert watched != 10 or max(lengths) <= 9


def test_every_counts_updates() -> None:
    all_of_them, some = Notes(), Notes(every=5)
    pgkit.train(members(), callbacks=[all_of_them, some])
    updates = [view.update for view in all_of_them.of("on_update")]
    assert updates == list(range(1, len(updates) + 1))
    assert [view.update for view in some.of("on_update")] == list(range(5, len(updates) + 1, 5))
    assert [view.update for view in some.of("on_rollout")] == list(range(5, len(updates) + 1, 5))


@pytest.mark.parametrize(
    ("agent", "member", "workers"),
    [
        ("actor-critic", 1, 1),
        ("actor-critic", None, 1),
        pytest.param("actor-critic", None, 2, marks=pytest.mark.process),
        ("reinforce", 1, 1),
    ],
)
def test_a_stopped_run_has_a_result_and_can_be_continued(
    agent: str, member: int | None, workers: int, tmp_path: Path
) -> None:
    whole = pgkit.train(members(agent))
    notes = Notes()
    stopped = pgkit.train(members(agent), tmp_path / "run", callbacks=[StopsAt(900, member), notes], workers=workers)
    steps = [row["env_steps"] for row in stopped.table]
    expected = "late enough (StopsAt)"
    assert stopped.stopped == {k: expected for k in range(3) if member in (k, None)}
    assert all((count < 3000) == (k in stopped.stopped) for k, count in enumerate(steps))
    rows = json.loads((tmp_path / "run" / "result.json").read_text())["members"]
    assert [row.get("stopped") for row in rows] == [stopped.stopped.get(k) for k in range(3)]
    (end,) = notes.of("on_end")
    assert (end.status, end.stopped) == ("stopped", stopped.stopped)
    again = pgkit.resume(tmp_path / "run")
    same_result(whole, again)
    assert pgkit.resume(tmp_path / "run") is None
    assert "stopped" not in (tmp_path / "run" / "result.json").read_text()


@pytest.mark.process
def test_where_a_member_stops_does_not_depend_on_the_processes() -> None:
    """A worker waits for what callbacks say; so do captured updates, which end where an evaluation is due."""
    threshold = StopTrainingOnRewardThreshold(25.0)
    alone = [pgkit.train(one, callbacks=[threshold]).table[0] for one in members()]
    together = pgkit.train(members(), callbacks=[threshold])
    in_processes = pgkit.train(members(), callbacks=[threshold], workers=2)
    assert together.stopped
    assert together.stopped == in_processes.stopped
    assert alone == together.table == in_processes.table


def test_a_run_that_was_killed_after_a_stop_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only when it is over does resuming bring back who was stopped."""
    stopped = pgkit.train(members(), callbacks=[StopsAt(900, member=1)])
    interrupted = 0

    def interrupting(self: monitor.Monitor, original: Any = monitor.Monitor.maybe_checkpoint) -> None:
        nonlocal interrupted
        if self.parts[-1].size == 2 and not interrupted:
            interrupted += 1
            os.kill(os.getpid(), signal.SIGINT)
        original(self)

    monkeypatch.setattr(monitor.Monitor, "maybe_checkpoint", interrupting)
    notes = Notes()
    with pytest.raises(Stopped):
        pgkit.train(members(), tmp_path / "run", callbacks=[StopsAt(900, member=1), notes])
    assert interrupted == 1
    (end,) = notes.of("on_end")
    assert end.status == "interrupted"
    assert "pgkit resume" in end.error
    resumed = Notes()
    result = pgkit.resume(tmp_path / "run", callbacks=[resumed])
    same_result(stopped, result)
    assert result is not None
    assert result.stopped == stopped.stopped == {1: "late enough (StopsAt)"}
    (start,) = resumed.of("on_start")
    assert start.resumed
    assert start.env_steps[1] == result.table[1]["env_steps"]
    history = [view.history for view in resumed.of("on_evaluation") if view.member == 0]
    assert [len(means) for means in history] == list(range(8 - len(history), 8))


def test_a_run_can_be_stopped_before_its_first_update() -> None:
    class Never:
        def on_start(self, view: Any) -> Stop:
            return Stop("not today")

    result = pgkit.train(members(), callbacks=[Never()])
    assert [row["env_steps"] for row in result.table] == [0, 0, 0]
    assert set(result.stopped.values()) == {"not today (Never)"}


def test_a_member_that_has_failed_or_finished_was_not_stopped() -> None:
    configs = [*members(), config(seed=9, optimizer=DIVERGES, env=members()[0].env.model_dump(), steps=3000)]
    configs[-1] = configs[-1].model_copy(update={"evaluation": configs[0].evaluation})
    result = pgkit.train(configs, callbacks=[StopsAt(2990)])
    assert result.table[3]["failed"]
    assert 3 not in result.stopped


def test_stop_without_improvement_counts_as_stable_baselines_does() -> None:
    """The next evaluation after so many without a new best one, the first of them uncounted."""

    def stops_at(returns: list[float], patience: int, min_evals: int = 0) -> int | None:
        callback = StopTrainingOnNoModelImprovement(patience, min_evals)
        for count in range(1, len(returns) + 1):
            view: Any = Notes()
            view.history, view.member = tuple(returns[:count]), 0
            if callback.on_evaluation(view) is not None:
                return count
        return None

    assert stops_at([1, 2, 2, 1, 0], 2) == 5
    assert stops_at([1, 2, 2, 3, 0], 2) is None
    assert stops_at([5, 1, 1, 1, 1, 1], 1, min_evals=3) == 5


@pytest.mark.parametrize(
    ("moment", "where", "workers"),
    [
        ("on_start", "", 1),
        ("on_rollout", r" of seeds 0 \.\.\. 2 after 0 steps", 1),
        ("on_update", r" of seeds 0 \.\.\. 2 after 2\d steps", 1),
        # Either worker may be the first.
        pytest.param("on_update", r" of (seed 0|seeds 1 \.\.\. 2) after 2\d steps", 2, marks=pytest.mark.process),
        ("on_log", " of seed 0 after 0 steps", 1),
        ("on_evaluation", " of seed 0 after 0 steps", 1),
        ("on_end", "", 1),
    ],
)
def test_what_a_callback_raises_ends_the_run_in_one_line(moment: str, where: str, workers: int, tmp_path: Path) -> None:
    notes = Notes()
    failing = Raises(moment, ValueError("no\nidea"))
    with pytest.raises(CallbackError) as caught:
        pgkit.train(members(steps=600), tmp_path / "run", callbacks=[failing, notes], workers=workers)
    text = str(caught.value)
    assert re.fullmatch(f"callback Raises: {moment}{where} raised ValueError: no idea", text)
    trace = (tmp_path / "run" / "error.txt").read_text()
    assert trace.startswith(f"{text}\n\nTraceback")
    assert "raise self.error" in trace
    (end,) = notes.of("on_end")
    assert end.status == ("finished" if moment == "on_end" else "failed")
    if moment not in ("on_start", "on_end"):
        result = pgkit.resume(tmp_path / "run", callbacks=[Only("on_evaluation")])
        same_result(pgkit.train(members(steps=600)), result)


def test_even_an_exit_is_caught_and_the_first_error_stays() -> None:
    with pytest.raises(CallbackError, match=r"on_update of seeds 0 \.\.\. 2 after .* raised SystemExit: 3") as caught:
        pgkit.train(members(), callbacks=[Raises("on_update", SystemExit(3)), Raises("on_end", OSError("full"))])
    assert caught.value.__notes__ == ["callback Raises: on_end raised OSError: full"]


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (False, "returned false: return None to go on, or a pgkit.callbacks.Stop"),
        ([], "returned list: return None"),
        (Stop(""), "returned a Stop without a reason"),
        (Stop("x", member=3), "returned a Stop of member 3: members are counted from 0 to 2"),
    ],
)
def test_another_answer_than_a_stop_is_refused(answer: Any, problem: str) -> None:
    callback = Only()
    callback.on_evaluation = lambda view: answer  # type: ignore[attr-defined]
    with pytest.raises(CallbackError, match=problem):
        pgkit.train(members(), callbacks=[callback])


def test_callbacks_of_a_configuration(tmp_path: Path) -> None:
    """They are made anew when the run is resumed; their code counts as the run's."""
    (tmp_path / "run.toml").write_text(
        'steps = 2000\nenv = "CartPole-v1"\nagent = "actor-critic"\noptimizer = "adam"\n'
        f'callbacks = ["helpers.callbacks:Notes", {{name = "helpers.callbacks:WritesFile", path = "{tmp_path}/end"}}]\n'
    )
    settings = pgkit.load_config(tmp_path / "run.toml", {"evaluation.final_episodes": 2})
    pgkit.train(settings, tmp_path / "run")
    assert (tmp_path / "end").read_text() == "finished"
    again = pgkit.load_config(tmp_path / "run" / "config.toml")
    assert again.callbacks == settings.callbacks
    from pgkit.runs import own_code

    assert "code of helpers.callbacks" in own_code.describe([settings])
    (tmp_path / "end").unlink()
    pgkit.resume(tmp_path / "run", steps=2500)
    assert (tmp_path / "end").read_text() == "finished"


def test_a_threshold_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = "train cartpole-actor-critic steps=20_000 seeds=2 evaluation.final_episodes=2 --out run --quiet"
    trained = command_line(f'{words} callbacks=[{{name="stop-on-threshold",reward_threshold=25}}]')
    assert trained.exit_code == 0
    assert "seed 0 stopped at step" in trained.stderr
    assert "stopped by a callback: pgkit resume run trains it on" in trained.stdout
    assert command_line("resume run --quiet").exit_code == 0  # and stops again, at the next good evaluation


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("x", "callbacks must be a list of texts and tables"),
        ([3], "callbacks: each is a text, or a table with a name, got 3"),
        (["stop-on-treshold"], "unknown callback 'stop-on-treshold', did you mean 'stop-on-threshold'"),
        (["helpers.callbacks:Nothing"], "module helpers.callbacks defines no class Nothing"),
        (["no_such_module:X"], "unknown callback"),
    ],
)
def test_mistakes_in_a_configuration_are_one_line(value: Any, problem: str) -> None:
    with pytest.raises(PgkitError, match=problem):
        config(callbacks=value)


def test_callbacks_that_are_never_called_or_cannot_be_made_are_refused(tmp_path: Path) -> None:
    no_evaluations = {"points": 0, "final_episodes": 2}
    with pytest.raises(PgkitError, match=r"StopsAt has no effect: evaluation\.points = 0"):
        pgkit.train(members(evaluation=no_evaluations), tmp_path / "run", callbacks=[StopsAt(1)])
    with pytest.raises(PgkitError, match="reward_threshold must be a finite number"):
        pgkit.train(config(callbacks=[{"name": "stop-on-threshold", "reward_threshold": "x"}]), tmp_path / "run")
    with pytest.raises(PgkitError, match=r"'stop-on-threshold' cannot be made: TypeError: .*missing"):
        pgkit.train(config(callbacks=["stop-on-threshold"]), tmp_path / "run")
    assert not (tmp_path / "run").exists()
