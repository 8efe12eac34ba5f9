"""Estimators against everything that can happen in two small problems, and their statistics against closed forms."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import tabular
from helpers.gradient_oracles import Bandit, two_locks
from pgkit.agents import reinforce

from pgkit.diagnose.estimator_comparison import MEASURES, advantages, compare_estimators, policy_gradients
from pgkit.diagnose.noise import gram, moments
from pgkit.kernels.packing import pack
from pgkit.nn import categorical, gaussian
from pgkit.nn.policy import Policy
from pgkit.types import Rollout

LOCKS = two_locks()
TRUE_GRADIENT = np.array([0.05, 0.125])  # at theta = 0, gamma 1
BANDIT = Bandit()
EPISODES = 16


def lock_gradients(critic, count=1, theta=(0.0, 0.0), gamma=1.0):
    """Probabilities (P,) of all batches of ``count`` episodes, and each estimator's gradient (P, 2) in theta."""
    logits = np.array([[0.0, theta[0]], [0.0, theta[1]]])  # P(1|s) = sigmoid(theta_s)
    strips = tabular.enumerate_strips(LOCKS, tabular.softmax(logits), 2)
    population = tabular.jointly(strips, count)
    size = len(population.probability)
    policy = Policy(2, categorical(2), hidden=(), critic_hidden=())
    params = {
        "actor.0.weight": torch.from_numpy(logits).expand(size, -1, -1),
        "actor.0.bias": torch.zeros(size, 1, 2, dtype=torch.float64),
        "critic.0.weight": torch.tensor(critic, dtype=torch.float64).view(1, 2, 1).expand(size, -1, -1),
        "critic.0.bias": torch.zeros(size, 1, 1, dtype=torch.float64),
    }
    rollout = tabular.as_rollout(population, 2)
    value, next_value, _ = policy.values(params, rollout)
    gradients = policy_gradients(policy, params, rollout, advantages(rollout, value, next_value, gamma))
    actions_one = [1, 3]  # of the weights (state, action); behind them are the biases
    return population.probability.numpy(), {name: leaf[:, actions_one].numpy() for name, leaf in gradients.items()}


def mean_and_trace(probability, gradients):
    mean = probability @ gradients
    return mean, probability @ (gradients**2).sum(1) - mean @ mean


def test_two_locks_have_three_episodes():
    strips = tabular.enumerate_strips(LOCKS, tabular.softmax(np.zeros((2, 2))), 2)
    assert sorted(strips.probability.tolist()) == [0.25, 0.25, 0.5]
    returns = torch.where(strips.valid, strips.reward, 0.0).sum(0)
    assert float(strips.probability @ returns) == pytest.approx(0.4)  # J


@pytest.mark.parametrize(
    ("critic", "name", "trace"), [((5.0, -3.0), "none", 0.118125), ((0.4, 0.5), "value", 0.046875)]
)
def test_two_locks_without_a_baseline_and_with_the_exact_critic(critic, name, trace):
    mean, variance = mean_and_trace(*_pick(lock_gradients(critic), name))
    assert mean == pytest.approx(TRUE_GRADIENT, abs=1e-12)
    assert variance == pytest.approx(trace, abs=1e-12)


@pytest.mark.parametrize(("critic", "name", "trace"), [((9.0, 9.0), "none", 0.111465), (None, "value", 0.052677)])
def test_two_locks_elsewhere(critic, name, trace):
    p, q = 1 / (1 + np.exp([-0.5, 1.0]))
    exact_critic = ((1 - p) * 0.3 + p * q, q)
    mean, variance = mean_and_trace(*_pick(lock_gradients(critic or exact_critic, theta=(0.5, -1.0)), name))
    assert mean == pytest.approx([-0.00729888, 0.12238293], abs=5e-9)
    assert variance == pytest.approx(trace, abs=5e-7)


@pytest.mark.parametrize("critic", [(0.4, 0.5), (0.4, 0.0), (-7.0, 2.0)])
def test_gae_has_the_bias_of_its_critic(critic):
    probability, gradients = lock_gradients(critic)
    for lam in (0.0, 0.5, 0.9, 0.95, 0.99, 1.0):
        expected = 0.25 * ((0.5 - 0.3) + (1 - lam) * (critic[1] - 0.5))
        assert probability @ gradients[f"gae-{lam:g}"] == pytest.approx([expected, 0.125], abs=1e-12)


def test_with_a_wrong_critic_the_sign_turns():
    probability, gradients = lock_gradients((0.4, 0.0))
    firsts = [(probability @ gradients[name])[0] for name in ("gae-0", "gae-0.5", "gae-0.95", "gae-1")]
    assert firsts == pytest.approx([-0.075, -0.0125, 0.04375, 0.05], abs=1e-12)


