"""Comparisons that run: the same bits in every batch, on every executor, after every stop."""

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.disks import remount, small_disk
from helpers.small_comparison import TOML, command, run, tables, write_toml

from pgkit.compare import api
from pgkit.compare.execution.batches import split_runs
from pgkit.compare.execution.display import Display
from pgkit.compare.execution.executors import Event, LocalExecutor, RayExecutor
from pgkit.compare.execution.scheduler import Unfinished, execute
from pgkit.compare.execution.store import Store
from pgkit.compare.execution.worker import run_batch
from pgkit.compare.plan.baselines import ScoreScale, measure_baselines, scales
from pgkit.compare.plan.plan import Plan, Run, read_plan
from pgkit.compare.selection.stages import stages, tuned
from pgkit.errors import PgkitError
from pgkit.system.files import read_json

pytestmark = pytest.mark.process

ROOT = Path(__file__).parents[2]

KILLS = 2
"""In a test run; the script makes as many as one likes."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of an uninterrupted comparison."""
    place = tmp_path_factory.mktemp("whole")
    write_toml(place)
    done = run(place)
    assert done.returncode == 0, done.stderr
    return place / "comparisons" / "small"


def test_everything_is_there(whole: Path) -> None:
    names = {path.name for path in whole.iterdir()} - {".lock"}
    expected = {"baselines.parquet", "chunks", "plan.json", "provenance.json", "report.html", "summary.md"}
    assert names == expected | {"tables", "tensorboard"}
    runs = pd.read_parquet(whole / "tables" / "runs.parquet")
    assert set(runs["stage"]) == {"tuning", "evaluation", "neighbour"}
    assert (runs.groupby("stage").size() >= [12, 12, 24]).all()
    assert not runs.duplicated(["stage", "environment", "agent", "optimizer", "lr", "seed"]).any()
    assert api.load_analysis(whole).facts["missing"] == 0


def test_the_same_command_again_runs_nothing_and_writes_the_same(whole: Path) -> None:
    before, batches = tables(whole), sorted(path.name for path in (whole / "chunks").iterdir())
    assert run(whole.parents[1]).returncode == 0
    assert tables(whole) == before
    assert sorted(path.name for path in (whole / "chunks").iterdir()) == batches


