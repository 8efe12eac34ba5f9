"""Small tabular decision processes whose policy gradient is known exactly, and all that can happen in them.

Two ways to the same number, with nothing in common: dynamic programming (NumPy, from transition probabilities), and
the enumeration of every possible strip of steps with its probability (torch tensors, as an agent would see them).
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pgkit.losses import policy_gradient_loss
from pgkit.returns import EpisodeEnds
from pgkit.types import Rollout

Array = NDArray[np.float64]

THETA = np.random.default_rng(3).normal(scale=0.4, size=(4, 2))
WRONG = np.random.default_rng(4).normal(scale=3.0, size=4)  # a critic that knows nothing


class Mdp(NamedTuple):
    """S states and, with index S, the end; A actions. Everything is chosen so that no two numbers are alike."""

    start: Array  # (S,) probabilities of the first state
    transition: Array  # (S, A, S + 1) probabilities of what follows
    reward: Array  # (S, A, S + 1)


def ladder(states: int = 3, seed: int = 5) -> Mdp:
    """Every step leads to a higher state or to the end: episodes terminate after 1 to ``states`` steps."""
    rng = np.random.default_rng(seed)
    transition = np.zeros((states, 2, states + 1))
    for state in range(states):
        transition[state, :, state + 1 :] = rng.dirichlet(np.ones(states - state), 2)
    start = np.array([0.7, 0.3] + [0.0] * (states - 2))
    return Mdp(start, transition, rng.normal(1.0, 2.0, transition.shape))


def loop(ending: bool, seed: int = 5) -> Mdp:
    """Two states that lead to each other; a step ends the task with some probability if ``ending``, else never."""
    rng = np.random.default_rng(seed)
    transition = rng.dirichlet(np.ones(3), (2, 2))
    if not ending:
        transition[..., 2] = 0.0
        transition /= transition.sum(-1, keepdims=True)
    return Mdp(np.array([0.6, 0.4]), transition, rng.normal(1.0, 2.0, transition.shape))


def softmax(theta: Array) -> Array:
    """The policy ``(S, A)`` of the parameters ``(S, A)``."""
    exponentials = np.exp(theta - theta.max(1, keepdims=True))
    return exponentials / exponentials.sum(1, keepdims=True)


def true_values(mdp: Mdp, policy: Array, gamma: float) -> tuple[Array, Array]:
    """V ``(S,)`` and Q ``(S, A)`` without any time limit, by solving Bellman's equation."""
    states = len(mdp.start)
    mean_reward = (mdp.transition * mdp.reward).sum(-1)
    moves = np.einsum("sa,saz->sz", policy, mdp.transition[..., :states])
    value = np.linalg.solve(np.eye(states) - gamma * moves, (policy * mean_reward).sum(1))
    return value, mean_reward + gamma * mdp.transition[..., :states] @ value


def values_to_go(mdp: Mdp, policy: Array, gamma: float, horizon: int) -> list[Array]:
    """Q ``(S, A)`` at the times 0 ... horizon - 1, when nothing counts after the horizon, by backward induction."""
    states = len(mdp.start)
    mean_reward = (mdp.transition * mdp.reward).sum(-1)
    value, q_values = np.zeros(states), []
    for _ in range(horizon):
        q_values.append(mean_reward + gamma * mdp.transition[..., :states] @ value)
        value = (policy * q_values[-1]).sum(1)
    return q_values[::-1]


def occupancy(mdp: Mdp, policy: Array, steps: int, limit: int | None = None, resets: bool = False) -> Array:
    """``(steps, clock, S)``: the probability that row t is step number ``clock`` of an episode, in this state.

    Episodes are cut after ``limit`` steps. With ``resets``, the row after an episode's end is none and the next
    one begins; otherwise nothing follows.
    """
    states = len(mdp.start)
    moves = np.einsum("sa,saz->sz", policy, mdp.transition)
    current = np.zeros((steps + 1, states))
    current[0], resetting, rows = mdp.start, 0.0, []
    for _ in range(steps):
        rows.append(current[:steps].copy())
        after = current @ moves
        ended = after[:, states].sum()
        ahead = np.zeros_like(current)
        ahead[1:] = after[:-1, :states]
        if limit is not None:
            ended += ahead[limit].sum()
            ahead[limit:] = 0.0
        if resets:
            ahead[0] += resetting * mdp.start
        current, resetting = ahead, ended
    return np.stack(rows)


def gradient_of(policy: Array, weight: Array, q_values: Array) -> Array:
    """``sum_s weight(s) sum_a pi(a|s) grad log pi(a|s) Q(s, a)`` in the parameters ``(S, A)`` of the softmax."""
    value = (policy * q_values).sum(1, keepdims=True)
    return weight[:, None] * policy * (q_values - value)


def objective(mdp: Mdp, theta: Array, gamma: float, horizon: int | None) -> float:
    """The expected discounted return from the start, up to the horizon if there is one."""
    policy = softmax(theta)
    if horizon is None:
        return float(mdp.start @ true_values(mdp, policy, gamma)[0])
    return float(mdp.start @ (policy * values_to_go(mdp, policy, gamma, horizon)[0]).sum(1))


class Strips(NamedTuple):
    """M strips of T steps, all that can happen; tensors ``(T, M)`` except ``probability``."""

    probability: Tensor  # (M,) float64, adds up to one
    state: Tensor  # int64; S is the end
    action: Tensor  # int64
    reward: Tensor  # float64
    next_state: Tensor  # int64
    terminated: Tensor
    truncated: Tensor
    valid: Tensor


