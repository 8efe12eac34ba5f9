"""The agents' own code, targets and loss, against the exact policy gradient of a small decision process."""

from types import ModuleType
from typing import Literal

import pytest
import torch
from helpers import tabular
from helpers.tabular import (
    WRONG,
    Array,
    Mdp,
    Population,
    assert_biased,
    assert_unbiased,
    cosine,
    exact,
    policy_of,
    theta_of,
    whole_episodes,
)
from pgkit.agents import actor_critic, reinforce

from pgkit.nn.distributions import categorical
from pgkit.nn.policy import Policy


def agent_gradient(agent: ModuleType, config: object, mdp: Mdp, population: Population, critic: Array) -> Array:
    """The expectation of minus the gradient that an agent's own code computes, with a linear policy on one-hot states.

    Every member holds the same parameters, and one of all the things that can happen.
    """
    size, states = len(population.probability), len(mdp.start)
    policy = Policy(states, categorical(2), hidden=(), critic_hidden=())
    params = {
        "actor.0.weight": torch.from_numpy(theta_of(mdp)).expand(size, -1, -1).clone().requires_grad_(),
        "actor.0.bias": torch.zeros(size, 1, 2, dtype=torch.float64),
        "critic.0.weight": torch.from_numpy(critic).view(1, states, 1).expand(size, -1, -1),
        "critic.0.bias": torch.zeros(size, 1, 1, dtype=torch.float64),
    }
    with torch.no_grad():
        batch = agent.targets(policy, params, tabular.as_rollout(population, states), config)
    loss, _ = agent.loss(policy, params, batch, config)
    (gradient,) = torch.autograd.grad(loss.sum(), params["actor.0.weight"])
    return -(gradient * population.probability[:, None, None]).sum(0).numpy()


@pytest.mark.parametrize("baseline", ["none", "leave_one_out", "value"])
@pytest.mark.parametrize("whole", [False, True], ids=["reward-to-go", "full"])
def test_reinforce(whole: bool, baseline: Literal["none", "leave_one_out", "value"]):
    mdp = tabular.ladder()
    returns = "full" if whole else "reward_to_go"
    config = reinforce.Config(gamma=0.8, returns=returns, baseline=baseline, average="episode")
    population = whole_episodes(mdp, 2)
    truth = exact(mdp, 3, 0.8, discounted=whole)
    assert_unbiased(agent_gradient(reinforce, config, mdp, population, WRONG[:3]), truth)
    biased = config.model_copy(update={"average": "step"})
    assert cosine(agent_gradient(reinforce, biased, mdp, population, WRONG[:3]), truth) < 0.999


@pytest.mark.parametrize("lam", [0.0, 0.6, 1.0])
def test_actor_critic_with_the_true_critic(lam: float):
    mdp, steps, gamma = tabular.loop(ending=False), 4, 0.8  # every row is a step: a mean over samples has no bias
    policy = policy_of(mdp)
    population = tabular.jointly(tabular.enumerate_strips(mdp, policy, steps))
    value, q_values = tabular.true_values(mdp, policy, gamma)
    truth = tabular.gradient_of(policy, tabular.occupancy(mdp, policy, steps).sum((0, 1)) / steps, q_values)
    config = actor_critic.Config(gamma=gamma, lam=lam)
    assert_unbiased(agent_gradient(actor_critic, config, mdp, population, value), truth)
    assert_biased(agent_gradient(actor_critic, config, mdp, population, WRONG[:2]), truth)
