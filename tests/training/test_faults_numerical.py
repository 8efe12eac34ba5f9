"""Numbers that are not finite: their member is frozen and told apart, its neighbours keep their bits."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.parameters import few_by_default
from torch import Tensor
from typer.testing import CliRunner

from pgkit.cli import app
from pgkit.config.load import parse_config, to_toml
from pgkit.config.schema import TrainConfig
from pgkit.logging import read_metrics
from pgkit.optim.update import finish
from pgkit.runs.checkpoint import load_latest
from pgkit.seeding import stream_seed
from pgkit.training import failures
from pgkit.training.evaluate_run import evaluate_run
from pgkit.training.loop import gradient, update
from pgkit.training.population import build
from pgkit.training.result import TrainResult
from pgkit.training.train import train

ADAM = {"name": "adam", "lr": 0.01}
CHOSEN = {"remainder": stream_seed(1, "env", 2) % 10007}
"""Of ``Faulty-v0``: environment 2 of seed 1 breaks."""


def config(
    agent: str = "actor-critic", seed: int = 1, env: dict[str, Any] | None = None, **changes: Any
) -> TrainConfig:
    """A short run; at 4 environments and 8 steps a rollout, step 40 lies in its sixth update (resets take steps)."""
    table: dict[str, Any] = {
        "name": "faulty",
        "seed": seed,
        "steps": 600,
        "envs_per_member": 4,
        "env": {"id": "helpers.faulty_envs:Faulty-v0"} | (env or {}),
        "agent": {"name": agent},
        "policy": {"hidden": [16]},
        "optimizer": ADAM,
        "evaluation": {"points": 0, "final_episodes": 3},
    }
    return parse_config(table | ({"rollout_steps": 8} if agent == "actor-critic" else {}) | changes)


def check(configs: list[TrainConfig], directory: Path | None = None) -> tuple[TrainResult, str]:
    """Member 1 fails, its numbers are finite, and the others have the bits that they have without it."""
    result = train(configs, directory)
    assert [row["failed"] for row in result.table] == [False, True, False]
    assert 0 < result.table[1]["env_steps"] < configs[1].steps
    assert all(leaf.isfinite().all() for leaf in result.params.values())
    assert all(leaf.isfinite().all() for leaf in result.obs_stats.values())
    assert math.isfinite(result.table[1]["return_mean"])
    without = train([configs[0], configs[2]])
    assert [result.table[0], result.table[2]] == without.table
    for whole, rest in ((result.params, without.params), (result.obs_stats, without.obs_stats)):
        for name, leaf in rest.items():
            assert torch.equal(whole[name][[0, 2]], leaf), name
    (reason,) = result.reasons.values()
    return result, reason


FAULTS = {
    "reward nan": "reward = nan, environment 2, step ",
    "reward inf": "reward = inf, environment 2, step ",
    "reward -inf": "reward = -inf, environment 2, step ",
    "reward 1e300": "reward = inf, environment 2, step ",
    "obs nan": "observation = nan, environment 2, step ",
    "obs inf": "observation = ",  # times a random number: of either sign
}


@pytest.mark.parametrize(
    ("agent", "scaled"),
    few_by_default(product(("actor-critic", "reinforce"), (False, True)), ("actor-critic", False), ("reinforce", True)),
)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_number_of_an_environment(fault: str, agent: str, scaled: bool) -> None:
    kwargs = CHOSEN | {"fault": fault}
    env = {"kwargs": kwargs, "normalize_observations": scaled, "normalize_rewards": scaled}
    _, reason = check([config(agent, seed, env) for seed in range(3)])
    assert reason.startswith(FAULTS[fault])
    assert "environment 2, step " in reason


def test_the_step_is_the_one(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    env = {"kwargs": CHOSEN | {"fault": "reward nan", "at": 3}}
    result, reason = check([config(seed=seed, env=env) for seed in range(3)], tmp_path / "run")
    assert reason == "reward = nan, environment 2, step 2 of its rollout"
    assert f"seed 1 failed before step 28: first non-finite number: {reason}\n" in capsys.readouterr().err
    members = json.loads((tmp_path / "run" / "result.json").read_text())["members"]
    assert [row.get("reason") for row in members] == [None, reason, None]
    assert result.table[1]["env_steps"] == 28  # 4 environments, 8 steps, of which one is a reset
    saved = load_latest(tmp_path / "run" / "checkpoints")
    assert all(leaf.isfinite().all() for part in saved["workers"][0]["parts"] for leaf in part["params"].values())
    assert [row["return_mean"] for row in evaluate_run(tmp_path / "run", episodes=3).table] == [
        row["return_mean"] for row in result.table
    ]


def test_float32_overflows_in_a_return() -> None:
    env = {"kwargs": CHOSEN | {"fault": "reward 3e38", "at": 37}}
    _, reason = check([config("reinforce", seed, env) for seed in range(3)])
    assert reason == "advantage (an overflow, or the critic's values) = inf"


def test_a_scale_that_overflows_is_told_from_a_reward_that_is_none() -> None:
    env = {"kwargs": CHOSEN | {"fault": "reward 1e38"}, "reward_scale": 100.0}
    _, reason = check([config(seed=seed, env=env) for seed in range(3)])
    assert reason == "scaled reward = inf"


@pytest.mark.parametrize("agent", ["actor-critic", "reinforce"])
@pytest.mark.parametrize("box", [False, True])
@pytest.mark.parametrize("lr", few_by_default([1e10, 1e20, 1e30, 3e38], 1e10, 3e38))
def test_exploding_rates(agent: str, box: bool, lr: float) -> None:
    """The environment asserts that it never gets an action that is none, in evaluations neither."""
    explosive = {"name": "sgd", "lr": lr, "critic": {"lr": lr}}
    env = {"kwargs": {"box": box}}
    configs = [config(agent, k, env, optimizer=explosive if k == 1 else ADAM) for k in range(3)]
    result = train(configs)
    without = train([configs[0], configs[2]])
    for name, leaf in without.params.items():
        assert torch.equal(result.params[name][[0, 2]], leaf), name
    assert all(leaf.isfinite().all() for leaf in result.params.values())
    assert (1 in result.reasons) == result.table[1]["failed"]
    if lr >= 1e30:
        assert result.table[1]["failed"]


# --- what no environment does: numbers put into one member by hand ---


def broken_update(break_it: Callable[[Any], None], agent: str = "actor-critic", box: bool = False) -> str:
    """Two updates of three members, before the second of which something is done to member 1."""
    population = build([config(agent, seed, {"kwargs": {"box": box}}) for seed in range(3)])
    untouched = build([config(agent, seed, {"kwargs": {"box": box}}) for seed in range(3)])
    update(population), update(untouched)
    break_it(population)
    kept = {name: leaf[1].clone() for name, leaf in population.params.items()}
    update(population), update(untouched)
    assert population.alive.tolist() == [True, False, True]
    for name, leaf in untouched.params.items():
        assert torch.equal(population.params[name][[0, 2]], leaf[[0, 2]]), name
        assert torch.equal(population.params[name][1], kept[name]), name
    reasons = failures.explain(population, [1], gradient)
    return reasons[1]


def set_param(name: str, value: float) -> Callable[[Any], None]:
    def set_it(population: Any) -> None:
        population.params[name][1] = value

    return set_it


def test_a_gaussian_without_width_has_a_log_probability_of_minus_infinity() -> None:
    reason = broken_update(set_param("actor.log_std", -300.0), box=True)
    assert reason in ("log-probability = -inf", "log-probability = nan")  # nan where the action is the mean itself


def test_a_gaussian_beyond_float32_has_no_action() -> None:
    reason = broken_update(set_param("actor.log_std", 300.0), box=True)
    assert reason.startswith("action = ")


def test_an_actor_whose_outputs_overflow() -> None:
    def blow_up(population: Any) -> None:
        population.params["actor.1.weight"][1] = 3e38

    reason = broken_update(blow_up)
    assert reason.startswith("output of the actor = ")


def test_a_minus_infinite_log_probability_freezes_its_member() -> None:
    def certain(population: Any) -> None:
        """Logits so far apart that the other action's probability is 0; then the other action is taken."""
        population.params["actor.1.bias"][1] = torch.tensor([3e38, -3e38])
        head = population.policy.head

        def sample(outputs: Tensor, uniform: Tensor) -> Tensor:
            action = head.sample(outputs, uniform).clone()
            action[1] = 1
            return action

        population.collector.policy = replace(population.policy, head=head._replace(sample=sample))

    reason = broken_update(certain)
    assert reason == "log-probability = -inf"


