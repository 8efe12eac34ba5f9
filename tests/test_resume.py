"""Runs that are stopped and continued end as if they had never been stopped, to the last bit."""

import json
import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from test_checkpoint import assert_equal
from test_training import events

from pgkit import observe
from pgkit.config import TrainConfig, parse_config
from pgkit.interrupt import Stopped
from pgkit.logging import read_metrics
from pgkit.observe import TrainResult
from pgkit.resuming import resume
from pgkit.training import train

CARTPOLE = {"id": "CartPole-v1", "backend": "pgkit", "max_episode_steps": 40, "normalize_observations": True}
LANDER = {"id": "LunarLander-v3", "backend": "gymnasium", "max_episode_steps": 60, "normalize_rewards": True}
ENVS = {
    "cartpole": CARTPOLE,
    "lander": LANDER | {"normalize_observations": True},
    "lander-async": LANDER | {"vectorization": "async"},
}
ADAM = {"name": "adam", "lr": 0.01, "schedule": {"lr": {"kind": "kl"}}, "max_grad_norm": 0.5}
TABLES = [ADAM, ADAM | {"lr": 0.02}, {"name": "rmsprop", "lr": 0.003, "schedule": {"lr": "linear"}}]
DIVERGES = {"name": "sgd", "lr": 1e30}


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
        "evaluation": {"points": 3, "episodes": 2, "final_episodes": 2},
        "log_interval": 200,
        "checkpoint_points": 3,
    }
    return parse_config(table | ({"rollout_steps": 7} if agent == "actor-critic" else {}) | changes)


def population(agent: str, env: Mapping[str, Any], **changes: Any) -> list[TrainConfig]:
    """Four members: two share an optimizer, one has another, one diverges."""
    return [config(agent, seed=k, env=env, optimizer=table, **changes) for k, table in enumerate([*TABLES, DIVERGES])]


class Killed(Exception):
    """The end of a process, as far as its files are concerned."""


@pytest.fixture
def stop_after(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """``stop_after(k)``: from then on a run is asked to stop after its k-th update, as by a signal."""

    def arrange(updates: int) -> None:
        count = 0

        def pause(self: observe.Observer, own: Any = observe.Observer.pause) -> None:
            nonlocal count
            count += 1
            if count == updates:
                os.kill(os.getpid(), signal.SIGINT)
            own(self)

        monkeypatch.undo()
        monkeypatch.setattr(observe.Observer, "pause", pause)

    yield arrange


def same(first: TrainResult | None, second: TrainResult | None) -> None:
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
        assert_equal(tuple(one.episodes), tuple(other.episodes))
    assert [part.members.tolist() for part in first.parts] == [part.members.tolist() for part in second.parts]
    for part, other in zip(first.parts, second.parts, strict=True):
        assert_equal(part.optimizer.dump(part.opt_state), other.optimizer.dump(other.opt_state))


def without_clock(rows: Any) -> Any:
    """Metrics without what a clock says."""
    return rows[rows["tag"] != "time/env_steps_per_second"].drop(columns="wall_time").reset_index(drop=True)


def same_records(first: Path, second: Path) -> None:
    """Two run directories hold the same, but for what clocks say."""
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


@pytest.mark.parametrize("env", list(ENVS))
@pytest.mark.parametrize("agent", ["actor-critic", "reinforce"])
def test_a_stopped_run_ends_as_if_it_had_not_stopped(tmp_path: Path, stop_after: Any, agent: str, env: str) -> None:
    """Stopped three times: after the first update, in mid-episode, and after members have left."""
    configs = population(agent, ENVS[env])
    whole = train(configs, tmp_path / "whole")
    assert [row["failed"] for row in whole.table] == [False, False, False, True]
    updates = max(part.updates for part in whole.parts)
    stop_after(1)
    with pytest.raises(Stopped, match="stopped by SIGINT: pgkit resume .*stopped continues"):
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