def test_a_run_of_a_comparison_has_the_bits_of_a_run_alone(whole: Path) -> None:
    stored, plan = Store(whole).load(), Store(whole).plan()
    for agent in ("actor-critic", "reinforce"):
        rows = stored[stored["agent"] == agent]
        row = rows.iloc[len(rows) // 2]
        one = Run(*row[list(Run._fields)])._replace(lr=float(row["lr"]), seed=int(row["seed"]))
        (alone,) = run_batch([plan.train_config(one)])
        for name in ("returns", "final", "greedy", "at"):
            np.testing.assert_array_equal(row[name], np.array(alone[name]))
        assert (row["diverged"], row["env_steps"]) == (alone["diverged"], alone["env_steps"])


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path: Path) -> None:
    write_toml(tmp_path)
    script = [sys.executable, ROOT / "scripts" / "kill_compare.py", "small.toml", "--kills", str(KILLS)]
    done = subprocess.run(script, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("tables that differ: none\n")
    stored = [int(word) for word in done.stdout.splitlines()[0].partition(": ")[2].split()]
    assert len(stored) == KILLS
    assert stored == sorted(stored)


class Sabotage(LocalExecutor):
    """Kills the process of the first batch as soon as it runs."""

    killed = 0

    def events(self, timeout: float) -> list[Event]:
        if self.killed < self.kills:
            for pid in self.pids()[:1]:
                os.kill(pid, signal.SIGKILL)
                self.killed += 1
        return super().events(timeout)

    kills = 1


def test_a_worker_that_dies_is_replaced(whole: Path, tmp_path: Path) -> None:
    plan = read_plan(write_toml(tmp_path))
    with closing(Sabotage(2)) as executor, Display(shown=False) as display:
        execute(plan, Store(tmp_path / "c"), executor, display)
        assert executor.killed == 1
    api.build_report(tmp_path / "c", figures=False)
    assert tables(tmp_path / "c") == tables(whole)


def test_a_batch_that_dies_twice_is_reported_and_the_rest_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = read_plan(write_toml(tmp_path), ['agents=["actor-critic"]'])
    executor = Sabotage(1)
    executor.kills = 2
    store = Store(tmp_path / "c")
    expected = pytest.raises(Unfinished, match=r"runs of CartPole-v1, actor-critic .*exit code -9")
    with closing(executor), Display(shown=False) as display, expected:
        execute(plan, store, executor, display)
    assert "trying again" in capsys.readouterr().err


def test_interrupted_by_ctrl_c(tmp_path: Path) -> None:
    write_toml(tmp_path)
    process = subprocess.Popen(
        command("steps=100_000_000"), cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "comparisons" / "small" / "baselines.parquet").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(4)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.startswith("interrupted")
    assert errors.count("\n") == 1


@pytest.mark.slow
def test_full_disk(whole: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with small_disk(disk, "160k"):
        write_toml(disk)
        done = run(disk)
        assert done.returncode == 2
        assert done.stderr.startswith("error: cannot write ")
        assert done.stderr.endswith("No space left on device\n")
        assert done.stderr.count("\n") == 1
        remount(disk, "size=100m")
        again = run(disk)
        assert again.returncode == 0, again.stderr
        assert tables(disk / "comparisons" / "small") == tables(whole)


@pytest.mark.slow
def test_ray_gives_the_same_tables(whole: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is an extra")
    write_toml(tmp_path)
    done = run(tmp_path, "--executor", "ray")
    assert done.returncode == 0, done.stderr
    assert tables(tmp_path / "comparisons" / "small") == tables(whole)


def test_results_of_another_plan_are_not_touched(whole: Path) -> None:
    before = tables(whole)
    done = run(whole.parents[1], "steps=601")
    assert done.returncode == 2
    assert "holds the results of another plan (they differ in 'cases')" in done.stderr
    assert tables(whole) == before


def test_results_of_another_origin_are_not_pooled(whole: Path, tmp_path: Path) -> None:
    copy = tmp_path / "comparisons" / "small"
    shutil.copytree(whole, copy)
    write_toml(tmp_path)
    text = (copy / "provenance.json").read_text()
    version = read_json(copy / "provenance.json")["origin"]["torch"]
    (copy / "provenance.json").write_text(text.replace(f'"torch": "{version}"', '"torch": "1.0.0"'))
    done = run(tmp_path)
    assert done.returncode == 2
    assert "results of different origin are not pooled" in done.stderr
    assert f"has torch 1.0.0, not {version}" in done.stderr


def test_damaged_results_are_named(whole: Path, tmp_path: Path) -> None:
    copy = tmp_path / "comparisons" / "small"
    shutil.copytree(whole, copy)
    batch = next((copy / "chunks").iterdir())
    batch.write_bytes(batch.read_bytes()[:-50])
    with pytest.raises(PgkitError, match=f"{batch.name}.*delete it to run its runs again"):
        api.load_analysis(copy)


def test_only_one_process_at_a_time(whole: Path) -> None:
    import fcntl

    with open(whole / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = run(whole.parents[1])
    assert done.returncode == 2
    assert "is in use by another process" in done.stderr


def test_ray_that_cannot_be_reached() -> None:
    pytest.importorskip("ray", reason="Ray is an extra")
    with pytest.raises(PgkitError, match=r"cannot reach a Ray cluster at 127\.0\.0\.1:9"):
        RayExecutor(1, "127.0.0.1:9")


# --- stages and batches ---


def synthetic(plan: Plan, runs: list[Run], level: dict[float, float]) -> pd.DataFrame:
    """Stored results with flat curves whose score is the rate's level."""
    rows = []
    for one in runs:
        score = 22.2 + level.get(one.lr, 0.0) * 477.8
        row = {"diverged": False, "env_steps": 600, "at": [0.0] * 5, "returns": [score] * 5}
        rows.append({**one._asdict(), **row, "final": [score] * 3, "greedy": [score] * 3})
    return pd.DataFrame(rows)


def test_the_grid_is_extended_twice_at_most_and_then_flagged(tmp_path: Path) -> None:
    plan = read_plan(write_toml(tmp_path), ['agents=["reinforce"]'])
    scale = {"CartPole-v1": ScoreScale(22.2, 500, 475)}
    level = {1e-3: 0.1, 1e-2: 0.2, 1e-1: 0.3, 1.0: 0.4, 10.0: 0.5, 100.0: 0.6, 1000.0: 0.7}
    stored, sizes = pd.DataFrame(columns=[*Run._fields]), []
    for _ in range(3):
        (stage,) = stages(plan, scale, stored)
        sizes.append(len(stage.todo))
        stored = pd.concat([stored, synthetic(plan, stage.todo, level)], ignore_index=True)
    assert sizes == [3 * 2 * 2, 2 * 2 * 2, 2 * 2 * 2]
    known = stages(plan, scale, stored)
    assert [stage.name for stage in known] == ["tuning", "evaluation"]
    tuning_result = tuned(plan, scale, stored)["CartPole-v1", "reinforce"]
    assert tuning_result.rates == (1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0, 1000.0)
    assert [tuning_result.edges[arm] for arm in plan.arms] == ["high", "high"]
    assert {one.lr for one in known[-1].todo} == {1000.0}


def test_batches_hold_every_run_once(tmp_path: Path) -> None:
    plan = read_plan(write_toml(tmp_path))
    (stage,) = stages(plan, {"CartPole-v1": ScoreScale(22.2, 500, 475)}, pd.DataFrame(columns=[*Run._fields]))
    batches = split_runs(stage.todo, {("CartPole-v1", "actor-critic"): 5, ("CartPole-v1", "reinforce"): 100})
    assert sorted(one for batch in batches for one in batch) == sorted(stage.todo)
    assert [len(batch) for batch in batches] == [4, 4, 4, 12]
    assert all(len({(one.environment, one.agent) for one in batch}) == 1 for batch in batches)


def test_the_random_policy_of_cartpole_scores_zero(tmp_path: Path) -> None:
    text = TOML.replace("random_return = 22.2\n", "")
    plan = read_plan(write_toml(tmp_path, text))
    baselines = measure_baselines(plan)
    assert list(baselines["policy"]) == ["random", "constant 0", "constant 1"]
    scale = scales(plan, baselines)["CartPole-v1"]
    error = baselines["return_sd"].iloc[0] / 1000**0.5
    assert abs(scale.random - 22.2) < 4 * error
    assert scale.score(500) == 1