def test_an_update_that_overflows_is_named_with_its_leaf() -> None:
    """Parameter and update are finite, their sum is not."""

    def overflow(population: Any) -> None:
        inner = population.optimizer

        def too_far(grads: Any, state: Any, params: Any, extra_args: Any, add: bool) -> Any:
            result = inner.step(grads, state, params, extra_args, False)
            result.leaves["actor.1.bias"][1] = 2e38
            return finish(result.leaves, result.state, params, add)

        population.optimizer = replace(inner, step=too_far, transforms=())
        population.params["actor.1.bias"][1] = 2e38

    assert broken_update(overflow) == "update of actor.1.bias = inf"


def test_a_bad_gradient_is_named_with_its_leaf() -> None:
    assert broken_update(spoil_gradient) == "gradient of actor.1.bias = nan"


def spoil_gradient(population: Any) -> None:
    """Member 1 gets a loss with a term that is 0, and whose derivative is 0 / 0."""
    agent = population.agent

    def loss(policy: Any, params: Any, batch: Any, settings: Any) -> Any:
        total, metrics = agent.loss(policy, params, batch, settings)
        zero = (params["actor.1.bias"][1] * 0).sum().sqrt()
        return total + torch.stack([torch.zeros(()), zero, torch.zeros(())]), metrics

    population.agent = SimpleNamespace(Config=agent.Config, collects="steps", targets=agent.targets, loss=loss)


