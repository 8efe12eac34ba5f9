"""Masked policies in training: they learn, and keep to the masks, whatever trains beside them.

The environment raises if an excluded action is taken.
"""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.compile_mode import set_compile_mode
from helpers.masked_envs import MASKED
from helpers.parameters import few_by_default
from typer.testing import CliRunner

from pgkit.cli import app
from pgkit.config.load import load_config, parse_config, to_toml
from pgkit.config.schema import TrainConfig
from pgkit.rollouts.statistics import member_statistics
from pgkit.training.evaluate_run import evaluate_run
from pgkit.training.loop import update
from pgkit.training.population import build
from pgkit.training.result import TrainResult
from pgkit.training.train import train

OF_AGENT: dict[str, dict[str, Any]] = {
    "actor-critic": {"rollout_steps": 8},
    "ppo": {"rollout_steps": 16, "epochs": 3, "minibatches": 4},
    "reinforce": {},
}
BEST = {"discrete": 3 * 0.75, "multi": 3 * 1.75}
"""Mean return of the best policy: of three rewards, half are 1, half 0.5; the second component earns 1 more."""


def config(agent: str = "ppo", env: dict[str, Any] | None = None, **changes: Any) -> TrainConfig:
    table = {
        "name": "masked",
        "steps": 2_000,
        "envs_per_member": 8,
        "env": {"id": MASKED, **(env or {})},
        "agent": {"name": agent, "entropy_coef": 0.01},
        "policy": {"hidden": [16]},
        "optimizer": {"name": "adam", "lr": 0.02},
        "evaluation": {"points": 2, "episodes": 4, "final_episodes": 200, "greedy": True},
    }
    return parse_config(table | OF_AGENT[agent] | changes)


@pytest.mark.parametrize("actions", BEST)
@pytest.mark.parametrize("agent", few_by_default(OF_AGENT, "ppo"))
def test_the_best_allowed_action_is_learnt(agent: str, actions: str) -> None:
    result = train(config(agent, {"kwargs": {"actions": actions}}, seeds=2, steps=4_000))
    assert all(row["return_mean"] > 0.9 * BEST[actions] for row in result.table)
    assert not any(row["failed"] for row in result.table)


@pytest.mark.parametrize(("optimizer", "shared"), [("npg", False), ("rmsprop", True), ("torch.optim:Adam", False)])
def test_with_every_optimizer_and_a_shared_trunk(optimizer: str, shared: bool) -> None:
    changes: dict[str, Any] = {"optimizer": {"name": optimizer, "lr": 0.01}}
    if optimizer == "npg":
        changes |= {"optimizer": {"name": "npg", "lr": 0.1, "critic": {"name": "adam"}}, "epochs": 1, "minibatches": 1}
    result = train(config(policy={"hidden": [16], "shared": shared}, **changes))
    assert not result.table[0]["failed"]
    assert result.table[0]["return_mean"] > 0.5 * BEST["discrete"]


def params_of(result: TrainResult, member: int) -> list[torch.Tensor]:
    return [leaf[member] for leaf in result.params.values()]


@pytest.mark.parametrize("vectorization", ["sync", pytest.param("async", marks=pytest.mark.process)])
@pytest.mark.parametrize("agent", few_by_default(OF_AGENT, "ppo"))
def test_a_member_alone_has_the_same_bits(agent: str, vectorization: str) -> None:
    env = {"normalize_observations": agent != "ppo", "vectorization": vectorization}
    short: dict[str, Any] = {"steps": 500, "evaluation": {"points": 1, "episodes": 2, "final_episodes": 3}}
    together = train(config(agent, env, seeds=3, **short))
    for seed in (0, 2):
        alone = train(config(agent, env | {"vectorization": "sync"}, seed=seed, **short))
        pairs = zip(params_of(alone, 0), params_of(together, seed), strict=True)
        assert all(torch.equal(one, other) for one, other in pairs)
        assert alone.table[0]["return_mean"] == together.table[seed]["return_mean"]
    assert not torch.equal(params_of(together, 0)[0], params_of(together, 1)[0])


def test_statistics_of_observations_leave_masks_alone() -> None:
    population = build([config("actor-critic", {"normalize_observations": True})])
    for _ in range(3):
        update(population)
    assert population.collector.state.obs_stats["mean"].shape == (1, 1)
    (rollout,) = population.collect()
    assert set(rollout.rollout.obs[..., 1:].unique().tolist()) == {0.0, 1.0}
    assert rollout.rollout.obs[..., 0].abs().max() != 1
    assert member_statistics(population.collector.state.counts).env_steps.item() > 0


@pytest.mark.parametrize("mode", ["kernels", "off"])
def test_every_mode_keeps_to_the_masks(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    set_compile_mode(monkeypatch, mode)
    assert not train(config(steps=800)).table[0]["failed"]


def test_a_wrong_mask_ends_a_run_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "masked.toml").write_text(to_toml(config(env={"kwargs": {"fault": "empty"}})))
    result = CliRunner().invoke(app, ["train", str(tmp_path / "masked.toml"), "--out", str(tmp_path / "run"), "-q"])
    assert result.exit_code == 1
    assert "Traceback" not in result.output
    text = " ".join(result.output.split())
    assert "at step 2: info['action_mask'] allows no action, expected at least one 1: [0, 0, 0, 0]" in text


def test_the_header_says_that_there_are_masks_and_evaluations_keep_to_them(tmp_path: Path) -> None:
    (tmp_path / "masked.toml").write_text(to_toml(config(steps=500)))
    run = tmp_path / "run"
    result = CliRunner().invoke(app, ["train", str(tmp_path / "masked.toml"), "--out", str(run)])
    assert result.exit_code == 0, result.output
    assert "masked by info['action_mask'] (env.action_mask=false" in " ".join(result.output.split())
    for deterministic in (False, True):
        assert evaluate_run(run, episodes=20, deterministic=deterministic).table[0]["return_mean"] > 0


def test_the_example_of_the_readme_is_learnt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the five places in equal numbers it takes three steps on average."""
    page = (Path(__file__).parents[2] / "pgkit" / "envs" / "README.md").read_text(encoding="utf-8")
    (example,) = (code for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "action_mask" in code)
    (tmp_path / "corridor.py").write_text(example)
    monkeypatch.syspath_prepend(tmp_path)
    changes = ["env.id=corridor:Corridor-v0", "steps=8000", "evaluation.points=0"]
    config = load_config("cartpole-ppo", changes)
    population = build([config])
    assert population.collector.state.obs.shape == (1, 8, 1 + 2)
    population.collector.envs.close()
    assert -3.5 < train(config).table[0]["return_mean"] < -2.5


def test_a_key_without_effect_is_refused(tmp_path: Path) -> None:
    (tmp_path / "plain.toml").write_text(to_toml(config(env={"kwargs": {"place": "none"}, "action_mask": False})))
    result = CliRunner().invoke(app, ["train", str(tmp_path / "plain.toml"), "--out", str(tmp_path / "run")])
    assert result.exit_code == 2
    assert f"env.action_mask = false has no effect: {MASKED} gives no action masks" in " ".join(result.output.split())