@pytest.mark.parametrize("name", ["none", "leave-one-out", "value", "gae-1"])
def test_unbiased_estimators_of_batches(name):
    probability, gradients = _pick(lock_gradients((-3.0, 2.0), count=3), name)
    assert probability @ gradients == pytest.approx(TRUE_GRADIENT, abs=1e-12)


def test_the_mean_baseline_shrinks_the_gradient():
    probability, gradients = _pick(lock_gradients((0.0, 0.0), count=3), "mean")
    first, second = probability @ gradients
    assert first == pytest.approx(0.05 * 2 / 3, abs=1e-12)  # all three episodes are in state 0
    assert 0 < second < 0.125 * 2 / 3  # where one episode comes to state 1 alone, nothing is left


def _pick(result, name):
    return result[0], result[1][name]


def bandit_gradients(batches, seed):
    """Gradients (P, 2) of each estimator in theta, by the policy and the code that real rollouts take."""
    noise = np.random.default_rng(seed).normal(size=(1, batches, EPISODES, 2))
    reward = torch.from_numpy(BANDIT.reward(noise))
    never = torch.zeros(reward.shape, dtype=torch.bool)
    action = torch.from_numpy(BANDIT.theta + BANDIT.sigma * noise)
    rollout = Rollout(torch.zeros(2, batches, EPISODES, 1).double(), action, reward, ~never, never, ~never)
    policy = Policy(1, gaussian(2), hidden=(), critic_hidden=())
    params = {
        "actor.0.weight": torch.zeros(batches, 1, 2, dtype=torch.float64),
        "actor.0.bias": torch.from_numpy(BANDIT.theta).expand(batches, 1, 2),
        "actor.log_std": torch.full((batches, 1, 2), math.log(BANDIT.sigma), dtype=torch.float64),
    }
    value = torch.full_like(reward, BANDIT.mean_reward)
    gradients = policy_gradients(policy, params, rollout, advantages(rollout, value, value, gamma=1.0))
    assert gradients["none"].shape == (batches, 6)
    return {name: leaf[:, 2:4].numpy() for name, leaf in gradients.items()}  # behind two weights


@pytest.fixture(scope="module")
def bandit():
    reference = bandit_gradients(1500, seed=3)["leave-one-out"]
    return compare_estimators(bandit_gradients(1500, seed=2), reference, rng=0)


@pytest.mark.parametrize(
    ("name", "trace", "bias2"),
    [
        ("none", 1.6640625, 0.0),
        ("value", 0.609375, 0.0),
        ("leave-one-out", 0.6395833, 0.0),
        ("mean", 0.5621338, 0.0078125),
        ("gae-0", 0.609375, 0.0),
    ],
)
def test_the_bandits_estimators(bandit, name, trace, bias2):
    squared = 2.0  # |G|^2
    variance, bias, error, cosine = (bandit.quantities[f"{name}/{measure}"] for measure in MEASURES[:4])
    assert variance.low < trace < variance.high
    assert variance.value == pytest.approx(trace, rel=0.06)
    assert bias.low < bias2 / squared < bias.high
    assert bias.high - bias.low < 0.05
    assert error.low < (trace + bias2) / squared < error.high
    assert cosine.value == pytest.approx(1.0, abs=0.005)


def test_variances_of_the_bandits_batches_follow_from_those_of_episodes():
    per_episode = {name: float(np.trace(BANDIT.covariance(b))) for name, b in (("none", 0.0), ("mean", -1.125))}
    assert per_episode["none"] / EPISODES == pytest.approx(1.664063, abs=1e-6)
    assert np.trace(BANDIT.covariance(BANDIT.best_baseline)) / EPISODES == pytest.approx(0.5390625)
    correction = (2 * BANDIT.reward_variance / BANDIT.sigma**2 + 2.0) / (EPISODES * (EPISODES - 1))
    leave_one_out = per_episode["mean"] / EPISODES + correction
    assert leave_one_out == pytest.approx(0.639583, abs=1e-6)
    assert leave_one_out * (15 / 16) ** 2 == pytest.approx(0.562134, abs=1e-6)
    assert 2.0 / EPISODES**2 == 0.0078125


def test_the_mean_baseline_is_a_shorter_leave_one_out_with_less_error(bandit):
    gradients = bandit_gradients(50, seed=3)
    np.testing.assert_allclose(gradients["mean"], 15 / 16 * gradients["leave-one-out"], rtol=1e-9)
    assert bandit.quantities["mean/mse"].value < bandit.quantities["leave-one-out/mse"].value
    np.testing.assert_allclose(gradients["value"], gradients["gae-0"], rtol=1e-9)  # of one step


