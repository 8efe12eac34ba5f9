"""Environments that raise, return nonsense, hang or die: one line, exit code 1, a valid checkpoint, no process left."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from helpers.faulty_runs import SEED, alive, config
from helpers.parameters import few_by_default
from typer.testing import CliRunner

from pgkit.cli import app
from pgkit.compare.execution.executors import LocalExecutor
from pgkit.compare.execution.worker import Part, run_batch
from pgkit.config.load import to_toml
from pgkit.config.members import expand_seeds
from pgkit.config.schema import TrainConfig
from pgkit.envs import make_envs
from pgkit.envs.errors import EnvError
from pgkit.envs.vector_env import wrap_vector_env
from pgkit.runs.checkpoint import load_latest
from pgkit.seeding import stream_seed
from pgkit.training.evaluate_run import evaluate_run
from pgkit.training.loop import update
from pgkit.training.population import build
from pgkit.training.train import train

pytestmark = pytest.mark.process

FAILED = f"environment 'helpers.faulty_envs:Faulty-v0': step() of sub-environment 6 (seed {SEED}) raised "
RETURNED = f"step() of sub-environment 6 (seed {SEED}) returned malformed data at step 5: the observation is "
WHOSE = "; it is environment 2 of seed 1"

ANYWHERE = {
    "step raises": FAILED + "ZeroDivisionError: no gravity here" + WHOSE,
    "reset raises": FAILED.replace("step", "reset") + "ZeroDivisionError: no gravity here" + WHOSE,
    "step unspeakable": FAILED + "Unspeakable: (its message cannot be shown)" + WHOSE,
    "step exits": FAILED + "SystemExit: 3" + WHOSE,
    "scalar": RETURNED + "np.float32(1.0) (float32), expected shape (2,)",
    "one": RETURNED + "an array of shape (1,) and type float32, expected shape (2,)",
    "three": RETURNED + "an array of shape (3,) and type float64, expected shape (2,)",
    "text": RETURNED + "'left' (str), expected shape (2,)",
    "none": RETURNED + "None (NoneType), expected shape (2,)",
    "reward none": "could not convert string to float: 'none'",
    "four": "the result is 4 values, expected (observation, reward, terminated, truncated, info)",
}
DIED = "environment 'helpers.faulty_envs:Faulty-v0': the worker process of sub-environments 6 to 11 died "
IN_WORKERS = {
    "step dies": DIED + "(exit code 7)",
    "step killed": DIED + "(signal 9)",
    "reset dies": DIED + "(exit code 7)",
    "step sleeps": FAILED.replace("raised ", "") + "exceeded its time limit (env.timeout)" + WHOSE,
    "reset sleeps": FAILED.replace("step", "reset").replace("raised ", "")
    + "exceeded its time limit (env.timeout)"
    + WHOSE,
    "step blocks": "sub-environments 6 to 11 did not answer within 1.5 s (env.timeout)",
}


def command(settings: TrainConfig, place: Path) -> list[str]:
    """The words that train this into ``run``, in one process: how many there would be depends on the machine."""
    (place / "faulty.toml").write_text(to_toml(settings))
    return ["train", str(place / "faulty.toml"), "--quiet", "--workers", "1", "--out", str(place / "run")]


@pytest.fixture
def two_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine has two cores."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})


def check(fault: str, vectorization: str, expected: str, place: Path) -> None:
    before = set(multiprocessing.active_children())
    started = time.monotonic()
    result = CliRunner().invoke(app, command(config(fault, vectorization), place))
    assert result.exit_code == 1, (result.output, result.exception)
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert expected in result.stderr
    assert time.monotonic() - started < 30
    assert set(multiprocessing.active_children()) == before
    saved = load_latest(place / "run" / "checkpoints")
    assert 0 < saved["workers"][0]["parts"][0]["updates"] <= 5  # resets take a step, so the fault comes in the sixth
    assert saved["workers"][0]["parts"][0]["alive"].all()
    assert all(leaf.isfinite().all() for leaf in saved["workers"][0]["parts"][0]["params"].values())
    assert len(evaluate_run(place / "run", episodes=2).table) == 3
    provenance = json.loads((place / "run" / "provenance.json").read_text())
    assert provenance["wall_seconds"] > 0


@pytest.mark.parametrize("vectorization", few_by_default(["sync", "async"], "sync"))
@pytest.mark.parametrize("fault", ANYWHERE)
def test_a_fault_anywhere(fault: str, vectorization: str, tmp_path: Path, two_workers: None) -> None:
    check(fault, vectorization, ANYWHERE[fault], tmp_path)
    text = (tmp_path / "run" / "error.txt").read_text()
    assert ANYWHERE[fault].removesuffix(WHOSE) in text
    if "raises" in fault:
        assert 'raise ZeroDivisionError("no gravity\\nhere")' in text
        assert "faulty_envs.py" in text


@pytest.mark.parametrize("fault", IN_WORKERS)
def test_a_fault_in_a_worker(fault: str, tmp_path: Path, two_workers: None) -> None:
    check(fault, "async", IN_WORKERS[fault], tmp_path)
    if "sleeps" in fault:
        assert "time.sleep(600)" in (tmp_path / "run" / "error.txt").read_text()


def test_the_checkpoint_is_that_of_the_run_without_the_fault(tmp_path: Path) -> None:
    with pytest.raises(EnvError):
        train(expand_seeds(config("step raises")), tmp_path / "broken")
    saved = load_latest(tmp_path / "broken" / "checkpoints")["workers"][0]["parts"][0]
    sound = build(expand_seeds(config("")))
    for _ in range(saved["updates"]):
        update(sound)
    assert all(torch.equal(leaf, sound.params[name]) for name, leaf in saved["params"].items())


def test_an_environment_that_breaks_in_its_first_reset_leaves_no_directory(tmp_path: Path) -> None:
    settings = config("reset raises")
    env = settings.env.model_copy(update={"kwargs": settings.env.kwargs | {"at": 0}})
    result = CliRunner().invoke(app, command(settings.model_copy(update={"env": env}), tmp_path))
    assert result.exit_code == 1
    assert f"reset() of sub-environment 6 (seed {SEED}) raised ZeroDivisionError" in result.stderr
    assert not (tmp_path / "run").exists()


def test_an_environment_that_cannot_be_closed_is_a_warning(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"'helpers.faulty_envs:Faulty-v0': close\(\) raised OSError"):
        result = train(expand_seeds(config("close"))[:1], tmp_path / "run")
    assert not result.table[0]["failed"]
    assert (tmp_path / "run" / "result.json").is_file()


def test_a_fault_in_an_evaluation_is_reported(tmp_path: Path) -> None:
    settings = config("step raises")
    kwargs = {"fault": "step raises", "remainder": stream_seed(0, "report_env", 1) % 10007, "at": 2}
    env = settings.env.model_copy(update={"kwargs": kwargs})
    result = CliRunner().invoke(app, command(settings.model_copy(update={"env": env}), tmp_path))
    assert result.exit_code == 1
    assert "step() of sub-environment 1 (seed " in result.stderr
    assert "it is environment" not in result.stderr  # those are the numbers of training
    saved = load_latest(tmp_path / "run" / "checkpoints")
    parts = [part for part in saved["workers"][0]["parts"] if len(part["members"])]
    assert min(float(part["statistics"]["env_steps"].min()) for part in parts) >= 600


def test_ctrl_c_is_no_fault() -> None:
    class Interrupted(gymnasium.Env[np.ndarray, int]):
        observation_space = gymnasium.spaces.Box(-1, 1, (2,))
        action_space = gymnasium.spaces.Discrete(2)

        def reset(self, **_: Any) -> Any:
            raise KeyboardInterrupt

    gymnasium.register("Interrupted-v0", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        make_envs("Interrupted-v0", 1).reset([1])


@pytest.mark.parametrize("fault", ["step raises", "reset raises", "three", "four"])
def test_vector_environments_of_others(fault: str) -> None:
    kwargs = {"fault": fault, "remainder": 5, "at": 3}
    factories = [lambda: gymnasium.make("helpers.faulty_envs:Faulty-v0", disable_env_checker=True, **kwargs)] * 2
    envs = wrap_vector_env(SyncVectorEnv(factories, autoreset_mode=AutoresetMode.NEXT_STEP), name="two")
    envs.reset([5, 6])
    with pytest.raises(EnvError, match=r"environment 'two': step\(\) of the vector environment") as caught:
        any(envs.step(torch.zeros(2, dtype=torch.int64)) is None for _ in range(7))
    assert caught.value.exit_code == 1
    assert caught.value.details.startswith("Traceback")


def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    """Even if another one hangs, which holds copies of all connections of the fork."""
    code = """