def enumerate_strips(mdp: Mdp, policy: Array, steps: int, limit: int | None = None, resets: bool = False) -> Strips:
    """Every strip with a positive probability. ``limit`` and ``resets`` as in :func:`occupancy`."""
    strips = list(_continue(mdp, policy, steps, limit, resets, state=-1, clock=0))
    probability = torch.tensor([chance for chance, _ in strips], dtype=torch.float64)
    rows = torch.tensor([rows for _, rows in strips], dtype=torch.float64)  # (M, T, fields)
    state, action, reward, next_state, terminated, truncated, valid = rows.permute(2, 1, 0).contiguous()
    ends = (terminated.bool(), truncated.bool(), valid.bool())
    return Strips(probability, state.long(), action.long(), reward, next_state.long(), *ends)


Row = tuple[int, int, float, int, bool, bool, bool]


def _continue(
    mdp: Mdp, policy: Array, steps: int, limit: int | None, resets: bool, state: int, clock: int, over: bool = False
) -> Iterator[tuple[float, list[Row]]]:
    """Probability and rows of what can follow; state -1 is before an episode, ``over`` at the row after its end."""
    if steps == 0:
        yield 1.0, []
    elif over:
        none = (state, 0, float("nan"), state, False, False, False)
        for chance, rows in _continue(mdp, policy, steps - 1, limit, resets, -1 if resets else state, 0, not resets):
            yield chance, [none, *rows]
    elif state < 0:
        for first in np.flatnonzero(mdp.start).tolist():
            for chance, rows in _continue(mdp, policy, steps, limit, resets, first, 0):
                yield float(mdp.start[first]) * chance, rows
    else:
        for action, after in np.argwhere(mdp.transition[state] > 0).tolist():
            terminated = after == len(mdp.start)
            truncated = not terminated and clock + 1 == limit
            row = (state, action, float(mdp.reward[state, action, after]), after, terminated, truncated, True)
            chance = float(policy[state, action] * mdp.transition[state, action, after])
            over = terminated or truncated
            for further, rows in _continue(mdp, policy, steps - 1, limit, resets, after, clock + 1, over):
                yield chance * further, [row, *rows]


class Population(NamedTuple):
    """Everything that can happen to N environments at once, one combination of strips for each member ``(P,)``."""

    probability: Tensor  # (P,)
    state: Tensor  # (T, P, N), as all that follow
    action: Tensor
    reward: Tensor
    next_state: Tensor
    ends: EpisodeEnds

    def values(self, of_state: Array, of_end: float = float("nan")) -> tuple[Tensor, Tensor]:
        """``value`` and ``next_value``; the end's is NaN, because nobody may use it."""
        table = torch.from_numpy(np.append(of_state, of_end))
        return table[self.state], table[self.next_state]


def as_rollout(population: Population, states: int) -> Rollout:
    """What an agent would be given: one-hot observations, zeros for the end."""
    seen = torch.cat([population.state, population.next_state[-1:]])
    obs = torch.nn.functional.one_hot(seen, states + 1)[..., :states].double()
    return Rollout(obs, population.action, population.reward.nan_to_num(), *population.ends)


def jointly(strips: Strips, count: int = 1) -> Population:
    """N = ``count`` independent environments, every combination of strips as a member."""
    total = len(strips.probability)
    chosen = torch.cartesian_prod(*[torch.arange(total)] * count).view(-1, count)
    columns = [column[:, chosen] for column in strips[1:]]
    return Population(strips.probability[chosen].prod(1), *columns[:4], EpisodeEnds(*columns[4:]))


def expected_gradient(theta: Array, population: Population, advantage: Tensor) -> Array:
    """``E[mean over episodes of sum_t grad log pi(a_t|s_t) advantage_t]`` in the parameters, by the loss agents use."""
    leaf = torch.from_numpy(theta).requires_grad_()
    states, count = len(theta), advantage.shape[2]
    log_probs = torch.log_softmax(leaf, 1)[population.state.clamp(max=states - 1), population.action]
    log_prob, weight, valid = (x.transpose(0, 1).flatten(1) for x in (log_probs, advantage, population.ends.valid))
    loss = policy_gradient_loss(log_prob, weight * valid.sum(1, keepdim=True) / count, valid)
    (gradient,) = torch.autograd.grad(-(population.probability * loss).sum(), leaf)
    return gradient.numpy()


def theta_of(mdp: Mdp) -> Array:
    """The parameters at which everything is compared."""
    return THETA[: len(mdp.start)].copy()


def policy_of(mdp: Mdp) -> Array:
    return softmax(theta_of(mdp))


def whole_episodes(mdp: Mdp, count: int = 1) -> Population:
    """Rollouts as long as the longest episode of a ladder."""
    return jointly(enumerate_strips(mdp, policy_of(mdp), len(mdp.start)), count)


def exact(mdp: Mdp, steps: int, gamma: float, discounted: bool) -> Array:
    """The gradient of the discounted return, or (not discounted) the sum over visits of grad log pi * Q."""
    policy = policy_of(mdp)
    clocks = occupancy(mdp, policy, steps).sum(0)
    factors = gamma ** np.arange(steps) if discounted else np.ones(steps)
    return gradient_of(policy, factors @ clocks, true_values(mdp, policy, gamma)[1])


def assert_unbiased(estimate: Array, truth: Array) -> None:
    np.testing.assert_allclose(estimate, truth, rtol=0, atol=1e-10)
    assert np.abs(truth).max() > 0.01  # or equality would say nothing


def assert_biased(estimate: Array, truth: Array) -> None:
    assert np.abs(truth).max() > 0.01
    assert np.abs(estimate - truth).max() > 0.01 * np.abs(truth).max()


def cosine(a: Array, b: Array) -> float:
    return float((a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b))
