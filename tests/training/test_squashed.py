"""Squashed Gaussians, and deviations that depend on the state, learn with every agent."""

from itertools import product
from typing import Any

import pytest
import torch
from helpers.parameters import few_by_default

from pgkit.config.load import load_config, parse_config, to_table
from pgkit.training.population import build_envs, build_policy
from pgkit.training.train import train

OF_AGENT: dict[str, dict[str, Any]] = {
    "actor-critic": {"rollout_steps": 8, "optimizer": {"name": "adam", "lr": 0.02, "schedule": {"lr": "linear"}}},
    "ppo": {
        "rollout_steps": 16,
        "epochs": 4,
        "minibatches": 4,
        "agent": {"name": "ppo", "normalize_advantage": False},
        "optimizer": {"name": "adam", "lr": 0.005, "schedule": {"lr": "linear"}},
    },
    "reinforce": {"optimizer": {"name": "adam", "lr": 0.02, "schedule": {"lr": "linear"}}},
}


@pytest.mark.parametrize(
    ("agent", "state_dependent_std"),
    few_by_default(product(OF_AGENT, (False, True)), ("ppo", True), ("reinforce", False)),
)
def test_the_best_action_within_the_bounds_is_found(agent: str, state_dependent_std: bool) -> None:
    table = {
        "name": "target",
        "steps": 6_000,
        "seeds": 2,
        "envs_per_member": 8,
        "env": {"id": "helpers.probes:ProbeTarget-v0"},
        "agent": {"name": agent, "entropy_coef": 0.001},
        "policy": {"hidden": [16], "squash_output": True, "state_dependent_std": state_dependent_std, "log_std": -0.5},
        "evaluation": {"points": 0, "final_episodes": 20, "deterministic": True},
    }
    config = parse_config(table | OF_AGENT[agent])
    result = train(config)
    policy = build_policy(config, build_envs(config, 1, torch.device("cpu")).info)
    outputs = policy.outputs(result.params, torch.tensor([[1.0], [-1.0]]).expand(2, 2, 1))
    best = 2 + torch.tanh(policy.head.mode(outputs)).squeeze(-1)
    torch.testing.assert_close(best, torch.tensor([2.5, 1.5]).expand(2, 2), rtol=0, atol=0.15)
    assert all(row["return_mean"] > -0.03 for row in result.table)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adam", "rmsprop", "npg"])
@pytest.mark.parametrize("state_dependent_std", [False, True])
def test_pendulum_improves(state_dependent_std: bool, optimizer: str) -> None:
    """The random policy returns about -1200."""
    table = to_table(load_config("pendulum-ppo")) | {"steps": 100_000, "evaluation": {"points": 0}, "seeds": 2}
    table["policy"] = {"squash_output": True, "state_dependent_std": state_dependent_std}
    rates = {"adam": 1e-3, "rmsprop": 5e-4, "npg": 0.1}
    table["optimizer"] = {"name": optimizer, "lr": rates[optimizer], "max_grad_norm": 0.5}
    if optimizer == "npg":
        table |= {"epochs": 1, "minibatches": 1, "rollout_steps": 128}
        table["optimizer"] = {"name": "npg", "lr": rates["npg"], "critic": {"name": "adam", "lr": 3e-3}}
    result = train(parse_config(table))
    assert min(row["return_mean"] for row in result.table) > -1000
