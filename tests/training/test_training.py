"""Whole runs: members that diverge, the budget, and everything that a run leaves behind on disk."""

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from helpers.tensorboard import events

from pgkit.config.load import load_config, parse_config
from pgkit.config.members import expand_seeds
from pgkit.config.schema import TrainConfig
from pgkit.logging import read_metrics
from pgkit.logging.metrics import lookup
from pgkit.runs.checkpoint import latest
from pgkit.seeding import stream_seed
from pgkit.training.evaluate_run import evaluate_run
from pgkit.training.loop import update
from pgkit.training.population import build
from pgkit.training.result import TrainResult
from pgkit.training.train import train
from pgkit.tree import take_tree

ADAM = {"name": "adam", "lr": 0.01}
AGENTS = ("actor-critic", "reinforce")


class Poisoned(gymnasium.Env[np.ndarray, int]):
    """Five steps an episode; where the seed leaves this remainder, the reward is NaN from step ``after`` on."""

    observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, remainder: int, after: int = 40) -> None:
        self.remainder, self.after = remainder, after
        self.poisoned, self.steps = False, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        if seed is not None:
            self.poisoned, self.steps = seed % 10007 == self.remainder, 0
        return self._obs(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.steps += 1
        reward = math.nan if self.poisoned and self.steps > self.after else float(action)
        return self._obs(), reward, self.steps % 5 == 0, False, {}

    def _obs(self) -> np.ndarray:
        return self.np_random.uniform(-1, 1, 2).astype(np.float32)


gymnasium.register("ProbePoisoned-v0", Poisoned)


def config(agent: str = "actor-critic", **changes: Any) -> TrainConfig:
    """A short run on CartPole."""
    table = {
        "name": "short",
        "steps": 600,
        "envs_per_member": 4,
        "env": {"id": "CartPole-v1", "backend": "pgkit"},
        "agent": {"name": agent},
        "policy": {"hidden": [16]},
        "optimizer": ADAM,
        "evaluation": {"points": 0, "final_episodes": 3},
    }
    return parse_config(table | ({"rollout_steps": 8} if agent == "actor-critic" else {}) | changes)


def check_neighbours(configs: list[TrainConfig], failed: int) -> TrainResult:
    """The member fails, all its numbers are finite, and the others have the bits that they have without it."""
    result = train(configs)
    assert [row["failed"] for row in result.table] == [k == failed for k in range(len(configs))]
    assert result.table[failed]["env_steps"] < configs[failed].steps
    assert all(leaf.isfinite().all() for leaf in result.params.values())
    assert all(math.isfinite(row["return_mean"]) for row in result.table)
    others = [k for k in range(len(configs)) if k != failed]
    without = train([configs[k] for k in others])
    assert [result.table[k] for k in others] == without.table
    for name, leaf in without.params.items():
        assert torch.equal(result.params[name][others], leaf), name
    return result


def last_finite(config: TrainConfig) -> dict[str, torch.Tensor]:
    """The parameters with which an update first gives something that is not finite."""
    alone = build([config])
    while True:
        before = {name: leaf.clone() for name, leaf in alone.params.items()}
        update(alone)
        if not alone.alive.all():
            return before


@pytest.mark.parametrize("agent", AGENTS)
@pytest.mark.parametrize("failed", [0, 1, 2])
def test_a_diverging_optimizer_freezes_its_member_alone(agent: str, failed: int) -> None:
    configs = [config(agent, seed=k, optimizer={"name": "sgd", "lr": 1e30} if k == failed else ADAM) for k in range(3)]
    result = check_neighbours(configs, failed)
    expected = last_finite(configs[failed])
    assert all(torch.equal(result.params[name][failed], leaf[0]) for name, leaf in expected.items())


@pytest.mark.parametrize("agent", AGENTS)
def test_a_reward_that_is_no_number_freezes_its_member_alone(agent: str) -> None:
    env = {"id": "ProbePoisoned-v0", "kwargs": {"remainder": stream_seed(1, "env", 2) % 10007}}
    configs = [config(agent, seed=k, env=env) for k in range(3)]
    result = check_neighbours(configs, failed=1)
    expected, initial = last_finite(configs[1]), build([configs[1]]).params
    assert all(torch.equal(result.params[name][1], leaf[0]) for name, leaf in expected.items())
    assert any(not torch.equal(leaf, initial[name]) for name, leaf in expected.items())


def test_the_failed_member_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    configs = [config(seed=7), config(seed=9, optimizer={"name": "sgd", "lr": 1e30})]
    train(configs, tmp_path / "run", progress=True)
    assert "seed 9 failed before step" in capsys.readouterr().err
    members = json.loads((tmp_path / "run" / "result.json").read_text())["members"]
    assert [(row["seed"], row["failed"]) for row in members] == [(7, False), (9, True)]


def test_the_budget_is_spent_and_exceeded_by_less_than_one_rollout() -> None:
    result = train([config(seed=seed, steps=500) for seed in range(6)])
    steps = [row["env_steps"] for row in result.table]
    assert all(500 <= count < 500 + 8 * 4 for count in steps)
    assert len(set(steps)) > 1  # reset steps do not count


def test_whole_episodes_exceed_the_budget_by_less_than_one_round_of_them() -> None:
    limit = 30
    env = {"id": "CartPole-v1", "max_episode_steps": limit}
    result = train([config("reinforce", seed=seed, steps=500, env=env) for seed in range(6)])
    assert all(500 <= row["env_steps"] < 500 + 4 * limit for row in result.table)


EVERY_RUN = (
    "train/episode_return",
    "train/episode_length",
    "time/env_steps_per_second",
    "eval/return_mean",
    "eval/return_std",
    "eval/length_mean",
    "loss/policy",
    "loss/value",
    "policy/entropy",
    "policy/approx_kl",
    "value/explained_variance",
    "optimizer/grad_norm",
    "optimizer/grad_norm_clipped",
    "optimizer/clip_fraction",
    "optimizer/update_norm",
    "optimizer/actor/update_ratio",
    "optimizer/critic/update_ratio",
    "optimizer/lr",
)


def recorded(agent: str, **changes: Any) -> TrainConfig:
    return config(
        agent,
        steps=3000,
        env={"id": "CartPole-v1", "backend": "pgkit", "max_episode_steps": 40, "normalize_observations": True},
        optimizer=ADAM | {"max_grad_norm": 0.5, "schedule": {"lr": "linear"}},
        evaluation={"points": 3, "episodes": 2, "final_episodes": 5},
        log_interval=250,
        checkpoint_points=3,
        **changes,
    )


@pytest.fixture(scope="module", params=AGENTS)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainConfig, TrainResult]:
    """Two seeds, recorded."""
    chosen = recorded(request.param, seeds=[3, 11])
    return chosen, train(expand_seeds(chosen), tmp_path_factory.mktemp("runs") / request.param)


