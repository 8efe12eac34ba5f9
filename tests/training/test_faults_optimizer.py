"""Optimizers of other packages that raise, or draw random numbers: each member is trained as if it were alone."""

import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.random import mtrand

from pgkit.config.load import parse_config
from pgkit.config.schema import TrainConfig
from pgkit.system.signals import Stopped
from pgkit.training.result import TrainResult
from pgkit.training.resume import resume
from pgkit.training.train import train

ODD = "helpers.odd_optimizers:"


def config(seed: int, optimizer: dict[str, Any], **changes: Any) -> TrainConfig:
    """Forty updates of a small network."""
    table: dict[str, Any] = {
        "name": "odd",
        "seed": seed,
        "steps": 400,
        "envs_per_member": 2,
        "rollout_steps": 5,
        "env": {"id": "CartPole-v1"},
        "agent": {"name": "actor-critic"},
        "policy": {"hidden": [4]},
        "optimizer": optimizer,
        "evaluation": {"points": 0, "final_episodes": 2},
    }
    return parse_config(table | changes)


def assert_same(first: TrainResult, rows: list[int], second: TrainResult) -> None:
    assert [first.table[row] for row in rows] == second.table
    for name, leaf in second.params.items():
        assert torch.equal(first.params[name][rows], leaf), name


def interrupt_once() -> Callable[[float], None]:
    """A callback that asks the run to stop, as Ctrl-C does, when half the steps are made."""
    asked: list[float] = []

    def count(steps: float) -> None:
        if steps >= 400 and not asked:
            asked.append(steps)
            os.kill(os.getpid(), signal.SIGINT)

    return count


FAILURES: dict[str, tuple[str, str]] = {
    "raises": ("Fails", f"optimizer '{ODD}Fails' raised ArithmeticError: the matrix is singular"),
    "resizes its parameters": ("Resizes", f"optimizer '{ODD}Resizes' raised RuntimeError: "),
}


@pytest.mark.parametrize(("name", "reason"), FAILURES.values(), ids=FAILURES)
@pytest.mark.parametrize("around", [{}, {"max_grad_norm": 0.5}, {"critic": {"name": "sgd", "lr": 0.01}}], ids=str)
def test_an_optimizer_that_raises_fails_its_member_alone(name: str, reason: str, around: dict[str, Any]) -> None:
    members = [config(seed, {"name": ODD + name, "at": at, **around}) for seed, at in ((0, 1e9), (1, 30.0))]
    result = train(members)
    assert [row["failed"] for row in result.table] == [False, True]
    assert 280 <= result.table[1]["env_steps"] <= 300
    assert result.reasons[1].startswith(reason)
    assert "\n" not in result.reasons[1]
    assert all(leaf.isfinite().all() for leaf in result.params.values())
    assert_same(result, [0], train(members[:1]))


def test_a_member_of_another_optimizer_keeps_its_bits() -> None:
    """The rows of the group that fails are not those of the population."""
    adam = {"name": "adam", "lr": 0.01}
    members = [config(0, adam), config(1, {"name": f"{ODD}Fails", "at": 9.0}), config(2, adam)]
    result = train(members)
    assert result.reasons == {1: FAILURES["raises"][1]}
    assert_same(result, [0, 2], train([members[0], members[2]]))


def test_random_numbers_of_an_optimizer_are_those_of_its_member() -> None:
    """The same again, alone as together, whatever has been drawn before; and the process's generators stay."""
    members = [config(seed, {"name": f"{ODD}Noisy"}) for seed in (0, 1)]
    whole = train(members)
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002 - the generator that is drawn from
    before = repr((torch.get_rng_state(), random.getstate(), mtrand.get_bit_generator().state))
    again = train(members)
    assert repr((torch.get_rng_state(), random.getstate(), mtrand.get_bit_generator().state)) == before
    assert_same(whole, [0, 1], again)
    for row in (0, 1):
        assert_same(whole, [row], train(members[row : row + 1]))


def test_random_numbers_of_an_optimizer_differ_between_members_and_steps() -> None:
    """Also for biases, which begin alike."""
    noise = config(0, {"name": "sgd", "lr": 0.1, "groups": {"*.bias": {"name": f"{ODD}Noisy", "lr": 1.0}}})
    first = train([noise, noise.model_copy(update={"seed": 1})])
    bias = first.params["actor.0.bias"]
    assert (bias[0] - bias[1]).abs().min() > 1e-3


@pytest.mark.parametrize("name", ["Noisy", "OddState", "OddOptions"])
def test_a_resumed_run_is_the_run_that_was_not_stopped(name: str, tmp_path: Path) -> None:
    members = [config(seed, {"name": ODD + name}, checkpoint_points=4, log_interval=50) for seed in (0, 1)]
    whole = train(members, tmp_path / "whole")
    with pytest.raises(Stopped):
        train(members, tmp_path / "stopped", on_steps=interrupt_once())
    resumed = resume(tmp_path / "stopped")
    assert resumed is not None
    assert_same(resumed, [0, 1], whole)
