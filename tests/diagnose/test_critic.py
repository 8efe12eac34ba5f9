"""The critic against returns of whole episodes: by hand, by identities, and where there is nothing to explain."""

import math

import numpy as np
import pytest
import torch

from pgkit.diagnose import critic
from pgkit.types import Rollout


def episodes(*rewards, truncated=(), steps=None):
    """A rollout with one episode for each list of rewards; those in ``truncated`` are cut by their time limit."""
    longest = steps or max(map(len, rewards))
    reward = torch.zeros(longest, 1, len(rewards), dtype=torch.float64)
    flags = torch.zeros(3, longest, 1, len(rewards), dtype=torch.bool)
    for index, numbers in enumerate(rewards):
        reward[: len(numbers), 0, index] = torch.tensor(numbers, dtype=torch.float64)
        flags[int(index in truncated), len(numbers) - 1, 0, index] = True
        flags[2, : len(numbers), 0, index] = True
    obs = torch.zeros(longest + 1, 1, len(rewards), 1)
    return Rollout(obs, reward.long(), reward, *flags)


def values(rollout, *columns):
    """Values of each episode's steps ``(T, 1, N)``, NaN behind its end."""
    value = torch.full_like(rollout.reward, math.nan)
    for index, numbers in enumerate(columns):
        value[: len(numbers), 0, index] = torch.tensor(numbers, dtype=torch.float64)
    return value


def with_constant(rollout, constant, gamma, rng=0):
    value = torch.full_like(rollout.reward, constant)
    return critic.critic_quality(rollout, value, value, gamma, rng)


def test_two_locks_by_hand():
    rollout = episodes([0.3], [0.3], [0.0, 0.0], [0.0, 1.0])  # as often as they happen at theta = 0
    value = values(rollout, [0.4], [0.4], [0.4, 0.5], [0.4, 0.5])
    result = critic.critic_quality(rollout, value, value, gamma=1.0, rng=0)
    assert result["target_variance"].value == pytest.approx((2 * 0.09 + 2) / 6 - (2.6 / 6) ** 2)
    assert result["bias"].value == pytest.approx(0.0, abs=1e-12)
    resolved = episodes(*[[0.3], [0.3], [0.0, 0.0], [0.0, 1.0]] * 20)
    value = values(resolved, *[[0.4], [0.4], [0.4, 0.5], [0.4, 0.5]] * 20)
    result = critic.critic_quality(resolved, value, value, gamma=1.0, rng=0)
    unexplained = (0.01 + 0.01 + 0.16 + 0.25 + 0.36 + 0.25) / 6
    assert result["explained_variance"].value == pytest.approx(1 - unexplained / result["target_variance"].value)
    assert result["explained_variance"].low < 0.012658 < result["explained_variance"].high
    assert result["explained_variance"].n == 80
    assert set(result) == set(critic.NAMES)


def noisy_episodes(count=60, seed=0):
    rng = np.random.default_rng(seed)
    return episodes(*[rng.normal(1.0, 2.0, size=rng.integers(2, 9)).tolist() for _ in range(count)])


def test_identities_of_explained_variance():
    rollout = noisy_episodes()
    returns = torch.from_numpy(critic.monte_carlo(rollout, rollout.reward, rollout.reward, 0.9).plain)[:, None]
    for value, explained, bias in (
        (returns, 1.0, 0.0),
        (returns + 3.0, 1.0, 3.0),  # a constant error is a bias, and no variance
        (torch.full_like(returns, 7.0), 0.0, None),
        (0.5 * returns, 0.75, None),
        (-returns, -3.0, None),
    ):
        result = critic.critic_quality(rollout, value, value, 0.9, rng=0)
        for end in result["explained_variance"][:3]:
            assert end == pytest.approx(explained, abs=1e-9)
        assert bias is None or result["bias"].value == pytest.approx(bias, abs=1e-9)
        assert result["explained_variance_bootstrapped"].value == pytest.approx(explained, abs=1e-9)  # no limit


