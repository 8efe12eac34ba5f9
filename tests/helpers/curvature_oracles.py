"""Returns whose curvature is known: two locks, a saddle; and DiCE, one function with all derivatives of the return."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from helpers import tabular
from pgkit.diagnose.curvature import EpisodeSamples, episode_samples, step_weights
from pgkit.diagnose.vectors import actor_names, flatten_params, unflatten
from pgkit.nn.distributions import bernoulli, categorical
from pgkit.nn.policy import Policy
from pgkit.types import Params, Rollout


class Task(NamedTuple):
    """A policy, its parameters ``(1, ...)``, all that can happen, and how likely that is, float64 ``(P, 1)``."""

    policy: Policy
    params: Params
    rollout: Rollout
    probability: Tensor
    axes: Tensor  # (2, D), the two parameters among all of the policy


LOCKS = tabular.Mdp(
    start=np.array([1.0, 0.0]),
    transition=np.array([[[0.0, 0.0, 1.0], [0.0, 1.0, 0.0]], [[0.0, 0.0, 1.0], [0.0, 0.0, 1.0]]]),
    reward=np.array([[[0.3, 0.3, 0.3], [0.0, 0.0, 0.0]], [[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]]]),
)
"""Action 0 pays .3 and ends; action 1 leads to the second state, where action 1 pays 1 and action 0 nothing."""


def two_locks(theta: tuple[float, float] = (0.0, 0.0)) -> Task:
    """The three episodes, each as a copy of its own; P(1|s) = sigmoid(theta_s)."""
    table = np.array([[0.0, theta[0]], [0.0, theta[1]]])
    strips = tabular.enumerate_strips(LOCKS, tabular.softmax(table), 2)
    population = tabular.jointly(strips)
    policy = Policy(2, categorical(2), hidden=(), critic_hidden=())
    params = {
        "actor.0.weight": torch.from_numpy(table).unsqueeze(0),
        "actor.0.bias": torch.zeros(1, 1, 2, dtype=torch.float64),
        "critic.0.weight": torch.ones(1, 2, 1, dtype=torch.float64),
        "critic.0.bias": torch.zeros(1, 1, 1, dtype=torch.float64),
    }
    axes = torch.eye(6, dtype=torch.float64)[[1, 3]]  # the weights of action 1
    rollout = tabular.as_rollout(population, 2)
    return Task(policy, params, rollout, population.probability.unsqueeze(1), axes)


def exact_values(task: Task, gamma: float = 1.0) -> Tensor:
    """V of the two locks' states at each step, ``(T, P, N)``."""
    second = torch.sigmoid(task.params["actor.0.weight"][0, 1, 1])
    first = torch.sigmoid(task.params["actor.0.weight"][0, 0, 1])
    start = (1 - first) * 0.3 + first * gamma * second
    return torch.stack([start, second]).view(2, 1, 1).expand(task.rollout.valid.shape)


def enumerated(task: Task, gamma: float = 1.0, baseline: Tensor | None = None) -> EpisodeSamples:
    """All episodes, weighted by their probabilities, so that means over episodes are expectations."""
    baseline = torch.zeros_like(task.rollout.reward) if baseline is None else baseline
    weight = step_weights(task.rollout, gamma, baseline)
    return episode_samples(task.policy, task.rollout, weight * task.probability * task.probability.numel())


def saddle(actions: Tensor, at: tuple[float, float] = (0.0, 0.0)) -> Task:
    """One state, one step, reward = action (int64 ``(N,)``); the logit is tanh(x) y, to third order x y."""
    policy = Policy(1, bernoulli(1), hidden=(1,), critic_hidden=())
    zero = torch.zeros(1, 1, 1, dtype=torch.float64)
    params = {
        "actor.0.weight": zero + at[0],
        "actor.0.bias": zero,
        "actor.1.weight": zero + at[1],
        "actor.1.bias": zero,
    }
    flags = torch.ones(1, 1, len(actions), dtype=torch.bool)
    obs = torch.ones(2, 1, len(actions), 1, dtype=torch.float64)
    action = actions.view(1, 1, -1, 1)
    rollout = Rollout(obs, action, action[..., 0].double(), flags, ~flags, flags)
    return Task(policy, params, rollout, torch.ones(1, 1), torch.eye(4, dtype=torch.float64)[[0, 2]])


def dice(policy: Policy, params: Params, samples: EpisodeSamples, vector: Tensor) -> Tensor:
    """``mean over episodes of sum_t w_t (box_t - box_{t-1})``, ``box_t = exp(L_t - stop(L_t))``, at ``vector (D,)``."""
    log_prob = log_probs(policy, params, samples, vector)
    total = log_prob.new_zeros(())
    for number in range(samples.count):
        steps = samples.episode == number
        running = log_prob[steps].cumsum(0)
        box = (running - running.detach()).exp()
        earlier = torch.cat([torch.ones_like(box[:1]), box[:-1]])
        total = total + (samples.weight[steps] * (box - earlier)).sum()
    return total / samples.count


def log_probs(policy: Policy, params: Params, samples: EpisodeSamples, vector: Tensor) -> Tensor:
    """Log-probabilities of all steps, ``(S,)``, as a function of flat parameters that can be differentiated twice."""
    like = {name: params[name].double() for name in actor_names(params)}
    leaves = unflatten(vector.unsqueeze(0), like)
    obs = samples.batch.obs.double()
    return policy.head.log_prob(policy.outputs(leaves, obs), samples.batch.action)[0, samples.index]


def flat_actor(params: Params) -> Tensor:
    """The vector ``(D,)`` at which the policy stands."""
    return flatten_params(params, actor_names(params))[0]