import os, signal, sys, time, multiprocessing, torch, threading
os.sched_getaffinity = lambda pid: {0, 1, 2}
from pgkit.envs import make_envs
envs = make_envs("helpers.faulty_envs:Faulty-v0", 3, kwargs={"fault": "step blocks", "remainder": 9, "at": 1},
                 vectorization="async")
envs.reset([1, 2, 9])
print(*[process.pid for process in multiprocessing.active_children()], flush=True)
threading.Timer(1.0, lambda: os.kill(os.getpid(), signal.SIGKILL)).start()
envs.step(torch.zeros(3, dtype=torch.int64))
"""
    with open(tmp_path / "pids", "w") as file:  # a pipe would stay open as long as the worker that hangs
        done = subprocess.run([sys.executable, "-c", code], stdout=file, check=False, cwd=Path(__file__).parents[1])
    assert done.returncode == -9
    pids = [int(word) for word in (tmp_path / "pids").read_text().split()]
    assert len(pids) == 3
    deadline = time.monotonic() + 10
    while sum(alive(pid) for pid in pids) > 1 and time.monotonic() < deadline:
        time.sleep(0.05)
    left = [pid for pid in pids if alive(pid)]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert len(left) <= 1  # the one that hangs, and that nothing can reach but its own environment


def test_a_comparison_gets_the_message() -> None:
    configs = expand_seeds(config("step raises"))
    with pytest.raises(EnvError):
        run_batch(configs)
    executor = LocalExecutor(1)
    try:
        executor.start(0, Part(configs))
        deadline = time.monotonic() + 60
        events = []
        while not [event for event in events if event.name == "failed"] and time.monotonic() < deadline:
            events += executor.events(0.5)
        assert events[-1].content == ANYWHERE["step raises"]
        executor.start(1, Part(expand_seeds(config("", "async"))))
        events = []
        while not events and time.monotonic() < deadline:
            events += executor.events(0.5)
        assert "env.vectorization 'async' needs processes of its own" in events[-1].content
    finally:
        executor.close()