def test_rows_hold_what_quantities_hold(bandit):
    assert [row["name"] for row in bandit.rows][:5] == ["none", "mean", "leave-one-out", "value", "gae-0"]
    for row in bandit.rows:
        for measure in MEASURES[:4]:
            value, low, high, n, _ = bandit.quantities[f"{row['name']}/{measure}"]
            assert (row[measure], row[f"{measure}_low"], row[f"{measure}_high"], row["n"]) == (value, low, high, n)
        assert row["nsr"] == pytest.approx(row["variance"] / 2, rel=0.2)
        assert row["reason"] is None


def test_squared_bias_is_unbiased_where_the_plain_distance_is_not():
    rng = np.random.default_rng(0)
    gradient = np.array([1.0, 0.0])
    corrected, plain = [], []
    for _ in range(400):
        sample, reference = gradient + rng.normal(size=(2, 32, 2))
        row = compare_estimators({"x": sample}, reference, rng).rows[0]
        if row["reason"] is None:
            corrected.append(row["bias2"] * moments(gram(reference)).signal)
            plain.append(np.sum((sample.mean(0) - reference.mean(0)) ** 2))
    assert len(corrected) > 390
    assert np.mean(plain) == pytest.approx(2 * 2 / 32, rel=0.2)  # noise alone
    assert np.mean(corrected) == pytest.approx(0.0, abs=0.02)


def test_intervals_are_those_of_leaving_each_batch_out():
    rng = np.random.default_rng(5)
    sample = np.array([1.0, 2.0, 0.0]) + rng.normal(size=(12, 3))
    reference = np.array([1.0, 1.5, 0.5]) + 0.5 * rng.normal(size=(15, 3))
    cosine = compare_estimators({"x": sample}, reference, rng=0).quantities["x/cosine"]

    def by_definition(x, r):
        return x.mean(0) @ r.mean(0) / math.sqrt(moments(gram(x)).signal * moments(gram(r)).signal)

    without_x = [by_definition(np.delete(sample, i, 0), reference) for i in range(12)]
    without_r = [by_definition(sample, np.delete(reference, i, 0)) for i in range(15)]
    variance = 11 * np.var(without_x) + 14 * np.var(without_r)
    assert cosine.value == pytest.approx(by_definition(sample, reference), rel=1e-12)
    assert cosine.n == 12
    assert (cosine.high - cosine.value) / 2.200985 == pytest.approx(math.sqrt(variance), rel=1e-6)


def test_an_unresolved_reference_gives_reasons_and_shows_the_critics_gradient():
    rng = np.random.default_rng(0)
    reference = rng.normal(size=(48, 20))
    steady = np.full(20, 2.0) + 0.1 * rng.normal(size=(48, 20))
    comparison = compare_estimators({"gae-0": steady, "none": rng.normal(size=(48, 20))}, reference, rng=0)
    for measure in ("bias2", "mse", "cosine"):
        quantity = comparison.quantities[f"gae-0/{measure}"]
        assert math.isnan(quantity.value)
        assert "the true gradient is not resolved" in quantity.reason
        assert "the gradient is the critic's own" in quantity.reason
        assert "critic" not in comparison.quantities[f"none/{measure}"].reason
    assert comparison.quantities["gae-0/variance"].value == pytest.approx(0.2, rel=0.2)
    assert [row["reason"] is None for row in comparison.rows] == [False, False]


def test_an_estimator_that_sees_the_reference_better_is_not_called_wrong():
    rng = np.random.default_rng(3)
    gradient = np.full(20, 0.03)
    reference = gradient + rng.normal(size=(48, 20))
    quiet = gradient + 0.01 * rng.normal(size=(48, 20))
    reason = compare_estimators({"value": quiet}, reference, rng=0).quantities["value/bias2"].reason
    assert "not resolved" in reason
    assert "critic" not in reason


@pytest.mark.parametrize(
    ("sample", "reference", "reason"),
    [
        (np.eye(3), np.eye(3), "3 batches: at least 4 are needed"),
        (np.full((8, 3), np.nan), np.ones((8, 3)), "8 of 8 gradients are not finite"),
        (np.ones((8, 3)), np.full((8, 3), np.nan), "reference: 8 of 8 gradients are not finite"),
        (np.zeros((8, 3)), np.ones((8, 3)), "all gradients are zero"),
    ],
)
def test_flaws_are_reasons(sample, reference, reason):
    comparison = compare_estimators({"x": sample}, reference, rng=0)
    assert comparison.rows[0]["reason"] == reason
    assert comparison.quantities["x/bias2"].reason == reason


