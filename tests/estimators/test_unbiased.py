"""Estimators against the exact policy gradient: the expectation over everything that can happen, to 1e-10.

Those that claim to be unbiased are; those that do not are shown not to be, so these tests can fail.
"""

from collections.abc import Callable
from math import comb

import numpy as np
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
from torch import Tensor

from pgkit import returns

GAMMAS = [0.8, 1.0]


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("horizon", [None, 2, 3])
def test_the_exact_gradient_is_that_of_the_objective(gamma: float, horizon: int | None):
    mdp = tabular.ladder() if horizon is None else tabular.loop(ending=True)
    theta, numeric = theta_of(mdp), np.zeros((len(mdp.start), 2))
    for index in np.ndindex(*theta.shape):
        shift = np.zeros_like(theta)
        shift[index] = 1e-5
        high, low = (tabular.objective(mdp, theta + sign * shift, gamma, horizon) for sign in (1, -1))
        numeric[index] = (high - low) / 2e-5
    if horizon is None:
        truth = exact(mdp, len(mdp.start), gamma, discounted=True)
    else:
        truth = time_limited_gradient(mdp, gamma, horizon)
    np.testing.assert_allclose(truth, numeric, rtol=1e-6, atol=1e-9)


def time_limited_gradient(mdp: Mdp, gamma: float, horizon: int, discounted: bool = True) -> Array:
    """When what lies behind the time limit counts as nothing."""
    policy = policy_of(mdp)
    clocks = tabular.occupancy(mdp, policy, horizon).sum(0)
    q_values = tabular.values_to_go(mdp, policy, gamma, horizon)
    factors = gamma ** np.arange(horizon) if discounted else np.ones(horizon)
    return sum(f * tabular.gradient_of(policy, c, q) for f, c, q in zip(factors, clocks, q_values, strict=True))


@pytest.mark.parametrize("resets", [False, True])
@pytest.mark.parametrize("limit", [None, 2])
def test_strips_are_all_that_can_happen(limit: int | None, resets: bool):
    mdp, steps = tabular.loop(ending=True), 4
    strips = tabular.enumerate_strips(mdp, policy_of(mdp), steps, limit, resets)
    assert strips.probability.sum().item() == pytest.approx(1, abs=1e-12)
    rows = tabular.occupancy(mdp, policy_of(mdp), steps, limit, resets).sum(1)
    for state in range(2):
        seen = ((strips.state == state) & strips.valid).double() @ strips.probability
        np.testing.assert_allclose(seen.numpy(), rows[:, state], atol=1e-12)
    assert bool((~strips.valid).any())


Estimator = Callable[[Population, Array, float], Tensor]


def to_go(population: Population, values: Array, gamma: float) -> Tensor:
    return returns.reward_to_go(population.reward, population.values(values)[1], population.ends, gamma)


def full(population: Population, values: Array, gamma: float) -> Tensor:
    return returns.full_return(population.reward, population.values(values)[1], population.ends, gamma)


def td0(population: Population, values: Array, gamma: float) -> Tensor:
    return returns.td0(population.reward, *population.values(values), population.ends, gamma)


def gae(lam: float) -> Estimator:
    def estimate(population: Population, values: Array, gamma: float) -> Tensor:
        return returns.gae(population.reward, *population.values(values), population.ends, gamma, lam)

    return estimate


def n_step(n: int, subtract: bool = True) -> Estimator:
    def estimate(population: Population, values: Array, gamma: float) -> Tensor:
        value, next_value = population.values(values)
        result = returns.n_step(population.reward, next_value, population.ends, gamma, n)
        return torch.where(population.ends.valid, result - value, 0.0) if subtract else result

    return estimate


def minus(baseline: float | Array, estimator: Estimator) -> Estimator:
    """The estimator with a constant, or a function of the state, subtracted."""

    def estimate(population: Population, values: Array, gamma: float) -> Tensor:
        table = torch.from_numpy(np.append(np.broadcast_to(baseline, len(values)), 0.0))
        weight = estimator(population, values, gamma)
        return torch.where(population.ends.valid, weight - table[population.state], 0.0)

    return estimate


