"""Runs in several processes have the same bits as in one, and end the same way."""

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers.command_line import pgkit as command_line
from helpers.faulty_runs import alive
from helpers.faulty_runs import config as faulty
from helpers.parameters import few_by_default
from helpers.resumable_runs import CARTPOLE, by_tag, config, population, wait_for, without_clock
from helpers.tensorboard import events
from helpers.trees import assert_equal

import pgkit
from pgkit.config.members import expand_seeds
from pgkit.errors import PgkitError
from pgkit.logging import read_metrics
from pgkit.logging.parquet import COLUMNS, write_frame
from pgkit.runs import checkpoint
from pgkit.runs.reader import rows_until
from pgkit.system.signals import Stopped
from pgkit.training.arguments import default_workers
from pgkit.training.coordinator import Coordinator
from pgkit.training.evaluate_run import evaluate_run
from pgkit.training.messages import Message, StateSaved
from pgkit.training.result import TrainResult
from pgkit.training.resume import resume
from pgkit.training.train import train
from pgkit.training.worker_process import portable
from pgkit.training.workers import WorkerDied, split

pytestmark = pytest.mark.process


def assert_same_run(first: TrainResult | None, second: TrainResult | None) -> None:
    """The same results and records, to the last bit."""
    assert first is not None
    assert second is not None
    assert first.table == second.table
    assert first.reasons == second.reasons
    assert_equal(first.params, second.params)
    assert_equal(first.obs_stats, second.obs_stats)
    assert_equal(tuple(first.final), tuple(second.final))
    assert len(first.evaluations) == len(second.evaluations) > 0
    for one, other in zip(first.evaluations, second.evaluations, strict=True):
        assert one[:3] == other[:3]
        assert_equal((*one.episodes, *(one.greedy or ())), (*other.episodes, *(other.greedy or ())))
    assert first.directory is not None
    assert second.directory is not None
    assert_same_records(first.directory, second.directory)


def assert_same_records(first: Path, second: Path) -> None:
    """Two run directories hold the same, apart from times and what depends on which worker was faster."""
    results = [json.loads((place / "result.json").read_text()) for place in (first, second)]
    assert all(result.pop("wall_seconds") > 0 for result in results)
    assert results[0] == results[1]
    tables = [without_clock(read_metrics(place / "metrics.parquet")) for place in (first, second)]
    assert len(tables[0]) > 100
    for member in range(len(results[0]["members"])):
        rows, others = (by_tag(table[table["member"] == member]) for table in tables)
        assert rows.equals(others), member
    places = {path.parent.relative_to(first) for path in first.rglob("events.*")}
    assert places == {path.parent.relative_to(second) for path in second.rglob("events.*")}
    for place in places - {Path("summary")}:  # it depends on which worker was faster
        curves, others = (events(root / place) for root in (first, second))
        assert curves.keys() == others.keys()
        for tag in curves.keys() - {"time/env_steps_per_second"}:
            assert curves[tag] == others[tag], (place, tag)
    bests = [evaluate_run(place, episodes=2, best=True) for place in (first, second)]
    assert bests[0] == bests[1]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    """Four members, of which one diverges, trained in this process."""
    return train(population("actor-critic", CARTPOLE, steps=6000), tmp_path_factory.mktemp("alone") / "run")


@pytest.mark.parametrize("workers", few_by_default([2, 3], 3))
def test_the_same_bits_from_any_number_of_processes(alone: TrainResult, tmp_path: Path, workers: int) -> None:
    configs = population("actor-critic", CARTPOLE, steps=6000)
    done: list[float] = []
    result = train(configs, tmp_path / "run", workers=workers, on_steps=done.append)
    assert_same_run(alone, result)
    assert len(checkpoint.load_latest(tmp_path / "run" / "checkpoints")["workers"]) == workers
    assert sorted(member for part in result.parts for member in part["members"].tolist()) == [0, 1, 2, 3]
    assert done == sorted(done)
    assert done[-1] == sum(row["env_steps"] for row in result.table)
    rates = read_metrics(tmp_path / "run" / "metrics.parquet").query("tag == 'time/env_steps_per_second'")["value"]
    assert (rates > 0).all()
    record = json.loads((tmp_path / "run" / "provenance.json").read_text())
    assert record["cpu_seconds"] > 0.5 * workers  # the parent alone needs less
    assert resume(tmp_path / "run") is None