# --- debug_numerics ---


@pytest.mark.parametrize(
    ("fault", "scaled", "workers"),
    [("obs nan", False, 2), *((fault, scaled, 1) for fault in FAULTS for scaled in (False, True))],
)
def test_debug_numerics_stops_at_the_first_bad_number(fault: str, scaled: bool, workers: int, tmp_path: Path) -> None:
    env = {"kwargs": CHOSEN | {"fault": fault}, "normalize_observations": scaled}
    configs = [config(seed=seed, env=env) for seed in range(3)]
    (tmp_path / "faulty.toml").write_text(to_toml(configs[0].model_copy(update={"seeds": 3})))
    words = f"train {tmp_path}/faulty.toml --quiet --debug-numerics --workers {workers} --out {tmp_path}/run"
    done = CliRunner().invoke(app, words.split())
    assert done.exit_code == 1
    assert done.stderr.startswith(f"error: seed 1, before step 160: first non-finite number: {FAULTS[fault]}")
    assert done.stderr.count("\n") == 1
    saved = load_latest(tmp_path / "run" / "checkpoints")["workers"][-1]["parts"][0]
    assert 0 < saved["updates"] < 6  # the last one before the bad update
    assert all(leaf.isfinite().all() for leaf in (*saved["params"].values(), *saved["obs_stats"].values()))


def test_debug_numerics_names_the_operation_behind_a_bad_gradient() -> None:
    population = build([config(seed=seed) for seed in range(3)])
    update(population)
    spoil_gradient(population)
    update(population)
    with pytest.raises(
        failures.BadNumber, match=r"seed 1, .* gradient of actor\.1\.bias = nan \(Function 'MulBackward0'"
    ):
        failures.stop_at_bad_number(population, [config(seed=seed) for seed in range(3)], gradient)


def test_debug_numerics_of_a_sound_run_changes_nothing() -> None:
    configs = [config(agent, seed) for seed in range(2) for agent in ("reinforce",)]
    plain, checked = train(configs), train(configs, debug_numerics=True)
    assert plain.table == checked.table
    assert all(torch.equal(leaf, checked.params[name]) for name, leaf in plain.params.items())


def test_collapsed_entropy_is_no_failure_but_is_seen(tmp_path: Path) -> None:
    result = train([config(optimizer={"name": "sgd", "lr": 1e4, "max_grad_norm": 1.0})], tmp_path / "run")
    assert not result.table[0]["failed"]
    metrics = read_metrics(tmp_path / "run" / "metrics.parquet")
    assert metrics[metrics["tag"] == "policy/entropy"]["value"].iloc[-1] == 0
