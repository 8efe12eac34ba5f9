"""Environments that share something, of which there are few, or that never end: training does without surprises."""

import os
import signal
import socket
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.command_line import pgkit
from helpers.compile_mode import set_compile_mode
from helpers.selfish_envs import Counted, Licensed
from torch import Tensor

from pgkit.config.load import parse_config, to_toml
from pgkit.config.schema import TrainConfig
from pgkit.envs import base, make_envs
from pgkit.errors import PgkitError
from pgkit.nn.distributions import head_for
from pgkit.nn.policy import Policy
from pgkit.rollouts.evaluate import EvalKey, evaluate_policy
from pgkit.system import processes
from pgkit.system.processes import CopyFailed, call_in_copy
from pgkit.system.signals import Stopped
from pgkit.training.evaluate_run import evaluate_run
from pgkit.training.train import train


def config(env_id: str, agent: str = "actor-critic", **changes: Any) -> TrainConfig:
    """A run of 40 steps in two environments."""
    table: dict[str, Any] = {
        "name": "selfish",
        "steps": 40,
        "envs_per_member": 2,
        "env": {"id": env_id if ":" in env_id or "-" in env_id else f"helpers.selfish_envs:Selfish{env_id}-v0"},
        "agent": {"name": agent},
        "policy": {"hidden": [4]},
        "optimizer": {"name": "sgd", "lr": 0.1},
        "evaluation": {"points": 0, "final_episodes": 2},
    }
    return parse_config(table | changes)


# --- instances of a trial ---

SHARED = {
    "class attribute": config("Counted"),
    "window": config("SharedWindow"),
    "global generator": config("GlobalGenerator"),
    "human": config(
        "CartPole-v1", env={"id": "CartPole-v1", "kwargs": {"render_mode": "human"}, "max_episode_steps": 5}
    ),
}


def trained(settings: TrainConfig, directory: Path | None) -> dict[str, Tensor]:
    """Parameters after training from the same state of everything that environments share."""
    Counted.instances = 0
    np.random.seed(3)  # noqa: NPY002 the legacy generator is what all share
    return train(settings, directory).params


@pytest.mark.parametrize("shared", SHARED)
def test_recording_changes_no_bit(shared: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    unrecorded = trained(SHARED[shared], None)
    recorded = trained(SHARED[shared], tmp_path / "run")
    assert any(leaf.abs().max() > 0 for leaf in recorded.values())
    assert all(torch.equal(leaf, recorded[name]) for name, leaf in unrecorded.items())


def test_the_command_line_trains_the_same(tmp_path: Path) -> None:
    from pgkit.runs.reader import saved_members

    (tmp_path / "counted.toml").write_text(to_toml(SHARED["class attribute"]))
    expected = trained(SHARED["class attribute"], None)
    Counted.instances = 0
    result = pgkit(f"train {tmp_path}/counted.toml -q --workers 1 --out {tmp_path}/run")
    assert result.exit_code == 0, result.stderr
    params = saved_members(tmp_path / "run")[1]
    assert all(torch.equal(leaf, params[name]) for name, leaf in expected.items())


def test_a_copy_of_the_process_changes_nothing() -> None:
    numbers: list[int] = []
    assert call_in_copy(lambda: numbers.append(1) or len(numbers), 60) == 1  # type: ignore[func-returns-value]
    assert numbers == []


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda: os._exit(3), "ended unexpectedly"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "ended unexpectedly"),
        (lambda: signal.pause(), r"no result within 0\.2 s"),
    ],
)
def test_a_copy_that_gives_no_result_is_an_error(function: Any, message: str) -> None:
    with pytest.raises(CopyFailed, match=message):
        call_in_copy(function, 0.2 if "within" in message else 60)


def test_a_copy_does_not_wait_long_for_the_threads_of_jax(monkeypatch: pytest.MonkeyPatch) -> None:
    """JAX warns whenever a process in which it has been used forks."""
    fork = os.fork

    def fork_beside_jax() -> int:
        warnings.warn("os.fork() is incompatible with multithreaded code, and JAX is multithreaded", stacklevel=1)
        return fork()

    monkeypatch.setattr(os, "fork", fork_beside_jax)
    assert call_in_copy(lambda: "without JAX", 60) == "without JAX"
    monkeypatch.setattr(processes, "SECONDS_BESIDE_JAX", 0.2)
    with pytest.raises(CopyFailed, match=r"^no result within 0\.2 s: JAX has been used in this process"):
        call_in_copy(signal.pause, 60)


# --- few instances ---


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def single(points: int) -> TrainConfig:
    """A run in the only instance that there can be."""
    env = {"id": "helpers.selfish_envs:SelfishServer-v0", "kwargs": {"port": free_port()}}
    evaluation = {"points": points, "episodes": 2, "final_episodes": 3}
    return config("Server", env=env, envs_per_member=1, evaluation=evaluation)


def test_the_only_instance_trains_evaluates_and_resumes(tmp_path: Path) -> None:
    result = train(single(points=0), tmp_path / "run")
    assert result.final.lengths.tolist() == [[5, 5, 5]]
    assert '"inexact_resume": null' in (tmp_path / "run" / "provenance.json").read_text()
    assert evaluate_run(tmp_path / "run", episodes=3).table[0]["return_mean"] == result.table[0]["return_mean"]
    (tmp_path / "run" / "result.json").unlink()
    assert "written to" in pgkit(f"resume {tmp_path}/run -q").stdout


