"""Running statistics against plain NumPy, and the independence of members."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pgkit.envs import normalize
from pgkit.errors import PgkitError


def chunks(seed, members, features, sizes):
    random = np.random.default_rng(seed)
    for size in sizes:
        x = random.normal(3, 2, (members, size, features)).astype(np.float32)
        yield torch.from_numpy(x), torch.from_numpy(random.uniform(size=(members, size)) < 0.7)


def after(pieces, members, features):
    stats = normalize.init(members, features)
    for x, valid in pieces:
        stats = normalize.update(stats, x, valid)
    return stats


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 3), st.lists(st.integers(0, 9), max_size=6))
def test_equals_numpy(seed, members, features, sizes):
    pieces = list(chunks(seed, members, features, sizes))
    stats = after(pieces, members, features)
    for k in range(members):
        kept = [x[k][valid[k]].double().numpy() for x, valid in pieces]
        samples = np.concatenate([np.zeros((0, features)), *kept])
        assert stats["count"][k] == len(samples)
        variance = normalize.variance(stats)[k].numpy()
        if len(samples) > 1:
            np.testing.assert_allclose(stats["mean"][k].numpy(), samples.mean(0), rtol=1e-12)
            np.testing.assert_allclose(variance, samples.var(0), rtol=1e-9)
        else:
            assert np.array_equal(variance, np.ones(features))


def test_large_offsets_keep_their_variance():
    random = np.random.default_rng(0)
    stats = normalize.init(1, 1)
    samples = 1e6 + random.normal(size=(50, 1, 20, 1))
    for x in torch.from_numpy(samples):
        stats = normalize.update(stats, x, torch.ones(1, 20, dtype=torch.bool))
    assert normalize.variance(stats).item() == pytest.approx(samples.var(), rel=1e-8)


def test_invalid_samples_may_be_anything():
    x = torch.tensor([[[1.0], [float("nan")], [3.0], [float("inf")]]])
    stats = normalize.update(normalize.init(1, 1), x, torch.tensor([[True, False, True, False]]))
    assert (stats["count"].item(), stats["mean"].item(), normalize.variance(stats).item()) == (2, 2, 1)
    again = normalize.update(stats, x, torch.zeros(1, 4, dtype=torch.bool))
    assert all(torch.equal(stats[key], again[key]) for key in stats)


def test_members_alone_have_the_same_bits():
    for features in (1, 4, 8):
        pieces = list(chunks(1, 9, features, [1, 5, 8, 64, 37, 200]))
        together = after(pieces, 9, features)
        query = torch.randn(9, 5, features, generator=torch.Generator().manual_seed(2))
        for members in ([0], [8], [3, 2], [1, 4, 5, 7]):
            part = after([(x[members], valid[members]) for x, valid in pieces], len(members), features)
            assert all(torch.equal(part[key], together[key][members]) for key in part)
            assert torch.equal(normalize.apply(part, query[members]), normalize.apply(together, query)[members])


def test_apply():
    stats = after(chunks(3, 2, 3, [400]), 2, 3)
    x = torch.randn(2, 6, 5, 3)
    out = normalize.apply(stats, x)
    assert (out.shape, out.dtype) == (x.shape, torch.float32)
    mean, std = stats["mean"][1, 2].item(), normalize.variance(stats)[1, 2].sqrt().item()
    assert out[1, 4, 3, 2].item() == pytest.approx((x[1, 4, 3, 2].item() - mean) / std, rel=1e-5)
    assert normalize.apply(stats, 1e9 * torch.ones(2, 1, 3)).tolist() == [[[10.0] * 3]] * 2
    fresh = normalize.apply(normalize.init(2, 3), x)
    assert torch.allclose(fresh, x.clamp(-10, 10))


def test_rewards_are_scaled_by_the_deviation_of_returns():
    random = np.random.default_rng(4)
    rewards = torch.from_numpy(random.normal(1, 2, (200, 2, 3)))
    over = torch.from_numpy(random.uniform(size=(200, 2, 3)) < 0.1)
    gamma = torch.tensor([0.9, 0.5], dtype=torch.float64)
    stats, running, returns = normalize.init(2, 1), torch.zeros(2, 3, dtype=torch.float64), []
    for reward, ended in zip(rewards, over, strict=True):
        running = normalize.discounted(running, reward, gamma)
        returns.append(running)
        stats = normalize.update(stats, running.unsqueeze(-1), torch.ones(2, 3, dtype=torch.bool))
        running = torch.where(ended, 0.0, running)
    expected = torch.stack(returns, 1).flatten(2).flatten(1).numpy().std(1)
    scaled = normalize.scale(stats, rewards[0])
    np.testing.assert_allclose((rewards[0] / scaled).numpy(), np.repeat(expected[:, None], 3, 1), rtol=1e-6)
    first = rewards[0, 1, 2] * 0.25 + rewards[1, 1, 2] * 0.5 + rewards[2, 1, 2]  # three steps of an episode
    assert not over[:2, 1, 2].any()
    assert returns[2][1, 2].item() == pytest.approx(first.item())


def test_ranks_are_checked():
    stats = normalize.init(2, 3)
    for call in (
        lambda: normalize.update(stats, torch.zeros(2, 3), torch.ones(2, 3, dtype=torch.bool)),
        lambda: normalize.update(stats, torch.zeros(2, 5, 3), torch.ones(2, 1, dtype=torch.bool)),
        lambda: normalize.update(stats, torch.zeros(1, 5, 3), torch.ones(1, 5, dtype=torch.bool)),
        lambda: normalize.apply(stats, torch.zeros(2, 5, 4)),
        lambda: normalize.scale(stats, torch.zeros(2, 5)),
        lambda: normalize.discounted(torch.zeros(2), torch.zeros(2), 0.9),
        lambda: normalize.discounted(torch.zeros(2, 3), torch.zeros(2), 0.9),
    ):
        with pytest.raises(PgkitError, match="expected"):
            call()
