"""Random numbers: one seed per member, and many independent named streams for each seed.

A stream is a 64-bit key, which :class:`numpy.random.SeedSequence` derives from ``(seed, stream name, index)``, never
from ``seed + i``. The numbers of a stream are a pure function of its key and a counter (SplitMix64: Steele, Lea and
Flood 2014, "Fast splittable pseudorandom number generators"). So a member draws the same numbers whichever members
train beside it and on any device, and resuming a stream takes nothing but its counter.

>>> keys = stream_keys([0, 1], "action")  # P = 2
>>> uniform(keys[:, None], torch.arange(3)).shape
torch.Size([2, 3])
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

STREAMS = (
    "weights",
    "action",
    "env",
    "shuffle",
    "evaluation_env",
    "evaluation_action",
    "report_env",
    "report_action",
    "predict_action",
    "diagnosis_env",
    "diagnosis_action",
    "diagnosis_copy",
)

_GOLDEN = 0x9E3779B97F4A7C15 - 2**64
_MIX_1 = 0xBF58476D1CE4E5B9 - 2**64
_MIX_2 = 0x94D049BB133111EB - 2**64

_POOL = 4  # of NumPy's SeedSequence, as the constants below
_HASH_A, _MULTIPLY_A = 0x43B0D7E5, 0x931E8875
_HASH_B, _MULTIPLY_B = 0x8B51F9DD, 0x58F38DED
_MIX_LEFT, _MIX_RIGHT = 0xCA01F9DD, 0x4973F715
_LOW_HALF = 2**32 - 1


def stream_seed(seed: int, stream: str, index: int = 0) -> int:
    """Derive a 64-bit seed for sub-stream ``index`` of ``stream`` (one of ``STREAMS``) from the seed of a run."""
    sequence = np.random.SeedSequence(seed, spawn_key=(STREAMS.index(stream), index))
    return int(sequence.generate_state(1, np.uint64)[0])


def stream_seeds(seeds: Sequence[int], stream: str, indices: Sequence[int]) -> list[int]:
    """Derive the seeds of :func:`stream_seed` for each of K seeds and its sub-stream, many at once."""
    return seed_sequence_words(seeds, (STREAMS.index(stream), indices), 1)[0].tolist()


def stream_keys(seeds: Sequence[int], stream: str, count: int | None = None) -> Tensor:
    """Derive keys for :func:`uniform` from P seeds: int64 ``(P,)``, or ``(P, count)`` with one key per sub-stream."""
    indices = range(1 if count is None else count)
    keys = stream_seeds([seed for seed in seeds for _ in indices], stream, [*indices] * len(seeds))
    tensor = torch.from_numpy(np.array(keys, dtype=np.uint64).view(np.int64)).view(len(seeds), len(indices))
    return tensor[:, 0] if count is None else tensor


def seed_sequence_words(
    seeds: Sequence[int], spawn_key: tuple[int, Sequence[int]] | None, words: int
) -> NDArray[np.uint64]:
    """Compute ``SeedSequence(seed, spawn_key=...).generate_state(words, np.uint64)`` of K seeds at once.

    The words are those of NumPy, which hashes one seed at a time: a hundred thousand take a second there.

    Source: numpy/random/bit_generator.pyx, after O'Neill 2015, "Developing a seed_seq alternative".

    >>> sequence = np.random.SeedSequence(7, spawn_key=(2, 5))
    >>> seed_sequence_words([7], (2, [5]), 3)[:, 0].tolist() == sequence.generate_state(3, np.uint64).tolist()
    True

    Args:
        seeds: K integers from 0 to 2^64 - 1.
        spawn_key: a number, and K numbers, all from 0 to 2^32 - 1; None for an empty key.
        words: of each seed.

    Returns:
        ``(words, K)``.

    Raises:
        ValueError: a number of the spawn key is too large.
    """
    columns = [*_halves(seeds), 0, 0]
    if spawn_key is not None:
        low, high = _halves(spawn_key[1])
        if high.any():
            raise ValueError("expected sub-streams below 2^32")
        columns += [spawn_key[0], low]
    entropy = [np.broadcast_to(np.asarray(column, dtype=np.uint32), len(seeds)) for column in columns]
    pool = _mixed_pool(entropy)
    constant = _HASH_B
    halves = np.empty((2 * words, len(seeds)), dtype=np.uint64)
    for k in range(2 * words):
        halves[k], constant = _hashed(pool[k % _POOL], constant, _MULTIPLY_B)
    return halves[::2] | halves[1::2] << np.uint64(32)


def _halves(numbers: Sequence[int]) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """The lower and the higher 32 bits."""
    whole = np.array(numbers, dtype=np.uint64)
    return (whole & np.uint64(_LOW_HALF)).astype(np.uint32), (whole >> np.uint64(32)).astype(np.uint32)


def _mixed_pool(entropy: Sequence[NDArray[np.uint32]]) -> list[NDArray[np.uint32]]:
    """Let each word of the entropy change each word of the pool."""
    constant = _HASH_A
    pool = []
    for word in entropy[:_POOL]:
        hashed, constant = _hashed(word, constant, _MULTIPLY_A)
        pool.append(hashed)
    for source in range(len(entropy)):
        for target in range(_POOL):
            if source != target:
                word = pool[source] if source < _POOL else entropy[source]
                hashed, constant = _hashed(word, constant, _MULTIPLY_A)
                mixed = pool[target] * np.uint32(_MIX_LEFT) - hashed * np.uint32(_MIX_RIGHT)
                pool[target] = mixed ^ mixed >> np.uint32(16)
    return pool


def _hashed(word: NDArray[np.uint32], constant: int, multiplier: int) -> tuple[NDArray[np.uint32], int]:
    """Words whose bits are spread, and the next constant; arrays of unsigned numbers wrap around in silence."""
    following = constant * multiplier & _LOW_HALF
    word = (word ^ np.uint32(constant)) * np.uint32(following)
    return word ^ word >> np.uint32(16), following


def random_bits(key: Tensor, counter: Tensor) -> Tensor:
    """Draw 64 random bits, int64, in the arguments' broadcast shape; arguments as :func:`uniform`."""
    bits = key + (counter + 1) * _GOLDEN
    bits = (bits ^ _shift_right(bits, 30)) * _MIX_1
    bits = (bits ^ _shift_right(bits, 27)) * _MIX_2
    return bits ^ _shift_right(bits, 31)


def uniform(key: Tensor, counter: Tensor) -> Tensor:
    """Draw numbers from the open interval (0, 1): float32 with 23 random bits, in the arguments' broadcast shape.

    Args:
        key: int64, of any shape.
        counter: int64, broadcastable against ``key``, the position in the stream.
    """
    return (_shift_right(random_bits(key, counter), 41).to(torch.float32) + 0.5) * 2.0**-23


def sort_key(key: Tensor, counter: Tensor, index: Tensor) -> Tensor:
    """Draw a number whose order among others is random: 31 random bits, then ``index`` (below 2^32), int64 >= 0."""
    return (_shift_right(random_bits(key, counter), 33) << 32) | index


def _shift_right(bits: Tensor, count: int) -> Tensor:
    """Shift the bits of int64 to the right and fill with zeros, as for an unsigned integer."""
    return (bits >> count) & ((1 << (64 - count)) - 1)
