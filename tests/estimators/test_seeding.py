"""Random streams: disjoint, reproducible, uniform, and SplitMix64 as it was published."""

import numpy as np
import pytest
import torch
from torch import Tensor

from pgkit.envs.pcg64 import seeded
from pgkit.seeding import STREAMS, stream_keys, stream_seed, stream_seeds, uniform

COUNT = 1 << 16

# First outputs for seed 1234567 of the generator as published (Vigna's splitmix64.c).
PUBLISHED = (
    6457827717110365317,
    3203168211198807973,
    9817491932198370423,
    4593380528125082431,
    16408922859458223821,
)


def draw(seed: int, stream: str = "action", count: int = COUNT) -> Tensor:
    """The first numbers of a stream, float64."""
    return uniform(stream_keys([seed], stream), torch.arange(count)).double()


def test_a_stream_seed_is_a_function_of_its_arguments() -> None:
    assert stream_seed(3, "env", 2) == stream_seed(3, "env", 2)
    assert 0 <= stream_seed(3, "env", 2) < 2**64


SEEDS = [0, 1, 7, 2**31, 2**32 - 1, 2**32, 2**53 + 1, 2**63 - 1, 2**64 - 1]


def test_many_stream_seeds_are_those_of_numpy() -> None:
    indices = [0, 1, 2**32 - 1, 5, 0, 3, 2**31, 17, 2]
    expected = [stream_seed(seed, "env", index) for seed, index in zip(SEEDS, indices, strict=True)]
    assert stream_seeds(SEEDS, "env", indices) == expected


def test_generators_are_those_of_numpy() -> None:
    columns = zip(*(half.tolist() for half in seeded(SEEDS)), strict=True)
    for seed, numbers in zip(SEEDS, columns, strict=True):
        state = np.random.default_rng(seed).bit_generator.state["state"]
        assert [number % 2**64 for number in numbers] == [*divmod(state["state"], 2**64), *divmod(state["inc"], 2**64)]


@pytest.mark.parametrize("other", [(4, "env", 2), (3, "action", 2), (3, "env", 3), (3, "evaluation_env", 2)])
def test_another_seed_stream_or_index_is_another_stream(other: tuple[int, str, int]) -> None:
    assert stream_seed(*other) != stream_seed(3, "env", 2)


def test_no_two_streams_of_a_study_are_equal() -> None:
    seeds = [stream_seed(seed, stream, n) for seed in range(10) for stream in STREAMS for n in range(8)]
    assert len(set(seeds)) == len(seeds)


def test_ten_seeds_have_eighty_different_environments() -> None:
    assert len({stream_seed(seed, "env", n) for seed in range(10) for n in range(8)}) == 80


def test_an_unknown_stream_is_an_error() -> None:
    with pytest.raises(ValueError, match="not in"):
        stream_seed(0, "weather")


def test_keys_are_the_stream_seeds_as_signed_integers() -> None:
    keys = stream_keys([5, 1], "shuffle", 3)
    expected = [[stream_seed(seed, "shuffle", index) for index in range(3)] for seed in (5, 1)]
    assert keys.dtype == torch.int64
    assert [[key % 2**64 for key in row] for row in keys.tolist()] == expected
    assert torch.equal(stream_keys([5, 1], "shuffle"), keys[:, 0])


def test_uniform_is_the_top_of_the_published_generator() -> None:
    numbers = uniform(torch.tensor(1234567), torch.arange(len(PUBLISHED)))
    assert numbers.dtype == torch.float32
    assert numbers.tolist() == [((bits >> 41) + 0.5) / 2**23 for bits in PUBLISHED]


def test_numbers_lie_in_the_open_interval() -> None:
    """Half a step away from both ends, so that every inverse distribution function stays finite."""
    numbers = uniform(stream_keys(range(16), "action")[:, None], torch.arange(COUNT))
    assert numbers.min() >= 2.0**-24
    assert numbers.max() <= 1 - 2.0**-24
    assert torch.special.ndtri(numbers).isfinite().all()


@pytest.mark.parametrize("seed", [0, 1, 2**40])
def test_moments_and_correlation_are_those_of_independent_uniform_numbers(seed: int) -> None:
    """Bounds are four standard errors."""
    x = draw(seed)
    centred = x - 0.5
    assert abs(centred.mean()) < 4 * (1 / 12 / COUNT) ** 0.5
    assert abs(centred.square().mean() - 1 / 12) < 4 * (1 / 180 / COUNT) ** 0.5
    for lag in (1, 2, 7):
        assert abs((centred[lag:] * centred[:-lag]).mean() * 12) < 4 / COUNT**0.5


@pytest.mark.parametrize("seed", [0, 1, 2**40])
def test_all_parts_of_the_interval_are_equally_likely(seed: int) -> None:
    """Chi-square of 256 equal parts: 255 degrees of freedom, four standard deviations around the mean."""
    counts = torch.bincount((draw(seed) * 256).long(), minlength=256).double()
    statistic = ((counts - COUNT / 256).square() / (COUNT / 256)).sum()
    assert abs(statistic - 255) < 4 * (2 * 255) ** 0.5


@pytest.mark.parametrize("others", [("action", 1), ("env", 0)])
def test_neighbouring_streams_are_not_correlated(others: tuple[str, int]) -> None:
    stream, seed = others
    product = (draw(0) - 0.5) * (draw(seed, stream) - 0.5)
    assert abs(product.mean() * 12) < 4 / COUNT**0.5


def test_one_step_over_many_keys_is_uniform_too() -> None:
    """Members and environments draw at the same counter: that column must be as good as a row."""
    keys = stream_keys(range(64), "action", 64).flatten()
    x = uniform(keys, torch.zeros(1, dtype=torch.int64)).double()
    assert len(x.unique()) > 0.99 * len(x)
    assert abs(x.mean() - 0.5) < 4 * (1 / 12 / len(x)) ** 0.5
    assert abs((x[1:] - 0.5).mul(x[:-1] - 0.5).mean() * 12) < 4 / len(x) ** 0.5


def test_the_shape_of_the_batch_changes_no_bit() -> None:
    keys, counters = stream_keys(range(6), "action"), torch.arange(35).view(5, 7) + (1 << 40)
    together = uniform(keys[:, None, None], counters)
    assert together.shape == (6, 5, 7)
    for member, key in enumerate(keys):
        assert torch.equal(uniform(key, counters), together[member])
        assert torch.equal(uniform(key, counters[3, 4]), together[member, 3, 4])
    assert torch.equal(uniform(keys.flip(0)[:, None, None], counters), together.flip(0))
    assert torch.equal(uniform(keys, counters[2, 1]), together[:, 2, 1])
