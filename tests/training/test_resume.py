"""A run that is stopped and resumed has the same bits as one that was never stopped."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.command_line import pgkit as command_line
from helpers.masked_envs import MASKED
from helpers.parameters import few_by_default
from helpers.resumable_runs import (
    CARTPOLE,
    SCHEDULE_FREE,
    TABLES,
    by_tag,
    config,
    population,
    same,
    same_records,
    wait_for,
    without_clock,
)
from helpers.tensorboard import events

import pgkit
from pgkit.errors import PgkitError
from pgkit.logging import read_metrics
from pgkit.logging.parquet import write_frame
from pgkit.optim.base import Optimizer
from pgkit.runs import checkpoint, provenance
from pgkit.system.signals import Stopped
from pgkit.training import monitor
from pgkit.training.evaluate_run import evaluate_run
from pgkit.training.result import TrainResult
from pgkit.training.resume import resume
from pgkit.training.train import train

pytestmark = pytest.mark.process

LANDER = {"id": "LunarLander-v3", "backend": "gymnasium", "max_episode_steps": 60, "normalize_rewards": True}
ENVS = {
    "cartpole": CARTPOLE,
    "lander": {"id": "LunarLander-v3", "max_episode_steps": 60},
    "lander-gymnasium": LANDER | {"normalize_observations": True},
    "lander-async": LANDER | {"vectorization": "async"},
}
OTHER_ACTIONS = {
    "pendulum-squashed": {
        "env": {"id": "Pendulum-v1", "max_episode_steps": 40, "backend": "gymnasium"},
        "policy": {"hidden": [8], "squash_output": True, "state_dependent_std": True},
    },
    "masked": {"env": {"id": MASKED, "normalize_observations": True}, "steps": 400},
}
"""Environments with settings of their own."""


@pytest.fixture
def stop_after(monkeypatch: pytest.MonkeyPatch) -> Any:
    """``stop_after(k)``: a signal asks runs to stop after their k-th update."""

    def arrange(updates: int) -> None:
        count = 0

        def stopping(self: monitor.Monitor, original: Any = monitor.Monitor.maybe_checkpoint) -> None:
            nonlocal count
            count += 1
            if count == updates:
                os.kill(os.getpid(), signal.SIGINT)
            original(self)

        monkeypatch.undo()
        monkeypatch.setattr(monitor.Monitor, "maybe_checkpoint", stopping)

    return arrange


@pytest.mark.parametrize(
    ("agent", "env"),
    few_by_default(
        [*product(["actor-critic", "reinforce"], ENVS), *product(["ppo"], ["cartpole", "lander", *OTHER_ACTIONS])],
        ("actor-critic", "cartpole"),
        ("reinforce", "lander"),
        ("reinforce", "lander-gymnasium"),
        ("ppo", "pendulum-squashed"),
    ),
)
def test_a_resumed_run_has_the_same_bits(tmp_path: Path, stop_after: Any, agent: str, env: str) -> None:
    """Stopped three times: after the first update, in mid-episode, and after members have left."""
    configs = population(agent, **({"env": ENVS[env]} if env in ENVS else OTHER_ACTIONS[env]))
    whole = train(configs, tmp_path / "whole")
    assert [row["failed"] for row in whole.table] == [False, False, False, True]
    updates = max(part["updates"] for part in whole.parts)
    stop_after(1)
    with pytest.raises(Stopped, match=r"stopped by SIGINT: pgkit resume .*stopped continues"):
        train(configs, tmp_path / "stopped")
    for after in (updates // 2 - 1, updates - updates // 2 - 1):
        stop_after(after)
        with pytest.raises(Stopped):
            resume(tmp_path / "stopped")
    stop_after(0)
    same(whole, resume(tmp_path / "stopped"))
    same_records(tmp_path / "whole", tmp_path / "stopped")
    assert resume(tmp_path / "stopped") is None
    entries = json.loads((tmp_path / "stopped" / "provenance.json").read_text())["resumed"]
    assert [entry["differences"] for entry in entries] == [[], [], []]


@pytest.mark.parametrize("tables", [TABLES, pytest.param(SCHEDULE_FREE, marks=pytest.mark.slow, id="schedule-free")])
def test_a_run_may_be_stopped_after_every_update(
    tmp_path: Path, stop_after: Any, tables: Sequence[Mapping[str, Any]]
) -> None:
    """Snapshots wait for their evaluation while members leave; evaluations keep their order."""
    configs = [config("reinforce", seed=k, steps=700, optimizer=tables[k % 3]) for k in range(5)]
    whole = train(configs, tmp_path / "whole")
    updates = max(part["updates"] for part in whole.parts)
    for count in range(updates):
        stop_after(1)
        with pytest.raises(Stopped):
            train(configs, tmp_path / "stopped") if count == 0 else resume(tmp_path / "stopped")
    stop_after(0)
    same(whole, resume(tmp_path / "stopped"))
    same_records(tmp_path / "whole", tmp_path / "stopped")


def stopped_halfway(agent: str, place: Path) -> tuple[TrainResult, Path]:
    """The result of a population, and the directory of the same run stopped halfway."""
    configs = population(agent, CARTPOLE)
    whole = train(configs, place / "whole")
    original = monitor.Monitor.maybe_checkpoint
    count = iter(range(1000))

    def stopping(self: monitor.Monitor) -> None:
        if next(count) == max(part["updates"] for part in whole.parts) // 2:
            os.kill(os.getpid(), signal.SIGTERM)
        original(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(monitor.Monitor, "maybe_checkpoint", stopping)
        with pytest.raises(Stopped):
            train(configs, place / "half")
    return whole, place / "half"


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainResult, Path]:
    """Rollouts of a fixed length."""
    return stopped_halfway("actor-critic", tmp_path_factory.mktemp("fixed"))


@pytest.fixture(scope="module")
def half_episodes(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainResult, Path]:
    """Whole episodes."""
    return stopped_halfway("reinforce", tmp_path_factory.mktemp("episodes"))


@pytest.mark.parametrize(("fixture", "member"), [("half", 0), ("half", 2), ("half", 3), ("half_episodes", 1)])
def test_a_member_continues_alone(request: pytest.FixtureRequest, tmp_path: Path, fixture: str, member: int) -> None:
    """It has the bits that it has in the population, and the same records; member 3 has failed before."""
    whole, directory = request.getfixturevalue(fixture)
    alone = pgkit.resume(directory, member=f"seed-{member}", out=tmp_path / "alone")
    assert alone is not None
    assert alone.table == [whole.table[member]]
    for name, leaf in alone.params.items():
        assert torch.equal(leaf[0], whole.params[name][member])
    assert whole.directory is not None
    rows = without_clock(read_metrics(whole.directory / "metrics.parquet"))
    alone_rows = without_clock(read_metrics(tmp_path / "alone" / "metrics.parquet"))
    assert by_tag(alone_rows).equals(by_tag(rows[rows["member"] == member]))
    curves, others = events(tmp_path / "alone"), events(whole.directory / f"seed-{member}")
    assert {tag: curves[tag] for tag in curves if "per_second" not in tag} == {
        tag: others[tag] for tag in others if "per_second" not in tag
    }
    record = json.loads((tmp_path / "alone" / "provenance.json").read_text())
    assert record["taken_from"]["member"] == f"seed-{member}"
    assert [entry["differences"] for entry in record["resumed"]] == [[]]


def test_an_unknown_member_is_an_error(half: tuple[TrainResult, Path], tmp_path: Path) -> None:
    with pytest.raises(PgkitError, match="unknown member 'seed-9'"):
        resume(half[1], member="seed-9", out=tmp_path / "alone")
    with pytest.raises(PgkitError, match="must be given together"):
        resume(half[1], member="seed-1")
    assert not (tmp_path / "alone").exists()


def copied(half: tuple[TrainResult, Path], place: Path) -> Path:
    """A copy of a stopped run, which a test may damage."""
    shutil.copytree(half[1], place)
    return place


def test_an_error_in_an_update_leaves_the_last_good_checkpoint(
    half: tuple[TrainResult, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error comes after the optimizer has changed its state and before the parameters change."""
    directory = copied(half, tmp_path / "run")
    apply = Optimizer.apply
    count = iter(range(1000))

    def failing(*arguments: Any, **options: Any) -> Any:
        if next(count) == 2:
            raise RuntimeError("in the middle")
        return apply(*arguments, **options)

    monkeypatch.setattr(Optimizer, "apply", failing)
    with pytest.raises(RuntimeError, match="in the middle"):
        resume(directory)
    monkeypatch.undo()
    same(half[0], resume(directory))


