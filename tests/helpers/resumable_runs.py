"""Small runs to be stopped and resumed."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from helpers.tensorboard import events
from helpers.trees import assert_equal
from pgkit.config.load import parse_config
from pgkit.config.schema import TrainConfig
from pgkit.logging import read_metrics
from pgkit.training.result import TrainResult

CARTPOLE = {"id": "CartPole-v1", "backend": "pgkit", "max_episode_steps": 40, "normalize_observations": True}


ADAM = {"name": "adam", "lr": 0.01, "schedule": {"lr": {"kind": "kl"}}, "max_grad_norm": 0.5}


TABLES = [
    ADAM,
    ADAM | {"lr": 0.02},
    {"name": "rmsprop", "lr": 0.003, "schedule": {"lr": "linear"}, "max_grad_norm": 0.5},
]


SCHEDULE_FREE = [
    {"name": "schedule_free_adamw", "lr": 0.02, "warmup_steps": 10, "max_grad_norm": 0.5},
    {"name": "schedule_free_sgd", "lr": 0.5, "weight_decay": 1e-4, "critic": {"name": "adam"}},
    {"name": "helpers.odd_optimizers:TwoPoints", "lr": 0.1},
]
"""What is evaluated differs from where members act."""


DIVERGES = {"name": "sgd", "lr": 1e30, "max_grad_norm": 1e30}


OF_AGENT: Mapping[str, Mapping[str, Any]] = {
    "actor-critic": {"rollout_steps": 7},
    "ppo": {"rollout_steps": 7, "epochs": 2, "minibatches": 4, "target_kl": 0.01},
    "reinforce": {},
}
"""Settings that belong to an agent."""


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
    return parse_config(table | OF_AGENT.get(agent, OF_AGENT["actor-critic"]) | changes)


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


def same_result(first: TrainResult | None, second: TrainResult | None) -> None:
    """The same result, to the last bit."""
    assert first is not None
    assert second is not None
    assert first.table == second.table
    assert_equal(first.params, second.params)
    assert_equal(first.obs_stats, second.obs_stats)
    assert_equal(tuple(first.final), tuple(second.final))
    assert len(first.evaluations) == len(second.evaluations)
    for one, other in zip(first.evaluations, second.evaluations, strict=True):
        assert one[:3] == other[:3]
        assert_equal((*one.episodes, *(one.greedy or ())), (*other.episodes, *(other.greedy or ())))


def same(first: TrainResult | None, second: TrainResult | None) -> None:
    """The same result and the same states of all members, to the last bit."""
    same_result(first, second)
    assert first is not None
    assert second is not None
    assert_equal(first.parts, second.parts)


def same_records(first: Path, second: Path) -> None:
    """Two run directories hold the same, apart from times."""
    tables = [without_clock(read_metrics(place / "metrics.parquet")) for place in (first, second)]
    assert len(tables[0]) > 20
    assert tables[0].equals(tables[1])
    results = [json.loads((place / "result.json").read_text()) for place in (first, second)]
    assert all(result.pop("wall_seconds") > 0 for result in results)
    assert results[0] == results[1]
    places = [place.relative_to(first).parent for place in first.rglob("events.*")]
    assert sorted(places) == sorted(place.relative_to(second).parent for place in second.rglob("events.*"))
    for place in places:
        curves, others = (events(root / place) for root in (first, second))
        assert curves.keys() == others.keys()
        for tag in curves.keys() - {"time/env_steps_per_second"} - {tag for tag in curves if "per_second" in tag}:
            assert curves[tag] == others[tag], (place, tag)
