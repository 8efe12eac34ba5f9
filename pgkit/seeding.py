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


def stream_seed(seed: int, stream: str, index: int = 0) -> int:
    """Derive a 64-bit seed for sub-stream ``index`` of ``stream`` (one of ``STREAMS``) from the seed of a run."""
    sequence = np.random.SeedSequence(seed, spawn_key=(STREAMS.index(stream), index))
    return int(sequence.generate_state(1, np.uint64)[0])


def stream_keys(seeds: Sequence[int], stream: str, count: int | None = None) -> Tensor:
    """Derive keys for :func:`uniform` from P seeds: int64 ``(P,)``, or ``(P, count)`` with one key per sub-stream."""
    indices = range(1 if count is None else count)
    keys = [[stream_seed(seed, stream, index) for index in indices] for seed in seeds]
    tensor = torch.from_numpy(np.array(keys, dtype=np.uint64).view(np.int64))
    return tensor[:, 0] if count is None else tensor


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
