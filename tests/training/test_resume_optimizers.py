"""Optimizers that keep more than moments, and what goes around others: stopped and resumed, alone and together."""

import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.resumable_runs import config, same, same_records
from helpers.trees import assert_equal

import pgkit
from pgkit.config.schema import TrainConfig
from pgkit.system.signals import Stopped
from pgkit.training.monitor import Monitor
from pgkit.tree import take_tree

Table = Mapping[str, Any]
FEW: list[Table] = [
    {"name": "muon", "lr": 0.02, "adam_lr": 0.01, "max_grad_norm": 0.5},
    {"name": "soap", "lr": 0.01, "precondition_frequency": 3},
    {"name": "adam_rel", "lr": 0.01, "cautious": True, "trac": True, "trac_s_prev": 0.1, "normalize_and_project": 3},
]
ONE_BY_ONE: list[Table] = [
    {"name": "soap", "lr": 0.01, "precondition_frequency": 2, "cautious": True},
    {"name": "schedule_free_adamw", "lr": 0.02, "warmup_steps": 10},
    {"name": "adam_rel", "lr": 0.01},
    {"name": "adam", "lr": 0.01, "cautious": True},
    {"name": "adam", "lr": 0.01, "trac": True, "trac_s_prev": 0.1},
    {"name": "adam", "lr": 0.01, "normalize_and_project": 3},
]


def members(tables: Sequence[Table]) -> list[TrainConfig]:
    settings: Table = {
        "steps": 200,
        "epochs": 1,
        "minibatches": 2,
        "log_interval": 20,
        "checkpoint_points": 1,
        "policy": {"hidden": [8, 8], "layer_norm": True},
        "evaluation": {"points": 2, "episodes": 2, "final_episodes": 2},
    }
    return [config("ppo", seed=k, optimizer=table, **settings) for k, table in enumerate(tables)]


@pytest.mark.parametrize("tables", [FEW, pytest.param(ONE_BY_ONE, marks=pytest.mark.slow)], ids=["few", "one by one"])
def test_a_run_that_is_stopped_ends_in_the_same_bits_and_so_does_each_member_alone(
    tables: Sequence[Table], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a signal after the fourth update of eight."""
    configs = members(tables)
    whole = pgkit.train(configs, tmp_path / "whole")
    assert not any(row["failed"] for row in whole.table)
    for k, alone in enumerate(map(pgkit.train, configs)):
        assert_equal(alone.params, take_tree(whole.params, torch.tensor([k])))
        together = [each.episodes.returns for each in whole.evaluations if each.member == k]
        assert_equal([each.episodes.returns for each in alone.evaluations], together)
    original, count = Monitor.maybe_checkpoint, iter(range(1000))

    def stopping(self: Monitor) -> None:
        if next(count) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        original(self)

    monkeypatch.setattr(Monitor, "maybe_checkpoint", stopping)
    with pytest.raises(Stopped):
        pgkit.train(configs, tmp_path / "stopped")
    same(whole, pgkit.resume(tmp_path / "stopped"))
    same_records(tmp_path / "whole", tmp_path / "stopped")
