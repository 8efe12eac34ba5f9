"""NumPy's default generator, PCG64, on int64: the same numbers as Gymnasium's ``np_random``, on tensors and compiled.

PCG64 (O'Neill 2014, "PCG: A family of simple fast space-efficient statistically good algorithms for random number
generation") multiplies a state of 128 bits by a constant, adds an increment of the stream, and folds the state into 64
bits: the two halves are xored and rotated by the state's six highest bits (XSL-RR).

The functions work on int64 tensors and on the compiler's traced scalars alike. Both have int64 arithmetic that wraps
around, but no unsigned numbers: unsigned shifts are signed ones with a mask, and products of 128 bits are put together
from 32-bit halves.

>>> import numpy as np
>>> generators, numbers = uniform(seeded([5, 6]), -1.0, 1.0)
>>> numbers.tolist() == [np.random.default_rng(seed).uniform(-1.0, 1.0) for seed in (5, 6)]
True
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from pgkit.seeding import seed_sequence_words

MULTIPLIER_HIGH = 0x2360ED051FC65DA4
MULTIPLIER_LOW = 0x4385DF649FCCF645

EMPTY = -1
"""The buffer of :func:`integers` when no half of a draw is left."""

LARGEST_RANGE = 2**24
"""Integers among which :func:`integers` can choose."""

_LOW_HALF = 2**32 - 1
_LOWEST = -(2**63)


class PCG64(NamedTuple):
    """Generators, one number of each: int64 tensors ``(K,)``, or traced scalars.

    Attributes:
        state_high: the higher 64 bits of the state, which every draw changes.
        state_low: the lower 64 bits.
        increment_high: the higher 64 bits of the stream's increment, which never changes.
        increment_low: the lower 64 bits.
    """

    state_high: Any
    state_low: Any
    increment_high: Any
    increment_low: Any


def seeded(seeds: Sequence[int]) -> PCG64:
    """Generators as ``np.random.default_rng(seed)``, which is how Gymnasium makes ``np_random``.

    Args:
        seeds: K non-negative integers.
    """
    words = torch.from_numpy(seed_sequence_words(seeds, None, 4).view(np.int64))
    high, low, stream_high, stream_low = words.unbind(0)
    increment_high, increment_low = stream_high << 1 | _shift_right(stream_low, 63), stream_low << 1 | 1
    state_high, state_low = _sum((increment_high, increment_low), (high, low))
    return next_uint64(PCG64(state_high, state_low, increment_high, increment_low))[0]


def next_uint64(generator: PCG64) -> tuple[PCG64, Any]:
    """The generator after a draw, and 64 random bits."""
    high, low, increment_high, increment_low = generator
    product_low = low * MULTIPLIER_LOW
    product_high = high * MULTIPLIER_LOW + low * MULTIPLIER_HIGH + _product_high(low, MULTIPLIER_LOW)
    high, low = _sum((product_high, product_low), (increment_high, increment_low))
    return generator._replace(state_high=high, state_low=low), _rotate_right(high ^ low, _shift_right(high, 58))


def _sum(first: tuple[Any, Any], second: tuple[Any, Any]) -> tuple[Any, Any]:
    """The higher and the lower half of a sum of two numbers of 128 bits, which are given likewise."""
    low = first[1] + second[1]
    # A sum of unsigned numbers that is below one of them has wrapped around. Flipping the highest bits makes signed
    # comparisons unsigned ones.
    carry = ((low ^ _LOWEST) < (second[1] ^ _LOWEST)).to(torch.int64)
    return first[0] + second[0] + carry, low


def next_double(generator: PCG64) -> tuple[PCG64, Any]:
    """The generator after a draw, and a float64 in [0, 1): ``Generator.random()``."""
    generator, bits = next_uint64(generator)
    return generator, _shift_right(bits, 11).to(torch.float64) * 2.0**-53


def uniform(generator: PCG64, low: float, high: float) -> tuple[PCG64, Any]:
    """The generator after a draw, and a float64 in [low, high): ``Generator.uniform(low, high)``."""
    generator, number = next_double(generator)
    return generator, number * (high - low) + low


def integers(generator: PCG64, buffer: Any, low: int, high: int) -> tuple[PCG64, Any, Any]:
    """Draw an int64 from low to high - 1: ``Generator.integers(low, high)``.

    NumPy takes 32 bits for such a number, the lower half of a draw first, and keeps the other half for the next one.
    It multiplies them by the number of choices: the higher half of the product is the result, unless the lower half is
    among the few that would make some results more likely (Lemire 2019, "Fast random integer generation in an
    interval"). Then it draws again. Code without loops has to stop at some time: here after so many rejections that
    they happen once in 2^96 draws.

    Args:
        generator: before the draw.
        buffer: int64, the half that is left of the last draw, or ``EMPTY``, which it is after seeding.
        low: the smallest integer.
        high: the largest integer plus one; at most ``LARGEST_RANGE`` above ``low``.

    Returns:
        Generator, buffer and integer.
    """
    count = high - low
    if not 1 <= count <= LARGEST_RANGE:
        raise ValueError(f"integers: expected low < high <= low + {LARGEST_RANGE}, got {low} and {high}")
    if count == 1:  # NumPy draws nothing
        return generator, buffer, buffer * 0 + low
    rejected_below = 2**32 % count
    attempts = 1 if rejected_below == 0 else math.ceil(96 / (32 - math.log2(rejected_below)))
    generator, buffer, bits = _next_uint32(generator, buffer)
    product = bits * count
    for _ in range(attempts - 1):
        again = (product & _LOW_HALF) < rejected_below
        *redrawn_generator, redrawn_buffer, redrawn_bits = _flat(_next_uint32(generator, buffer))
        after = [
            torch.where(again, new, old)
            for new, old in zip([*redrawn_generator, redrawn_buffer], [*generator, buffer], strict=True)
        ]
        generator, buffer = PCG64(*after[:4]), after[4]
        product = torch.where(again, redrawn_bits * count, product)
    return generator, buffer, (product >> 32) + low


def _next_uint32(generator: PCG64, buffer: Any) -> tuple[PCG64, Any, Any]:
    """Generator, buffer, and 32 random bits: the buffer's if there are any, else the lower half of a draw."""
    drawn, bits = next_uint64(generator)
    is_empty = buffer < 0
    after = [torch.where(is_empty, new, old) for new, old in zip(drawn[:2], generator[:2], strict=True)]
    number = torch.where(is_empty, bits & _LOW_HALF, buffer)
    left = torch.where(is_empty, _shift_right(bits, 32), EMPTY)
    return generator._replace(state_high=after[0], state_low=after[1]), left, number


def _flat(draw: tuple[PCG64, Any, Any]) -> list[Any]:
    generator, buffer, bits = draw
    return [*generator, buffer, bits]


def _product_high(x: Any, factor: int) -> Any:
    """The higher 64 bits of the product of two unsigned integers."""
    x_high, x_low = _shift_right(x, 32), x & _LOW_HALF
    factor_high, factor_low = divmod(factor, 2**32)
    # No sum below exceeds 64 bits: the largest product of halves is 2^64 - 2^33 + 1.
    middle = x_high * factor_low + _shift_right(x_low * factor_low, 32)
    other = x_low * factor_high + (middle & _LOW_HALF)
    return x_high * factor_high + _shift_right(middle, 32) + _shift_right(other, 32)


def _rotate_right(bits: Any, count: Any) -> Any:
    """Rotate 64 bits to the right by ``count`` in [0, 63]."""
    # A shift by 64 has no defined result, so the mask of the bits that are not shifted in is shifted in two steps, and
    # the shift to the left is by 0 where the count is 0.
    ones = (count & 0) - 1
    mask = ~((ones << (63 - count)) << 1)
    return ((bits >> count) & mask) | (bits << (-count & 63))


def _shift_right(bits: Any, count: int) -> Any:
    """Shift to the right and fill with zeros."""
    return (bits >> count) & ((1 << (64 - count)) - 1)