WITH_ANY_CRITIC: dict[str, Estimator] = {
    "reward-to-go": to_go,
    "reward-to-go, constant baseline": minus(3.7, to_go),
    "reward-to-go, learned baseline": minus(WRONG[:3], to_go),
    "gae(1)": gae(1.0),
    "n-step, n = T": n_step(3),
    "n-step, n > T": n_step(7, subtract=False),
}
WITH_TRUE_CRITIC: dict[str, Estimator] = {
    "td(0)": td0,
    "gae(0)": gae(0.0),
    "gae(0.6)": gae(0.6),
    "1-step": n_step(1),
    "2-step": n_step(2),
    "2-step, no baseline": n_step(2, subtract=False),
}


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("name", [*WITH_ANY_CRITIC, *WITH_TRUE_CRITIC])
def test_whole_episodes(name: str, gamma: float):
    mdp = tabular.ladder()
    population, true = whole_episodes(mdp), tabular.true_values(mdp, policy_of(mdp), gamma)[0]
    estimator = (WITH_ANY_CRITIC | WITH_TRUE_CRITIC)[name]
    weight = estimator(population, WRONG[:3] if name in WITH_ANY_CRITIC else true, gamma)
    factor = returns.discount_from_start(population.ends, gamma, torch.float64)
    estimate = tabular.expected_gradient(theta_of(mdp), population, weight * factor)
    assert_unbiased(estimate, exact(mdp, 3, gamma, discounted=True))
    customary = tabular.expected_gradient(theta_of(mdp), population, weight)
    assert_unbiased(customary, exact(mdp, 3, gamma, discounted=False))


@pytest.mark.parametrize("name", WITH_TRUE_CRITIC)
def test_a_wrong_critic_biases_what_bootstraps(name: str):
    mdp, gamma = tabular.ladder(), 0.8
    population = whole_episodes(mdp)
    weight = WITH_TRUE_CRITIC[name](population, WRONG[:3], gamma)
    estimate = tabular.expected_gradient(theta_of(mdp), population, weight)
    assert_biased(estimate, exact(mdp, 3, gamma, discounted=False))


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("baseline", [0.0, 3.7, WRONG[:3]], ids=["none", "constant", "learned"])
def test_full_return_needs_no_factor(baseline: float | Array, gamma: float):
    mdp = tabular.ladder()
    population, truth = whole_episodes(mdp), exact(mdp, 3, gamma, discounted=True)
    weight = minus(baseline, full)(population, WRONG[:3], gamma)
    assert_unbiased(tabular.expected_gradient(theta_of(mdp), population, weight), truth)
    if gamma < 1:
        factor = returns.discount_from_start(population.ends, gamma, torch.float64)
        assert_biased(tabular.expected_gradient(theta_of(mdp), population, weight * factor), truth)


def test_without_the_factor_reward_to_go_follows_another_quantity():
    mdp = tabular.ladder()
    assert_biased(exact(mdp, 3, 0.8, discounted=False), exact(mdp, 3, 0.8, discounted=True))


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("whole", [False, True], ids=["reward-to-go", "full"])
def test_leave_one_out(whole: bool, count: int, gamma: float):
    mdp = tabular.ladder()
    population = whole_episodes(mdp, count)
    weight = (full if whole else to_go)(population, WRONG[:3], gamma)
    baseline = returns.leave_one_out_baseline(weight, population.ends.valid)
    assert baseline.abs().max() > 0.1
    estimate = tabular.expected_gradient(theta_of(mdp), population, weight - baseline)
    assert_unbiased(estimate, exact(mdp, 3, gamma, discounted=whole))


@pytest.mark.parametrize(("count", "horizon"), [(2, 3), (3, 2)])
@pytest.mark.parametrize("whole", [False, True], ids=["reward-to-go", "full"])
def test_the_mean_shortens_the_gradient_by_its_own_share(whole: bool, count: int, horizon: int):
    mdp, gamma = tabular.loop(ending=False), 0.8  # all episodes are of one length
    strips = tabular.enumerate_strips(mdp, policy_of(mdp), horizon, limit=horizon)
    population = tabular.jointly(strips, count)
    weight = (full if whole else to_go)(population, np.zeros(2), gamma)
    weight = weight - returns.mean_baseline(weight, population.ends.valid)
    truth = time_limited_gradient(mdp, gamma, horizon, discounted=whole)
    assert_unbiased(tabular.expected_gradient(theta_of(mdp), population, weight), truth * (count - 1) / count)


def test_the_mean_turns_the_gradient_when_lengths_differ():
    mdp, count, gamma = tabular.ladder(), 2, 0.8
    population, policy = whole_episodes(mdp, count), policy_of(mdp)
    weight = to_go(population, WRONG[:3], gamma)
    weight = weight - returns.mean_baseline(weight, population.ends.valid)
    estimate = tabular.expected_gradient(theta_of(mdp), population, weight)
    clocks, q_values = tabular.occupancy(mdp, policy, 3).sum(0), tabular.true_values(mdp, policy, gamma)[1]
    predicted = np.zeros_like(estimate)
    for visits in clocks:  # the others that still run are binomial
        p = visits.sum()
        chances = [comb(count - 1, k) * p**k * (1 - p) ** (count - 1 - k) for k in range(count)]
        share = sum(chance / (1 + k) for k, chance in enumerate(chances))
        predicted += (1 - share) * tabular.gradient_of(policy, visits, q_values)
    assert_unbiased(estimate, predicted)
    assert cosine(estimate, exact(mdp, 3, gamma, discounted=False)) < 0.999