def test_the_checkpoint_before_a_damaged_one_is_used(half: tuple[TrainResult, Path], tmp_path: Path) -> None:
    directory = copied(half, tmp_path / "run")
    latest = checkpoint.latest(directory / "checkpoints")
    assert len(list(latest.parent.glob("step-*.pt"))) == 2
    latest.write_bytes(latest.read_bytes()[:-1000])
    (latest.parent / ".step-9.pt.x.tmp").write_text("left by a kill")
    same(half[0], resume(directory))
    assert half[0].directory is not None
    same_records(half[0].directory, directory)
    assert not list(directory.rglob(".*.tmp"))


def test_event_files_that_are_cut_off_are_written_again(half: tuple[TrainResult, Path], tmp_path: Path) -> None:
    directory = copied(half, tmp_path / "run")
    files = list(directory.rglob("events.out.tfevents.*"))
    assert len(files) == 5
    for file in files:
        content = file.read_bytes()
        assert len(content) > 2000
        file.write_bytes(content[: len(content) // 2] + b"\0" * 7)
    same(half[0], resume(directory))
    assert half[0].directory is not None
    same_records(half[0].directory, directory)


def test_the_best_of_each_member_is_kept(half: tuple[TrainResult, Path], tmp_path: Path) -> None:
    whole = half[0]
    best = evaluate_run(whole.directory or "", episodes=2, best=True)
    assert len(best.table) == 4
    saved = checkpoint.load((whole.directory or Path()) / "checkpoints" / "best.pt")["workers"][0]["parts"][0]
    for member in range(4):
        evaluations = [e for e in whole.evaluations if e.member == member]
        scores = [e.episodes.returns.mean().item() for e in evaluations]
        assert saved["score"][member] == max(scores)
        assert saved["env_steps"][member] == evaluations[scores.index(max(scores))].env_steps
    never = config(evaluation={"points": 0, "final_episodes": 1})
    train([never], tmp_path / "run")
    with pytest.raises(PgkitError, match=r"has no best\.pt: it was not evaluated during training"):
        evaluate_run(tmp_path / "run", best=True)


def test_wall_time_continues(half: tuple[TrainResult, Path], tmp_path: Path) -> None:
    directory = copied(half, tmp_path / "run")
    before = json.loads((directory / "provenance.json").read_text())["wall_seconds"]
    result = resume(directory)
    assert result is not None
    assert json.loads((directory / "provenance.json").read_text())["wall_seconds"] > before > 0
    assert result.wall_seconds > 0.5 * before


# --- what is refused ---


def test_other_code_versions_and_settings_are_refused_by_name(
    half: tuple[TrainResult, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = copied(half, tmp_path / "run")
    settings = directory / "seed-0" / "config.toml"
    text = settings.read_text()
    settings.write_text(text.replace("lr = 0.01", "lr = 0.05"))
    with pytest.raises(PgkitError, match=r"^optimizer\.lr was 0\.01 when the checkpoint was written, and is 0\.05: "):
        resume(directory)
    for label in range(4):
        settings = directory / f"seed-{label}" / "config.toml"
        settings.write_text(
            settings.read_text().replace("keep_checkpoints = 2", "keep_checkpoints = 3").replace("0.05", "0.01")
        )
    origin = provenance.origin()
    monkeypatch.setattr(provenance, "origin", lambda: origin | {"version of torch": "0.1"})
    with pytest.raises(PgkitError, match=r"^version of torch was .*, and is .0\.1.: the run would .*--force"):
        resume(directory)
    monkeypatch.setattr(provenance, "origin", lambda: origin | {"code of pgkit": "0"})
    with pytest.raises(PgkitError, match=r"^code of pgkit was"):
        resume(directory)
    resumed = resume(directory, force=True)
    same(half[0], resumed)
    (entry,) = json.loads((directory / "provenance.json").read_text())["resumed"]
    assert [line.partition(" was")[0] for line in entry["differences"]] == ["code of pgkit"]


def test_two_processes_cannot_write_to_one_run(half: tuple[TrainResult, Path], tmp_path: Path) -> None:
    """A locked run is neither resumed nor replaced; the lock ends with its process, even if that is killed."""
    directory = copied(half, tmp_path / "run")
    before = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    code = "import sys, time; from pathlib import Path; from pgkit.runs.directory import lock_run\n"
    code += "with lock_run(Path(sys.argv[1])):\n    print('locked', flush=True)\n    time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code, str(directory)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        for words in (f"resume {directory}", f"train cartpole-reinforce steps=100 --out {directory} --overwrite"):
            refused = command_line(words + " --quiet")
            assert refused.exit_code == 2
            assert refused.stderr == f"error: another process is writing to {directory}\n"
        assert {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()} == before
        holder.kill()
    same(half[0], resume(directory))


def test_a_finished_run_has_nothing_to_resume(half: tuple[TrainResult, Path]) -> None:
    before = half[0].directory
    assert before is not None
    files = {path: path.stat().st_mtime_ns for path in before.rglob("*")}
    done = command_line(f"resume {before}")
    assert (done.exit_code, done.stdout) == (
        0,
        f"{before} is finished, there is nothing to resume (--steps N trains it on)\n",
    )
    assert {path: path.stat().st_mtime_ns for path in before.rglob("*")} == files


def test_what_cannot_be_resumed_is_one_line(half: tuple[TrainResult, Path], tmp_path: Path) -> None:
    directory = copied(half, tmp_path / "run")
    with pytest.raises(PgkitError, match=r"^[^\n]*is not the directory of a run: it has no config\.toml$"):
        resume(tmp_path)
    tree = checkpoint.load_latest(directory / "checkpoints")
    (only,) = tree["workers"]
    checkpoint.save(checkpoint.latest(directory / "checkpoints"), {"labels": tree["labels"], "parts": only["parts"]})
    with pytest.raises(PgkitError, match=r"was written by an earlier pgkit: it can be evaluated, but not resumed$"):
        resume(directory)
    assert len(evaluate_run(directory, episodes=1).table) == 4
    rows = read_metrics(directory / "metrics.parquet")
    checkpoint.save(checkpoint.latest(directory / "checkpoints"), tree)
    write_frame(directory / "metrics.parquet", rows[:5])
    with pytest.raises(PgkitError, match=r"metrics\.parquet has 5 rows, but the checkpoint was written after \d+$"):
        resume(directory)
    shutil.rmtree(directory / "checkpoints")
    with pytest.raises(PgkitError, match="was stopped before its first checkpoint"):
        resume(directory)


# --- signals ---


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("vectorization", ["sync", pytest.param("async", marks=pytest.mark.slow)])
def test_a_signal_saves_and_says_how_to_go_on(tmp_path: Path, number: int, code: int, vectorization: str) -> None:
    """Sent to the whole process group, as by terminals and schedulers: environment processes must survive it."""
    directory = tmp_path / "run"
    words = "train cartpole-actor-critic steps=1_000_000 envs_per_member=2 evaluation.points=0 env.backend=gymnasium"
    command = [*words.split(), f"env.vectorization={vectorization}", "--quiet", "--out", str(directory)]
    with subprocess.Popen(
        [sys.executable, "-m", "pgkit", *command], stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        wait_for(directory / "checkpoints" / "latest")
        first = checkpoint.latest(directory / "checkpoints")
        time.sleep(0.5)
        os.killpg(process.pid, number)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    name = signal.Signals(number).name
    acknowledged = f"{name}: stopping as soon as all is saved (again: at once)\n"
    assert errors == f"{acknowledged}stopped by {name}: pgkit resume {directory} continues\n"
    assert checkpoint.latest(directory / "checkpoints") != first


def test_a_second_interrupt_ends_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes in the middle of an update; the last checkpoint stays."""
    apply = Optimizer.apply

    def interrupted(*arguments: Any, **options: Any) -> Any:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
        return apply(*arguments, **options)

    monkeypatch.setattr(Optimizer, "apply", interrupted)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt) as ended:
        train([config()], tmp_path / "run")
    assert ended.type is KeyboardInterrupt
    assert signal.getsignal(signal.SIGINT) is handler
    monkeypatch.undo()
    assert resume(tmp_path / "run") is not None


def test_the_final_evaluation_is_interrupted_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train([config()], tmp_path / "whole")
    evaluate = monitor.Evaluator.evaluate
    begun = []

    def interrupted(self: Any, *arguments: Any, **options: Any) -> Any:
        if arguments[-1] == "report":
            begun.append(True)
            os.kill(os.getpid(), signal.SIGINT)
            begun.append(False)
        return evaluate(self, *arguments, **options)

    monkeypatch.setattr(monitor.Evaluator, "evaluate", interrupted)
    with pytest.raises(Stopped):
        train([config()], tmp_path / "run")
    assert begun == [True]
    monkeypatch.undo()
    same(whole, resume(tmp_path / "run"))


# --- where it cannot be exact ---


def test_environments_that_cannot_be_saved_are_announced_and_restart(
    tmp_path: Path, stop_after: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """The probe counts its episodes, which its generator does not know."""
    settings = config(env={"id": "helpers.probe_envs:ProbeCounting-v0"})
    stop_after(5)
    with pytest.raises(Stopped):
        train([settings], tmp_path / "run")
    reason = "environment 'helpers.probe_envs:ProbeCounting-v0' did not come back as it was"
    assert f"note: this run cannot be resumed exactly: {reason}" in capsys.readouterr().err
    stop_after(0)
    result = resume(tmp_path / "run")
    assert f"note: all episodes restart: {reason}" in capsys.readouterr().err
    assert result is not None
    assert result.table[0]["env_steps"] >= settings.steps
    record = json.loads((tmp_path / "run" / "provenance.json").read_text())
    assert record["inexact_resume"].startswith(reason)
    assert record["resumed"][0]["differences"][0].startswith(f"all episodes restart: {reason}")


def test_a_replay_that_fails_is_an_error_unless_forced(tmp_path: Path, stop_after: Any) -> None:
    settings = config(env={"id": "CartPole-v1", "backend": "gymnasium"})
    stop_after(5)
    with pytest.raises(Stopped):
        train([settings], tmp_path / "run")
    latest = checkpoint.latest(tmp_path / "run" / "checkpoints")
    tree = checkpoint.load(latest)
    tree["workers"][0]["parts"][-1]["envs"]["obs"][2] += 1
    checkpoint.save(latest, tree)
    with pytest.raises(PgkitError, match=r"^environment 'CartPole-v1' did not come back as it was.*--force restarts"):
        resume(tmp_path / "run")
    assert resume(tmp_path / "run", force=True) is not None
    (entry,) = json.loads((tmp_path / "run" / "provenance.json").read_text())["resumed"]
    assert entry["differences"][0].startswith("all episodes restart: environment 'CartPole-v1' did not come back")


def test_envpool_says_so_beforehand_and_restarts(
    tmp_path: Path, stop_after: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("envpool")
    stop_after(3)
    with pytest.raises(Stopped):
        train([config(env={"id": "CartPole-v1", "backend": "envpool"}, seed=k) for k in range(2)], tmp_path / "run")
    assert "note: this run cannot be resumed exactly: EnvPool cannot save" in capsys.readouterr().err
    stop_after(0)
    assert resume(tmp_path / "run") is not None


# --- kill -9 ---


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "workers"),
    [("cartpole-actor-critic-adam", 2), ("lander-reinforce-adam", 1), ("lander-async-reinforce-rmsprop", 1)],
)
def test_kills_at_random_moments_change_nothing(tmp_path: Path, case: str, workers: int) -> None:
    script = Path(__file__).parents[2] / "scripts" / "kill_train.py"
    done = subprocess.run(
        [sys.executable, str(script), case, "--kills", "2", "--steps", "1500", "--workers", str(workers)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.match(rf"{case}: [12] kills", done.stdout)
    assert done.stdout.endswith("0 differences\n")
