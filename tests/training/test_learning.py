"""All agents learn probe environments with known answers, every seed of a small population."""

import pytest
import torch
from torch import Tensor

from pgkit.config.load import parse_config
from pgkit.training.build_policy import build_policy
from pgkit.training.population import build_envs
from pgkit.training.train import train

pytestmark = pytest.mark.slow

GAMMA = 0.9
SEEDS = 4
AGENTS = ("actor-critic", "ppo", "reinforce")

OF_AGENT = {
    "actor-critic": {"rollout_steps": 5},
    "ppo": {"rollout_steps": 16, "epochs": 4, "minibatches": 4},
    "reinforce": {},
}


def learn(agent: str, probe: str, limit: int | None = None, steps: int = 8_000) -> tuple[Tensor, Tensor]:
    """Values ``(P, 2)`` and probabilities of action 1 ``(P, 2)`` at observations 1 and -1 (Delayed: 1 and 0)."""
    table = {
        "name": "probe",
        "steps": steps,
        "envs_per_member": 8,
        "env": {"id": f"helpers.probes:Probe{probe}-v0"} | ({} if limit is None else {"max_episode_steps": limit}),
        "agent": {"name": agent, "gamma": GAMMA},
        "policy": {"hidden": [16]},
        "optimizer": {"name": "adam", "lr": 0.02},
        "evaluation": {"points": 0, "episodes": 1, "final_episodes": 1},
    }
    table |= OF_AGENT[agent]
    configs = [parse_config(table | {"seed": seed}) for seed in range(SEEDS)]
    result = train(configs)
    policy = build_policy(configs[0], build_envs(configs[0], 1, torch.device("cpu")).info)
    obs = torch.tensor([[1.0], [0.0 if probe == "Delayed" else -1.0]]).expand(SEEDS, 2, 1)
    with torch.no_grad():
        outputs, values = policy.outputs(result.params, obs), policy.value(result.params, obs)
    return values, outputs.softmax(-1)[..., 1]


@pytest.mark.parametrize("agent", AGENTS)
def test_the_value_of_a_constant_reward_is_learnt(agent: str) -> None:
    values, _ = learn(agent, "Constant")
    assert (values[:, 0] - 1).abs().max() < 0.05


@pytest.mark.parametrize("agent", AGENTS)
def test_the_value_depends_on_the_observation(agent: str) -> None:
    values, _ = learn(agent, "Obs")
    assert (values - torch.tensor([1.0, -1.0])).abs().max() < 0.1


@pytest.mark.parametrize("agent", AGENTS)
def test_a_delayed_reward_is_discounted(agent: str) -> None:
    values, _ = learn(agent, "Delayed")
    assert (values - torch.tensor([1.0, GAMMA])).abs().max() < 0.05


@pytest.mark.parametrize("agent", AGENTS)
def test_the_better_action_is_found(agent: str) -> None:
    _, probability = learn(agent, "Action")
    assert probability[:, 0].min() > 0.95


@pytest.mark.parametrize("agent", AGENTS)
def test_the_better_action_depends_on_the_observation(agent: str) -> None:
    _, probability = learn(agent, "Match", steps=16_000)
    assert probability[:, 0].min() > 0.9
    assert probability[:, 1].max() < 0.1


@pytest.mark.parametrize("agent", ["actor-critic", "ppo"])
def test_only_bootstrapping_at_truncation_gives_the_value_of_an_endless_task(agent: str) -> None:
    """Reward 1 for ever, cut every 5 steps: V = 1 / (1 - gamma) = 10. Without bootstrapping, at most 4.1."""
    values, _ = learn(agent, "Endless", limit=5, steps=40_000)
    assert (values[:, 0] - 1 / (1 - GAMMA)).abs().max() < 0.5
