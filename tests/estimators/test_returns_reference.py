"""Estimators against slow references that walk through one episode at a time in plain Python, on random patterns."""

from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from pgkit.losses import explained_variance, masked_mean
from pgkit.returns import (
    EpisodeEnds,
    discount_from_start,
    full_return,
    gae,
    leave_one_out_baseline,
    mean_baseline,
    n_step,
    normalize_advantage,
    reward_to_go,
    td0,
)

WORTHLESS = float("nan")  # where nobody may look
STEP, TERMINATED, TRUNCATED, BOTH = range(4)


class Episode(NamedTuple):
    """Consecutive steps of one environment; the value behind the last is 0 if it terminated."""

    rows: list[int]
    reward: list[float]
    value: list[float]
    next_value: list[float]

    def to_go(self, k: int, gamma: float, lam: float = 1.0, n: int | None = None) -> float:
        """``n`` discounted rewards from step k on, then the value; all there are if None."""
        stop = len(self.rows) if n is None else min(k + n, len(self.rows))
        rewards = sum(gamma ** (i - k) * self.reward[i] for i in range(k, stop))
        return rewards + gamma ** (stop - k) * self.next_value[stop - 1]

    def advantage(self, k: int, gamma: float, lam: float) -> float:
        """The sum of later TD errors, each weighed by ``(gamma lam)^distance``."""
        errors = [r + gamma * after - v for r, v, after in zip(*self[1:], strict=True)]
        return sum((gamma * lam) ** (i - k) * errors[i] for i in range(k, len(errors)))


class Example(NamedTuple):
    reward: Tensor
    value: Tensor
    next_value: Tensor
    ends: EpisodeEnds
    gamma: Tensor
    lam: Tensor
    n: int

    def episodes(self, p: int, n: int) -> list[Episode]:
        """What environment n of member p did, episode by episode."""
        found, rows = [], []
        for t in range(len(self.reward)):
            flags = [bool(mask[t, p, n]) for mask in self.ends]
            terminated, truncated, valid = flags
            if valid:
                rows.append(t)
            over = terminated or truncated or t + 1 == len(self.reward) or not self.ends.valid[t + 1, p, n]
            if valid and over:
                columns = [[float(x[t, p, n]) for t in rows] for x in (self.reward, self.value, self.next_value)]
                if terminated:
                    columns[2][-1] = 0.0
                found.append(Episode(rows, *columns))
                rows = []
        return found

    def check(self, result: Tensor, expected: dict[tuple[int, int, int], float]) -> None:
        """Equality with these numbers by ``(t, p, n)``, and 0 elsewhere."""
        reference = torch.zeros_like(self.reward)
        for index, number in expected.items():
            reference[index] = number
        torch.testing.assert_close(result, reference, rtol=1e-10, atol=1e-10)

    def each(self, function: str, *extra: str) -> dict[tuple[int, int, int], float]:
        """A method of every step's episode, given its place there, the member's gamma and more."""
        return {
            (t, p, n): getattr(episode, function)(k, float(self.gamma[p]), *(float(getattr(self, x)[p]) for x in extra))
            for p, n in np.ndindex(*self.reward.shape[1:])
            for episode in self.episodes(p, n)
            for k, t in enumerate(episode.rows)
        }