def test_returns_count_nothing_or_the_value_behind_the_time_limit():
    rollout = episodes([1.0, 1.0], [1.0, 1.0, 1.0], truncated=[1])
    next_value = torch.full_like(rollout.reward, 10.0)
    returns = critic.monte_carlo(rollout, torch.full_like(rollout.reward, 2.0), next_value, gamma=0.5)
    assert returns.plain.T.tolist() == [[1.5, 1.0, 0.0], [1.75, 1.5, 1.0]]
    assert returns.bootstrapped.T.tolist() == [[1.5, 1.0, 0.0], [3.0, 4.0, 6.0]]
    assert returns.truncated.tolist() == [False, True]
    assert returns.value[2].tolist() == [0.0, 2.0]


def test_far_from_a_limit_is_a_matter_of_time_not_of_survival():
    horizon = math.log(20) / (1 - 0.5)  # 5.99 steps
    rollout = episodes([1.0] * 5, [1.0] * 10, [1.0] * 12, truncated=[2])
    far = critic.monte_carlo(rollout, rollout.reward, rollout.reward, gamma=0.5).far
    assert far.sum(0).tolist() == [5, 6, 6]  # steps 1 ... 6 of 12
    assert 12 - 6 > horizon > 12 - 7
    unlimited = episodes([1.0] * 5, [1.0] * 10)
    assert critic.monte_carlo(unlimited, unlimited.reward, unlimited.reward, gamma=0.5).far.sum() == 15


def test_without_steps_far_from_the_limit_there_is_a_reason():
    rollout = episodes(*[[float(i), 1.0, 2.0] for i in range(8)], truncated=range(8))
    for gamma in (0.9, 1.0):
        result = with_constant(rollout, 1.0, gamma)
        assert "far from the time limit" in result["explained_variance_far"].reason
        assert result["explained_variance"].reason is None


def test_the_limit_spoils_a_critic_that_cannot_see_it():
    """A constant is right far from the limit, and where V stands for what is behind it; not where nothing does."""
    rng = np.random.default_rng(0)
    lengths = [100] * 30 + rng.integers(1, 40, size=10).tolist()
    rollout = episodes(*[[1.0] * length for length in lengths], truncated=range(30))
    gamma = 0.8
    time_left = torch.from_numpy(critic.monte_carlo(rollout, rollout.reward, rollout.reward, gamma).valid[::-1].copy())
    left = time_left.double().cumsum(0).flip(0)[:, None]  # a critic that knows when poles will fall
    cut = torch.arange(40).view(1, 1, 40) < 30
    value = torch.where(cut, 5.0, (1 - gamma**left) / (1 - gamma))  # but not when time is over
    result = critic.critic_quality(rollout, value, torch.full_like(value, 5.0), gamma, rng=0)
    assert result["explained_variance_bootstrapped"].value == pytest.approx(1.0, abs=1e-6)
    assert result["explained_variance_far"].value > 0.99
    assert result["explained_variance"].high < 0.8
    assert result["bias"].low > 0


@pytest.mark.parametrize("truncated", [range(0), range(40)], ids=["no limit", "limit"])
def test_where_all_returns_are_equal_a_constant_is_right(truncated):
    """With a limit, returns differ by the time left, which no observation shows."""
    rollout = episodes(*[[1.0] * (50 if truncated else 1)] * 40, truncated=truncated)
    result = with_constant(rollout, 3.0, gamma=0.9)
    for name in ("explained_variance", "explained_variance_bootstrapped", "explained_variance_far"):
        assert math.isnan(result[name].value)
        assert "a constant critic is right" in result[name].reason
    assert result["bias"].reason is None


