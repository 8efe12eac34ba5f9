"""One seed per member, many disjoint named streams.

A stream is a 64-bit key derived with :class:`numpy.random.SeedSequence` from ``(seed, stream name, index)``,
never from ``seed + i``. Numbers are a pure function of key and counter (SplitMix64, Steele, Lea and Flood 2014,
"Fast splittable pseudorandom number generators"), so a member draws the same numbers whoever trains beside it,
on any device, and resuming needs nothing but the counter.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

STREAMS = ("weights", "action", "env", "shuffle", "evaluation_env", "evaluation_action", "report_env", "report_action")

_GOLDEN = 0x9E3779B97F4A7C15 - 2**64
_MIX_1 = 0xBF58476D1CE4E5B9 - 2**64
_MIX_2 = 0x94D049BB133111EB - 2**64


def stream_seed(seed: int, stream: str, index: int = 0) -> int:
    """A 64-bit integer seed of stream ``stream`` (one of ``STREAMS``), sub-stream ``index``, of run ``seed``."""
    sequence = np.random.SeedSequence(seed, spawn_key=(STREAMS.index(stream), index))
    return int(sequence.generate_state(1, np.uint64)[0])


def stream_keys(seeds: Sequence[int], stream: str, count: int | None = None) -> Tensor:
    """Keys for :func:`uniform`: int64 ``(P,)``, or ``(P, count)`` with one key per sub-stream."""
    indices = range(1 if count is None else count)
    keys = [[stream_seed(seed, stream, index) for index in indices] for seed in seeds]
    tensor = torch.from_numpy(np.array(keys, dtype=np.uint64).view(np.int64))
    return tensor[:, 0] if count is None else tensor


def uniform(key: Tensor, counter: Tensor) -> Tensor:
    """Numbers in the open interval (0, 1), float32 with 23 random bits, of the broadcast shape of the arguments.

    Args:
        key: int64, of any shape.
        counter: int64, broadcastable against ``key``; the position in the stream.
    """
    bits = key + (counter + 1) * _GOLDEN
    bits = (bits ^ _shift_right(bits, 30)) * _MIX_1
    bits = (bits ^ _shift_right(bits, 27)) * _MIX_2
    bits = bits ^ _shift_right(bits, 31)
    return (_shift_right(bits, 41).to(torch.float32) + 0.5) * 2.0**-23


def _shift_right(bits: Tensor, count: int) -> Tensor:
    """Logical shift of int64 seen as unsigned."""
    return (bits >> count) & ((1 << (64 - count)) - 1)