@pytest.mark.parametrize(("env", "beside"), [("Server", 1), ("Licensed", 2)])
def test_too_few_instances_are_noticed_before_training(env: str, beside: int, tmp_path: Path) -> None:
    settings = single(points=1) if env == "Server" else config(env, evaluation={"points": 1, "final_episodes": 2})
    Licensed.open = 0
    (tmp_path / "one.toml").write_text(to_toml(settings))
    result = pgkit(f"train {tmp_path}/one.toml -q --workers 1 --out {tmp_path}/run")
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert f"(for evaluations, beside {beside} for training: if there cannot be more, evaluation.points=0" in (
        result.stderr
    )
    assert not (tmp_path / "run").exists()
    assert Licensed.open == 0


@pytest.mark.parametrize(
    ("licences", "envs", "key"),
    [(1, 2, "envs_per_member and seeds"), (3, 2, "evaluation.envs")],
)
def test_the_key_that_sets_their_number_is_named(
    licences: int, envs: int, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where some can be created, but not all; those that could be are closed."""
    monkeypatch.setattr(Licensed, "licences", licences)
    monkeypatch.setattr(Licensed, "open", 0)
    evaluation = {"points": 1, "episodes": 2, "final_episodes": 2}
    message = rf"no licence is left \(after 1 of 2\).*: {key} say"
    with pytest.raises(PgkitError, match=message):
        train(config("Licensed", envs_per_member=envs, evaluation=evaluation))
    assert Licensed.open == 0


# --- a bounded number of instances ---


@pytest.mark.parametrize("vectorization", ["sync", pytest.param("async", marks=pytest.mark.process)])
@pytest.mark.parametrize("mode", ["graphs", "off"])
@pytest.mark.parametrize("deterministic", [False, True])
def test_few_environments_evaluate_as_many_do(
    mode: str, vectorization: Any, deterministic: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_compile_mode(monkeypatch, mode)

    def episodes(count: int) -> Any:
        envs = make_envs("helpers.probe_envs:ProbeNoise-v0", count, vectorization=vectorization)
        policy = Policy(envs.info.obs_dim, head_for(envs.info.action_space), hidden=(5,))
        keys = [EvalKey(0, 0), EvalKey(7, 3), EvalKey(7, 4)]
        result = evaluate_policy(policy, policy.init([1, 2, 3]), envs, keys, 7, deterministic=deterministic)
        envs.close()
        return result

    many = episodes(21)
    assert many.lengths.unique().numel() > 3
    for count in (1, 3, 7, 8):
        few = episodes(count)
        assert torch.equal(few.returns, many.returns)
        assert torch.equal(few.lengths, many.lengths)


def test_training_and_evaluation_create_as_many_instances_as_they_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Licensed, "licences", 5)
    for name, value in (("open", 0), ("most", 0)):
        monkeypatch.setattr(Licensed, name, value)
    settings = config("Licensed", evaluation={"points": 2, "episodes": 4, "final_episodes": 9, "envs": 3})
    result = train(settings, tmp_path / "run")
    assert Licensed.most == 5  # two for training
    Licensed.most = 0
    assert evaluate_run(tmp_path / "run", episodes=9).table[0]["return_mean"] == result.table[0]["return_mean"]
    assert Licensed.most == 3
    assert Licensed.open == 0


# --- episodes without an end ---

ENDLESS = "helpers.probes:ProbeEndless-v0"
CUT = "episodes of an evaluation in helpers.probes:ProbeEndless-v0 were cut after 64 steps, because they had not ended"


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Episodes are given up after 64 steps."""
    monkeypatch.setattr(base, "LONGEST_EPISODE", 64)


def test_whole_episodes_without_an_end_are_an_error(short: None) -> None:
    with pytest.raises(PgkitError, match=r"an episode has not ended after 64 steps.*env.max_episode_steps=1000$"):
        train(config(ENDLESS, agent="reinforce"))
    limited = {"id": ENDLESS, "max_episode_steps": 100}
    assert train(config(ENDLESS, agent="reinforce", env=limited)).table[0]["length_mean"] == 100


def test_evaluations_without_an_end_are_cut_and_say_so(
    short: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = config(ENDLESS, evaluation={"points": 2, "episodes": 2, "final_episodes": 3})
    result = train(settings, tmp_path / "run")
    assert result.final.lengths.tolist() == [[64, 64, 64]]
    assert result.final.returns.tolist() == [[64.0, 64.0, 64.0]]
    assert capsys.readouterr().err.count(CUT) == 1
    shown = pgkit(f"evaluate {tmp_path}/run --episodes 2 --deterministic")
    assert shown.exit_code == 0
    assert f"note: 2 of 2 {CUT}: env.max_episode_steps sets a time limit\n" in shown.stderr


def test_a_time_limit_needs_no_note(short: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(config(ENDLESS, env={"id": ENDLESS, "max_episode_steps": 70}), tmp_path / "run")
    assert "cut" not in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_acknowledged_at_once(
    number: signal.Signals, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    acknowledged = []

    def interrupt(steps: float) -> None:
        if not acknowledged:
            os.kill(os.getpid(), number)
            acknowledged.append(capsys.readouterr().err)

    with pytest.raises(Stopped):
        train(config("Noise"), tmp_path / "run", on_steps=interrupt)
    assert acknowledged == [f"{number.name}: stopping as soon as all is saved (again: at once)\n"]