def test_another_number_of_parameters_is_an_error():
    with pytest.raises(ValueError, match="'x'"):
        compare_estimators({"x": np.ones((8, 3))}, np.ones((8, 4)), rng=0)


def random_rollout(dtype):
    """Two batches of three episodes of 2 to 7 steps with random observations, the first parameters to play them."""
    rng = np.random.default_rng(8)
    lengths = torch.from_numpy(rng.integers(2, 8, size=(2, 3)))
    steps = torch.arange(7).view(-1, 1, 1)
    valid = steps < lengths
    last = steps == lengths - 1
    obs, reward = (torch.from_numpy(rng.normal(size=shape)).to(dtype) for shape in ((8, 2, 3, 4), (7, 2, 3)))
    action = torch.from_numpy(rng.integers(0, 2, size=(7, 2, 3)))
    return Rollout(obs, action, reward, last, torch.zeros_like(last), valid)


@pytest.mark.parametrize("shared", [False, True], ids=["apart", "shared"])
def test_gradients_are_those_that_reinforce_descends(shared):
    rollout = random_rollout(torch.float32)
    policy = Policy(4, categorical(2), hidden=(5,), critic_hidden=(3,), shared=shared)
    params = {name: leaf.requires_grad_() for name, leaf in policy.init([0, 1]).items()}
    value, next_value, _ = policy.values(params, rollout)
    gradients = policy_gradients(policy, params, rollout, advantages(rollout, value, next_value, 0.9))
    names = [name for name in params if not name.startswith("critic")]
    for estimator, baseline in (("none", "none"), ("mean", "mean"), ("leave-one-out", "leave_one_out")):
        config = reinforce.Config(gamma=0.9, baseline=baseline, average="episode")
        loss, _ = reinforce.loss(policy, params, reinforce.targets(policy, params, rollout, config), config)
        expected = torch.autograd.grad(loss.sum(), [params[name] for name in names])
        flat = -torch.cat([leaf.flatten(1) for leaf in expected], 1)
        assert flat.abs().max() > 0.01
        torch.testing.assert_close(gradients[estimator], flat)


def test_packed_samples_and_cached_passes_change_no_gradient():
    rollout = random_rollout(torch.float32)
    policy = Policy(4, categorical(2), hidden=(5,), critic_hidden=(3,))
    params = policy.init([0, 1])
    weights = {"one": rollout.reward, "two": rollout.reward**2}
    plain = policy_gradients(policy, params, rollout, weights)
    packed = policy_gradients(policy, params, replace(rollout, packing=pack(rollout.obs, rollout.valid, True)), weights)
    exact = policy_gradients(
        policy,
        {name: leaf.double() for name, leaf in params.items()},
        replace(rollout, obs=rollout.obs.double(), reward=rollout.reward.double()),
        {name: weight.double() for name, weight in weights.items()},
    )
    for name in weights:
        assert exact[name].abs().max() > 0.01
        torch.testing.assert_close(packed[name], plain[name])
        torch.testing.assert_close(plain[name].double(), exact[name], rtol=1e-4, atol=1e-6)


def test_episodes_must_be_whole():
    steps = torch.zeros(3, 1, 2)
    never = steps.bool()
    rollout = Rollout(torch.zeros(4, 1, 2, 1), steps.long(), steps, never, never, ~never)
    with pytest.raises(ValueError, match="whole episode"):
        advantages(rollout, steps, steps, gamma=0.9)


def test_only_gae_counts_something_behind_the_time_limit():
    reward = torch.ones(2, 1, 2)
    never = torch.zeros(2, 1, 2, dtype=torch.bool)
    last = torch.tensor([False, True]).view(2, 1, 1).expand(2, 1, 2)
    rollout = Rollout(torch.zeros(3, 1, 2, 1), reward.long(), reward, never, last, ~never)
    value = torch.full_like(reward, 10.0)
    weights = advantages(rollout, value, value, gamma=1.0)
    assert weights["none"].flatten().tolist() == [2, 2, 1, 1]
    assert weights["value"].flatten().tolist() == [-8, -8, -9, -9]
    assert weights["gae-1"].flatten().tolist() == [2, 2, 1, 1]
    assert list(weights)[:4] == ["none", "mean", "leave-one-out", "value"]
    assert list(weights)[4:] == ["gae-0", "gae-0.5", "gae-0.9", "gae-0.95", "gae-0.99", "gae-1"]