Run = tuple[TrainConfig, TrainResult]


def place(run: Run) -> Path:
    assert run[1].directory is not None
    return run[1].directory


def test_what_is_in_the_directory_of_a_run(run: Run) -> None:
    directory = place(run)
    assert {path.name for path in directory.iterdir()} == {
        "config.toml",
        "optimizer.toml",
        "provenance.json",
        "result.json",
        "metrics.parquet",
        "checkpoints",
        "seed-3",
        "seed-11",
        "summary",
        ".lock",
    }
    for name in ("seed-3", "seed-11", "summary"):
        (file,) = (directory / name).iterdir()
        assert file.name.startswith("events.out.tfevents.")
    provenance = json.loads((directory / "provenance.json").read_text())
    assert provenance["wall_seconds"] > 0
    assert provenance["cpu_seconds"] > 0


def test_one_seed_has_one_event_file_and_no_summary(tmp_path: Path) -> None:
    train([config(seed=4)], tmp_path / "run")
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert not any(name in ("summary", "seed-4") for name in names)
    assert sum(name.startswith("events.out.tfevents.") for name in names) == 1


@pytest.mark.parametrize("member", ["seed-3", "seed-11"])
def test_tensorboard_shows_every_metric_of_every_seed(run: Run, member: str) -> None:
    scalars = events(place(run) / member)
    missing = [tag for tag in EVERY_RUN if tag not in scalars]
    assert not missing
    for tag, points in scalars.items():
        assert lookup(tag).definition
        assert all(math.isfinite(number) for _, number in points), tag
        assert [step for step, _ in points] == sorted(step for step, _ in points), tag
    rates = [number for _, number in scalars["optimizer/lr"]]
    assert 0 <= rates[-1] < rates[0] <= ADAM["lr"]
    assert max(number for _, number in scalars["optimizer/grad_norm_clipped"]) < 0.5 + 1e-5
    assert all(number > 0 for _, number in scalars["time/env_steps_per_second"])