def test_whole_episodes_and_nothing_recorded() -> None:
    configs = population("reinforce", CARTPOLE)
    first, second = (train(configs, workers=workers) for workers in (1, 2))
    assert first.table == second.table
    assert_equal(first.params, second.params)


def test_members_are_split_into_groups_of_nearly_the_same_size() -> None:
    configs = [config(seed=k) for k in range(7)]
    assert [len(group) for group in split(configs, 3)] == [2, 2, 3]
    assert [one.seed for group in split(configs, 3) for one in group] == list(range(7))
    assert [len(group) for group in split(configs[:2], 8)] == [1, 1]
    with pytest.raises(PgkitError, match="members of a population must agree in steps: member 0 has 1500, member 1"):
        split([configs[0], config(steps=9)], 2)
    with pytest.raises(PgkitError, match="at least one member"):
        split([], 2)


def test_where_one_process_is_all_that_can_be(tmp_path: Path) -> None:
    env = CARTPOLE | {"backend": "gymnasium", "vectorization": "async"}
    assert default_workers(config(env=env, seeds=800)) == 1
    assert default_workers(config(seeds=15)) == 1
    assert default_workers(config(seeds=800)) == min(100, len(os.sched_getaffinity(0)))
    with pytest.raises(PgkitError, match=r"^workers = 2: the environments run in processes already .* only 1"):
        train([config(env=env, seed=k) for k in range(2)], tmp_path / "run", workers=2)
    assert not (tmp_path / "run").exists()


# --- stops ---


@pytest.fixture
def after_states(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[], object]], None]:
    """``after_states(k, action)``: the action happens before the coordinator handles the k-th state of any worker."""

    def arrange(count: int, action: Callable[[], object]) -> None:
        states = 0

        def handle(self: Coordinator, worker: int, message: Message, original: Any = Coordinator.handle) -> None:
            nonlocal states
            if isinstance(message, StateSaved):
                states += 1
                if states == count:
                    action()
            original(self, worker, message)

        monkeypatch.undo()
        monkeypatch.setattr(Coordinator, "handle", handle)

    return arrange


