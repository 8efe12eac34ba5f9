"""When a population is looked at."""

from types import SimpleNamespace
from typing import Any

import torch

import pgkit
from pgkit.training.schedule import Schedules


def population_of_one(steps: float) -> Any:
    """What a schedule reads of a population of two whose second member has failed and left."""
    return SimpleNamespace(
        rollout_steps=32,
        members=torch.tensor([0]),
        size=1,
        env_steps=torch.tensor([steps], dtype=torch.float64),
        updates=int(steps // 256),
        budget=1_000_000,
    )


def schedules() -> Schedules:
    words = ["steps=1_000_000", "log_interval=1_000_000", "evaluation.points=0", "checkpoint_points=5"]
    config = pgkit.load_config("cartpole-actor-critic", words)
    return Schedules([config, config.model_copy(update={"seed": 1})])


def test_updates_end_where_a_checkpoint_is_due() -> None:
    assert schedules().updates_until_event(population_of_one(0.0), logging=False) == 782  # 200,000 steps, 256 each


def test_members_that_have_failed_do_not_make_others_stop_after_each_update() -> None:
    # The mean of both members reaches 200,000 steps when the one that is left has made 400,000.
    assert schedules().updates_until_event(population_of_one(300_032.0), logging=False) > 1_000