def test_a_mean_over_samples_turns_the_gradient_when_lengths_differ():
    mdp, gamma = tabular.ladder(), 0.8
    population = whole_episodes(mdp)
    weight = to_go(population, WRONG[:3], gamma) / population.ends.valid.sum(0, keepdim=True)
    estimate = tabular.expected_gradient(theta_of(mdp), population, weight)
    assert cosine(estimate, exact(mdp, 3, gamma, discounted=False)) < 0.999


def test_normalising_advantages_biases():
    mdp, gamma = tabular.ladder(), 0.8
    population = whole_episodes(mdp, 2)
    weight, valid = to_go(population, WRONG[:3], gamma), population.ends.valid
    flat, mask = (x.transpose(0, 1).flatten(1) for x in (weight, valid))
    normal = returns.normalize_advantage(flat, mask).view(-1, *weight[:, 0].shape).transpose(0, 1)
    estimate = tabular.expected_gradient(theta_of(mdp), population, normal)
    assert cosine(estimate, exact(mdp, 3, gamma, discounted=False)) < 0.999


TIME_LIMITED: dict[str, Estimator] = WITH_TRUE_CRITIC | {"gae(1)": gae(1.0), "4-step": n_step(4), "reward-to-go": to_go}


def cut_strips(resets: bool) -> tuple[Mdp, Population, Array]:
    """Rollouts of five rows with terminations, truncations after two steps and, with ``resets``, reset rows."""
    mdp = tabular.loop(ending=True)
    population = tabular.jointly(tabular.enumerate_strips(mdp, policy_of(mdp), 5, 2, resets))
    assert population.ends.truncated.any()
    assert population.ends.terminated.any()
    return mdp, population, tabular.occupancy(mdp, policy_of(mdp), 5, 2, resets).sum(0)


@pytest.mark.parametrize("resets", [False, True], ids=["one episode", "many episodes"])
@pytest.mark.parametrize("discounted", [False, True], ids=["customary", "discounted"])
@pytest.mark.parametrize("name", TIME_LIMITED)
def test_truncated_episodes_with_the_true_critic(name: str, discounted: bool, resets: bool):
    mdp, population, clocks = cut_strips(resets)
    gamma, policy = 0.8, policy_of(mdp)
    value, q_values = tabular.true_values(mdp, policy, gamma)
    factors = gamma ** np.arange(5) if discounted else np.ones(5)
    truth = tabular.gradient_of(policy, factors @ clocks, q_values)
    weight = TIME_LIMITED[name](population, value, gamma)
    if discounted:
        weight = weight * returns.discount_from_start(population.ends, gamma, torch.float64)
    assert_unbiased(tabular.expected_gradient(theta_of(mdp), population, weight), truth)


@pytest.mark.parametrize("name", TIME_LIMITED)
def test_a_truncation_taken_for_a_termination_biases(name: str):
    mdp, population, clocks = cut_strips(resets=True)
    gamma, policy, ends = 0.8, policy_of(mdp), population.ends
    value, q_values = tabular.true_values(mdp, policy, gamma)
    mistaken = population._replace(ends=ends._replace(terminated=ends.terminated | ends.truncated))
    estimate = tabular.expected_gradient(theta_of(mdp), mistaken, TIME_LIMITED[name](mistaken, value, gamma))
    assert_biased(estimate, tabular.gradient_of(policy, clocks.sum(0), q_values))


@pytest.mark.parametrize("name", TIME_LIMITED)
def test_a_termination_taken_for_a_truncation_biases(name: str):
    mdp, population, clocks = cut_strips(resets=True)
    gamma, policy, ends = 0.8, policy_of(mdp), population.ends
    value, q_values = tabular.true_values(mdp, policy, gamma)
    none = torch.zeros_like(ends.terminated)
    mistaken = population._replace(ends=ends._replace(terminated=none, truncated=ends.terminated | ends.truncated))
    mistaken = mistaken._replace(next_state=mistaken.next_state % 2)  # as if the end were a state like others
    estimate = tabular.expected_gradient(theta_of(mdp), mistaken, TIME_LIMITED[name](mistaken, value, gamma))
    assert_biased(estimate, tabular.gradient_of(policy, clocks.sum(0), q_values))


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("whole", [False, True], ids=["reward-to-go", "full"])
def test_with_nothing_behind_it_the_time_limit_is_part_of_the_task(whole: bool, gamma: float):
    mdp, horizon = tabular.loop(ending=True), 3
    strips = tabular.enumerate_strips(mdp, policy_of(mdp), horizon + 1, limit=horizon)
    population = tabular.jointly(strips)
    weight = (full if whole else to_go)(population, np.zeros(2), gamma)
    if not whole:
        weight = weight * returns.discount_from_start(population.ends, gamma, torch.float64)
    estimate = tabular.expected_gradient(theta_of(mdp), population, weight)
    assert_unbiased(estimate, time_limited_gradient(mdp, gamma, horizon))