@pytest.mark.slow
def test_stopped_and_resumed_at_any_time(alone: TrainResult, tmp_path: Path, after_states: Any) -> None:
    """Before the first checkpoint, during training, and when one worker is done."""
    run, configs = tmp_path / "run", population("actor-critic", CARTPOLE, steps=6000, checkpoint_points=200)
    progress = []
    after_states(1, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(Stopped, match=rf"^stopped by SIGINT: pgkit resume {run} continues$"):
        train(configs, run, workers=3)
    for count in (4, 40, 150):
        progress.append(checkpoint.load_latest(run / "checkpoints"))
        after_states(count, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Stopped, match="SIGTERM"):
            resume(run)
    after_states(0, lambda: None)
    assert_same_run(alone, resume(run))
    updates = [[worker["parts"][-1]["updates"] for worker in saved["workers"]] for saved in progress]
    assert all(earlier < later for earlier, later in pairwise(updates))
    assert len(json.loads((run / "provenance.json").read_text())["resumed"]) == 4


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of ``alone`` with two workers, stopped during training."""
    run = tmp_path_factory.mktemp("half") / "run"
    original = Coordinator.handle
    states = iter(range(1000))

    def handle(self: Coordinator, worker: int, message: Message) -> None:
        if isinstance(message, StateSaved) and next(states) == 8:
            os.kill(os.getpid(), signal.SIGINT)
        original(self, worker, message)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Coordinator, "handle", handle)
        with pytest.raises(Stopped):
            train(population("actor-critic", CARTPOLE, steps=6000, checkpoint_points=10), run, workers=2)
    return run


@pytest.mark.parametrize("member", [1, 3])
def test_a_member_of_any_worker_continues_alone(alone: TrainResult, half: Path, tmp_path: Path, member: int) -> None:
    result = resume(half, member=f"seed-{member}", out=tmp_path / "one")
    assert result is not None
    assert result.table == [alone.table[member]]
    assert result.reasons == ({0: alone.reasons[member]} if member in alone.reasons else {})
    assert_equal(result.params, {name: leaf[member : member + 1] for name, leaf in alone.params.items()})
    assert alone.directory is not None
    rows, others = (read_metrics(place / "metrics.parquet") for place in (tmp_path / "one", alone.directory))
    assert by_tag(without_clock(rows)).equals(by_tag(without_clock(others[others["member"] == member])))


def test_a_stopped_run_is_evaluated_in_the_order_of_its_members(half: Path) -> None:
    table = evaluate_run(half, episodes=3).table
    assert [row["seed"] for row in table] == [0, 1, 2, 3]
    saved = checkpoint.load_latest(half / "checkpoints")
    for number, worker in enumerate(saved["workers"]):
        assert sum(len(part["members"]) for part in worker["parts"]) == 2, number
        assert all(part["members"].max() < 2 for part in worker["parts"] if len(part["members"]))


def test_a_checkpoint_says_how_many_rows_each_worker_had_logged(tmp_path: Path) -> None:
    member = np.array([0, 2, 1, 0, 2, 2, 1], np.int32)
    rows = pd.DataFrame({name: np.arange(7) for name in COLUMNS} | {"member": member, "label": "a", "tag": "b"})
    write_frame(tmp_path / "metrics.parquet", rows)
    part = {"members": np.arange(2)}
    saved = {"workers": [{"parts": [part], "rows": 3}, {"parts": [{"members": np.arange(1)}], "rows": 2}]}
    assert rows_until(tmp_path, saved)["step"].tolist() == [0, 1, 2, 3, 4]
    saved["workers"][0]["rows"] = 1
    assert rows_until(tmp_path, saved)["step"].tolist() == [0, 1, 4]
    saved["workers"][0]["rows"] = 5
    with pytest.raises(PgkitError, match="has 7 rows, but the checkpoint was written after 7"):
        rows_until(tmp_path, saved)


# --- processes that end ---


def long_run(run: Path) -> list[str]:
    words = "train cartpole-actor-critic steps=10_000_000 seeds=4 envs_per_member=2 evaluation.points=0"
    words += f" checkpoint_points=10_000 --quiet --workers 2 --out {run}"
    return [sys.executable, "-m", "pgkit", *words.split()]


def workers_of(parent: int) -> list[int]:
    """The processes that train: children of the fork server, which is a child of the parent."""
    tree = {pid: stat for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if (stat := parent_of(pid))}
    servers = [pid for pid, above in tree.items() if above == parent]
    return [pid for pid, above in tree.items() if above in servers]


def parent_of(pid: int) -> int | None:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return None


def wait_for_end(pids: list[int], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, pids))


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
def test_a_signal_to_all_saves_and_says_how_to_go_on(tmp_path: Path, number: int, code: int) -> None:
    run = tmp_path / "run"
    with subprocess.Popen(long_run(run), stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        wait_for(run / "checkpoints" / "latest")
        first = checkpoint.latest(run / "checkpoints")
        time.sleep(0.5)
        pids = workers_of(process.pid)
        assert len(pids) == 2
        os.killpg(process.pid, number)
        _, errors = process.communicate(timeout=60)
    name = signal.Signals(number).name
    acknowledged = f"{name}: stopping as soon as all is saved (again: at once)\n"
    assert (process.returncode, errors) == (code, f"{acknowledged}stopped by {name}: pgkit resume {run} continues\n")
    assert checkpoint.latest(run / "checkpoints") != first
    wait_for_end(pids)


def test_a_second_interrupt_ends_at_once(tmp_path: Path, after_states: Any) -> None:
    configs = [config(seed=k, steps=10_000_000) for k in range(2)]
    after_states(2, lambda: [os.kill(os.getpid(), signal.SIGINT) for _ in range(2)])
    with pytest.raises(KeyboardInterrupt) as ended:
        train(configs, tmp_path / "run", workers=2)
    assert ended.type is KeyboardInterrupt


def test_a_worker_that_is_killed_ends_the_run_with_one_line(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with subprocess.Popen(long_run(run), stderr=subprocess.PIPE, text=True) as process:
        wait_for(run / "checkpoints" / "latest")
        pids = workers_of(process.pid)
        os.kill(pids[-1], signal.SIGKILL)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors == f"error: the worker process of seeds 2 ... 3 died (signal 9); pgkit resume {run} continues\n"
    wait_for_end(pids)
    assert len(evaluate_run(run, episodes=1).table) == 4
    assert not (run / "result.json").exists()


def test_a_killed_worker_costs_no_bit(alone: TrainResult, tmp_path: Path, after_states: Any) -> None:
    run = tmp_path / "run"
    server = os.getpid()
    after_states(9, lambda: os.kill(workers_of(server)[0], signal.SIGKILL))
    with pytest.raises(WorkerDied, match=r"signal 9"):
        train(population("actor-critic", CARTPOLE, steps=6000, checkpoint_points=50), run, workers=2)
    after_states(0, lambda: None)
    assert_same_run(alone, resume(run))


def test_workers_end_with_their_parent(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with subprocess.Popen(long_run(run)) as process:
        wait_for(run / "checkpoints" / "latest")
        pids = workers_of(process.pid)
        process.kill()
    assert len(pids) == 2
    wait_for_end(pids)


@pytest.mark.parametrize("workers", [1, 3])
def test_a_fault_in_any_process_is_the_same_line(tmp_path: Path, workers: int) -> None:
    with pytest.raises(PgkitError) as caught:
        train(expand_seeds(faulty("step raises")), tmp_path / "run", workers=workers)
    assert caught.value.exit_code == 1
    assert "(seed " in str(caught.value)
    assert "raised ZeroDivisionError: no gravity here" in str(caught.value)
    assert "it is environment 2 of seed 1" in caught.value.__notes__
    assert 'raise ZeroDivisionError("no gravity\\nhere")' in (tmp_path / "run" / "error.txt").read_text()
    assert len(evaluate_run(tmp_path / "run", episodes=1).table) == 3


def test_what_no_worker_can_build_leaves_no_directory(tmp_path: Path) -> None:
    settings = [config(seed=k, env={"id": "Nowhere-v0"}) for k in range(2)]
    messages = []
    for workers in (1, 2):
        with pytest.raises(PgkitError) as caught:
            train(settings, tmp_path / "run", workers=workers)
        messages.append(str(caught.value))
    assert messages[1].startswith(f"{messages[0]}; worker processes do not run what a script has below")
    assert not (tmp_path / "run").exists()


class Unpicklable(Exception):
    """Cannot be built again from its text."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__(f"{first}\n{second}")


def test_errors_reach_the_parent_with_their_traceback() -> None:
    """A PgkitError stays one line; other errors carry the traceback as a note."""
    caught = []
    for error in (PgkitError("one line"), ZeroDivisionError("no step"), Unpicklable(3, 4)):
        try:
            raise error
        except Exception as original:
            caught.append(pickle.loads(pickle.dumps(portable(original))))
    assert [type(error) for error in caught] == [PgkitError, ZeroDivisionError, RuntimeError]
    assert [str(error) for error in caught[:2]] == ["one line", "no step"]
    assert str(caught[2]).endswith("Unpicklable: 3 4")
    assert not hasattr(caught[0], "__notes__")
    assert all("raise error" in "".join(error.__notes__) for error in caught[1:])


# --- the command line ---


def test_the_command_line_uses_all_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = "train cartpole-actor-critic seeds=16 envs_per_member=2 steps=400 policy.hidden=[8] evaluation.points=1"
    words += " evaluation.episodes=2 evaluation.final_episodes=3"
    outputs = []
    for number, more in enumerate(["", " --workers 1"]):
        outcome = command_line(f"{words} name=run{number}{more} --quiet")
        assert outcome.exit_code == 0, outcome.stderr
        outputs.append(outcome.stdout.replace(f"run{number}", "run"))
        count = len(checkpoint.load_latest(tmp_path / f"runs/run{number}/checkpoints")["workers"])
        assert count == (1 if more else min(2, len(os.sched_getaffinity(0))))
    assert outputs[0] == outputs[1]
    assert command_line(f"{words} --workers 0").exit_code == 2
    assert pgkit.train is train


def test_workers_import_what_their_parent_imports(tmp_path: Path) -> None:
    """In a clone of pgkit the working directory holds sources; workers must import the installed package."""
    clone = shutil.copytree(Path(pgkit.__file__).parent, tmp_path / "clone" / "pgkit")
    with open(clone / "population.py", "a") as file:
        file.write("\n\ndef build(*arguments, **named):\n    raise RuntimeError('the wrong pgkit')\n")
    (tmp_path / "pgkit-command").write_text("from pgkit.cli import main\nif __name__ == '__main__':\n    main()\n")
    words = "train cartpole-actor-critic seeds=2 envs_per_member=2 steps=200 policy.hidden=[8] evaluation.points=0"
    command = [sys.executable, str(tmp_path / "pgkit-command"), *words.split(), "--workers", "2", "--quiet"]
    done = subprocess.run(command, cwd=tmp_path / "clone", capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "written to" in done.stdout