def test_rows_come_at_the_interval_and_evaluations_at_their_points(run: Run) -> None:
    scalars = events(place(run) / "seed-3")
    steps = [step for step, _ in scalars["loss/policy"]]
    largest = 4 * (run[0].rollout_steps or 40)  # the update after the mark is the one that is measured
    assert steps[0] <= 250 + 2 * largest
    assert all(0 < b - a <= 250 + 2 * largest for a, b in pairwise(steps))
    assert 3000 - steps[-1] <= 250 + 2 * largest
    evaluations = [step for step, _ in scalars["eval/return_mean"]]
    assert evaluations[0] == 0
    assert evaluations[-1] >= 3000
    assert len(evaluations) >= 3


def test_the_summary_holds_the_middle_of_the_members(run: Run) -> None:
    summary = events(place(run) / "summary")
    ends = [row["return_mean"] for row in run[1].table]
    tags = ("eval/return_mean", "spread/eval/return_mean/p10", "spread/eval/return_mean/p90")
    shown = [summary[tag][-1][1] for tag in tags]
    assert shown == pytest.approx(np.quantile(ends, [0.5, 0.1, 0.9]).tolist())


def test_metrics_are_one_row_for_each_number(run: Run) -> None:
    rows = read_metrics(place(run) / "metrics.parquet")
    assert set(rows["tag"]) >= set(EVERY_RUN)
    assert set(rows["member"]) == {0, 1}
    for member, name in enumerate(("seed-3", "seed-11")):
        of_member = rows[rows["member"] == member]
        for tag, points in events(place(run) / name).items():
            logged = of_member[of_member["tag"] == tag]
            assert logged["step"].tolist() == [step for step, _ in points]
            assert logged["value"].tolist() == pytest.approx([number for _, number in points], rel=1e-6)


def test_the_configuration_is_read_back_equal(run: Run, tmp_path: Path) -> None:
    """One seed: the very configuration. Several: one that stands for the same members."""
    saved = load_config(place(run) / "config.toml")
    assert saved.seeds == (3, 11)
    assert expand_seeds(saved) == expand_seeds(run[0])
    alone = config(seed=4)
    train([alone], tmp_path / "run")
    assert load_config(tmp_path / "run" / "config.toml") == alone


def test_members_that_differ_have_configurations_of_their_own(tmp_path: Path) -> None:
    configs = [config(seed=2), config(seed=2, optimizer={"name": "sgd", "lr": 0.1})]
    train(configs, tmp_path / "run")
    names = ("0000-seed-2", "0001-seed-2")
    assert [load_config(tmp_path / "run" / name / "config.toml") for name in names] == configs
    again = evaluate_run(tmp_path / "run", episodes=3)
    members = json.loads((tmp_path / "run" / "result.json").read_text())["members"]
    assert [row["return_mean"] for row in again.table] == [row["return_mean"] for row in members]


def test_the_result_is_the_table_and_its_summary(run: Run) -> None:
    saved = json.loads((place(run) / "result.json").read_text())
    assert saved == {"members": run[1].table, "summary": run[1].summary, "wall_seconds": run[1].wall_seconds}
    assert [row["seed"] for row in saved["members"]] == [3, 11]
    returns = [row["return_mean"] for row in saved["members"]]
    assert saved["summary"]["mean"] == pytest.approx(np.mean(returns))
    assert saved["summary"]["max"] == max(returns)


def test_a_run_is_evaluated_again_from_anywhere(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = place(run).resolve()
    monkeypatch.chdir(tmp_path)
    again = evaluate_run(directory, episodes=5)
    names = ("seed", "return_mean", "return_std", "length_mean")
    assert again.table == [{name: row[name] for name in names} for row in run[1].table]
    assert again.summary == run[1].summary
    assert evaluate_run(directory, episodes=5, seed=1).table != again.table


def test_checkpoints_are_plain_data_with_the_last_parameters(run: Run) -> None:
    directory = place(run) / "checkpoints"
    assert len(list(directory.glob("step-*.pt"))) == 2
    saved = torch.load(latest(directory), weights_only=True)
    params = {}
    for part in saved["workers"][0]["parts"]:
        for row, member in enumerate(part["members"].tolist()):
            params[member] = take_tree(part["params"], torch.tensor([row]))
            assert part["statistics"]["env_steps"][row] == run[1].table[member]["env_steps"]
            assert part["alive"][row]
    for member in (0, 1):
        for name, leaf in run[1].params.items():
            assert torch.equal(params[member][name][0], leaf[member])


def test_recording_changes_nothing_that_is_learnt(run: Run) -> None:
    unrecorded = train(expand_seeds(run[0]))
    assert unrecorded.table == run[1].table
    assert unrecorded.directory is None
    for name, leaf in run[1].params.items():
        assert torch.equal(unrecorded.params[name], leaf)