def test_one_bad_episode_among_many_does_not_resolve_a_variance():
    rollout = episodes(*[[1.0] * 50] * 59, [1.0], truncated=range(59))
    assert "constant" in with_constant(rollout, 3.0, gamma=0.9)["explained_variance"].reason
    more = episodes(*[[1.0] * 50] * 40, *[[1.0] * 5] * 20, truncated=range(40))
    assert with_constant(more, 3.0, gamma=0.9)["explained_variance"].value == pytest.approx(0.0, abs=1e-9)


def test_intervals_resample_episodes_not_steps():
    rng = np.random.default_rng(1)
    levels = rng.normal(size=40)
    short = episodes(*[[level] for level in levels])
    long = episodes(*[[0.0] * 99 + [level] for level in levels])  # the same returns, a hundred times as many steps
    widths = []
    for rollout in (short, long):
        bias = with_constant(rollout, 0.0, gamma=1.0)["bias"]
        widths.append(bias.high - bias.low)
        assert bias.low < -levels.mean() < bias.high
    assert widths[0] == pytest.approx(widths[1], rel=1e-9)
    assert widths[0] == pytest.approx(2 * 1.96 * levels.std() / math.sqrt(40), rel=0.1)


@pytest.mark.slow
def test_coverage_of_the_bias():
    covered = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        rollout = episodes(*[[reward] for reward in rng.normal(size=40)])
        bias = with_constant(rollout, 0.5, gamma=1.0, rng=rng)["bias"]
        covered += bias.low < 0.5 < bias.high
    assert covered / 300 == pytest.approx(0.94, abs=0.035)


def test_too_few_episodes_and_broken_critics_have_reasons():
    few = with_constant(episodes([1.0], [2.0], [3.0]), 0.0, gamma=0.9)
    assert {quantity.reason for quantity in few.values()} == {"3 episodes: at least 4 are needed"}
    broken = with_constant(noisy_episodes(), math.inf, gamma=0.9)
    assert {quantity.reason for quantity in broken.values()} == {"values or returns are not finite"}


def test_the_seed_decides_the_interval():
    results = [with_constant(noisy_episodes(), 1.0, gamma=0.9, rng=seed)["bias"] for seed in (0, 0, 1)]
    assert results[0] == results[1]
    assert results[0] != results[2]


def test_episodes_must_be_whole():
    rollout = episodes([1.0, 2.0], [1.0])
    rollout.terminated[0, 0, 0] = True  # an end within
    with pytest.raises(ValueError, match="whole episode"):
        with_constant(rollout, 0.0, gamma=0.9)


def test_the_histogram_counts_every_valid_step_in_squares_around_the_diagonal():
    rollout = noisy_episodes()
    value = torch.where(rollout.valid, torch.full_like(rollout.reward, 3.0), math.nan)
    returns = critic.monte_carlo(rollout, value, value, gamma=0.9)
    rows = critic.value_histogram(returns, cells=10)
    assert sum(row["count"] for row in rows) == rollout.valid.sum()
    (constant,) = {row["value"] for row in rows}
    (width,) = {row["width"] for row in rows}
    assert abs(constant - 3.0) <= width / 2
    lowest, highest = returns.plain[returns.valid].min(), returns.plain[returns.valid].max()
    assert width == pytest.approx((highest - lowest) / 10)
    assert len({row["target"] for row in rows}) > 5
    at_diagonal = [row["count"] for row in rows if row["target"] == row["value"]]
    expected = (abs(returns.plain[returns.valid] - constant) <= width / 2).sum()
    assert at_diagonal == [expected]


def test_steps_without_finite_numbers_are_not_counted():
    rollout = episodes([1.0, 2.0], [3.0], [4.0], [5.0])
    value = values(rollout, [1.0, math.inf], [1.0], [1.0], [1.0])
    rows = critic.value_histogram(critic.monte_carlo(rollout, value, value, gamma=1.0))
    assert sum(row["count"] for row in rows) == 4
    nothing = torch.full_like(rollout.reward, math.nan)
    assert critic.value_histogram(critic.monte_carlo(rollout, nothing, nothing, gamma=1.0)) == []