@st.composite
def examples(draw: st.DrawFn) -> Example:
    """Random rollouts with episodes that follow a mode of autoreset, or end anywhere.

    next_step: a row that is none after each end; same_step: the next episode at once; idle: nothing after the first
    end; holes: rows that are none anywhere. What is not valid holds NaN and arbitrary flags.
    """
    shape = (draw(st.integers(1, 9)), draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    count = int(np.prod(shape))
    mode = draw(st.sampled_from(["next_step", "same_step", "idle", "holes"]))
    often = st.sampled_from([STEP, STEP, STEP, STEP, TERMINATED, TRUNCATED, BOTH])
    codes = np.array(draw(st.lists(often, min_size=count, max_size=count))).reshape(shape)
    if mode == "holes":
        valid = np.array(draw(st.lists(st.booleans(), min_size=count, max_size=count))).reshape(shape)
    else:
        valid = _valid(codes, mode)
    ends = EpisodeEnds(
        *map(torch.from_numpy, (np.isin(codes, [TERMINATED, BOTH]), np.isin(codes, [TRUNCATED, BOTH]), valid))
    )
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    reward, value, next_value = (torch.from_numpy(rng.normal(0, 3, shape)) for _ in range(3))
    for x in (reward, value, next_value):
        x[~ends.valid] = WORTHLESS
    next_value[ends.terminated] = WORTHLESS
    share = st.sampled_from([0.0, 0.5, 0.9, 0.99, 1.0]) | st.floats(0, 1, allow_subnormal=False)
    members = st.lists(share, min_size=shape[1], max_size=shape[1])
    gamma, lam = (torch.tensor(draw(members), dtype=torch.float64) for _ in range(2))
    return Example(reward, value, next_value, ends, gamma, lam, draw(st.integers(1, 10)))


def _valid(codes: NDArray[np.int_], mode: str) -> NDArray[np.bool_]:
    valid = np.ones(codes.shape, dtype=bool)
    for t in range(1, len(codes)):
        over = valid[t - 1] & (codes[t - 1] != STEP)
        valid[t] = {"next_step": ~over, "same_step": True, "idle": valid[t - 1] & ~over}[mode]
    return valid


many = settings(max_examples=150, deadline=None)


@many
@given(examples())
def test_gae(example: Example):
    example.check(gae(*example[:6]), example.each("advantage", "lam"))


@many
@given(examples())
def test_td0(example: Example):
    nothing = example._replace(lam=torch.zeros_like(example.lam))
    example.check(td0(*example[:5]), nothing.each("advantage", "lam"))


@many
@given(examples())
def test_reward_to_go_and_what_is_made_of_it(example: Example):
    given = (example.reward, example.next_value, example.ends, example.gamma)
    example.check(reward_to_go(*given), example.each("to_go"))
    expected, factors = {}, {}
    for p, n in np.ndindex(*example.reward.shape[1:]):
        for episode in example.episodes(p, n):
            for k, t in enumerate(episode.rows):
                expected[t, p, n] = episode.to_go(0, float(example.gamma[p]))
                factors[t, p, n] = float(example.gamma[p]) ** k
    example.check(full_return(*given), expected)
    example.check(discount_from_start(example.ends, example.gamma, torch.float64), factors)


@many
@given(examples())
def test_n_step(example: Example):
    expected = {
        (t, p, n): episode.to_go(k, float(example.gamma[p]), n=example.n)
        for p, n in np.ndindex(*example.reward.shape[1:])
        for episode in example.episodes(p, n)
        for k, t in enumerate(episode.rows)
    }
    result = n_step(example.reward, example.next_value, example.ends, example.gamma, example.n)
    example.check(result, expected)


@many
@given(examples())
def test_baselines(example: Example):
    returns, valid, mean, others = example.reward, example.ends.valid, {}, {}
    for t, p, n in np.ndindex(*returns.shape):
        running = [m for m in range(returns.shape[2]) if valid[t, p, m]]
        rest = [float(returns[t, p, m]) for m in running if m != n]
        if n in running:
            mean[t, p, n] = (sum(rest) + float(returns[t, p, n])) / len(running)
            others[t, p, n] = sum(rest) / len(rest) if rest else 0.0
    example.check(mean_baseline(returns, valid), mean)
    example.check(leave_one_out_baseline(returns, valid), others)


@many
@given(examples())
def test_what_sums_over_samples(example: Example):
    x, target, valid = (y.transpose(0, 1).flatten(1) for y in (example.reward, example.value, example.ends.valid))
    means, scaled, explained = (
        masked_mean(x, valid),
        normalize_advantage(x, valid),
        explained_variance(x, target, valid),
    )
    for p in range(len(x)):
        sample, aim = (y[p][valid[p]].numpy() for y in (x, target))
        assert means[p].item() == pytest.approx(sample.mean() if len(sample) else 0.0, abs=1e-12)
        assert not scaled[p][~valid[p]].any()
        if len(sample) > 1:
            expected = (sample - sample.mean()) / (sample.std() + 1e-8)
            np.testing.assert_allclose(scaled[p][valid[p]].numpy(), expected, rtol=1e-10, atol=1e-12)
            assert explained[p].item() == pytest.approx(1 - (aim - sample).var() / aim.var(), rel=1e-8)
