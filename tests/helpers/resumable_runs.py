"""Small runs to be stopped and resumed."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pgkit.config.load import parse_config
from pgkit.config.schema import TrainConfig

CARTPOLE = {"id": "CartPole-v1", "backend": "pgkit", "max_episode_steps": 40, "normalize_observations": True}


ADAM = {"name": "adam", "lr": 0.01, "schedule": {"lr": {"kind": "kl"}}, "max_grad_norm": 0.5}


TABLES = [
    ADAM,
    ADAM | {"lr": 0.02},
    {"name": "rmsprop", "lr": 0.003, "schedule": {"lr": "linear"}, "max_grad_norm": 0.5},
]


DIVERGES = {"name": "sgd", "lr": 1e30, "max_grad_norm": 1e30}


def config(agent: str = "actor-critic", **changes: Any) -> TrainConfig:
    """A short run with everything that has a state."""
    table = {
        "name": "short",
        "steps": 1500,
        "envs_per_member": 4,
        "env": CARTPOLE,
        "agent": {"name": agent},
        "policy": {"hidden": [8]},
        "optimizer": ADAM,
        "evaluation": {"points": 3, "episodes": 2, "final_episodes": 2, "greedy": True},
        "log_interval": 200,
        "checkpoint_points": 3,
    }
    return parse_config(table | ({"rollout_steps": 7} if agent == "actor-critic" else {}) | changes)


def population(agent: str, env: Mapping[str, Any], **changes: Any) -> list[TrainConfig]:
    """Four members: two share an optimizer, one has another, one diverges."""
    return [config(agent, seed=k, env=env, optimizer=table, **changes) for k, table in enumerate([*TABLES, DIVERGES])]


def without_clock(rows: Any) -> Any:
    """Metrics without times."""
    return rows[rows["tag"] != "time/env_steps_per_second"].drop(columns="wall_time").reset_index(drop=True)


def by_tag(rows: Any) -> Any:
    """Metrics of one member, sorted: in a population it waits for evaluations of others, so rows come later."""
    return rows.drop(columns="member").sort_values(["tag", "step"], kind="stable").reset_index(drop=True)


def wait_for(path: Path, seconds: float = 60.0) -> None:
    """Wait until a file exists."""
    deadline = time.monotonic() + seconds
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert path.exists()
