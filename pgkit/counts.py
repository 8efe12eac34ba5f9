"""Counting what happens in environments."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from pgkit.scans import scan
from pgkit.types import Rollout

COUNTS = 6
"""Of an environment: return and length of the episode under way, then the fields of :class:`Statistics`."""


class Statistics(NamedTuple):
    """What the environments reported since the start of the run, unscaled; every field float64 ``(P,)``.

    Attributes:
        env_steps: real environment steps; reset steps of autoreset and idle environments do not count.
        episodes: episodes that ended.
        returns: sum of their undiscounted returns.
        lengths: sum of their lengths in steps.
    """

    env_steps: Tensor
    episodes: Tensor
    returns: Tensor
    lengths: Tensor


def begin(so_far: Tensor) -> Tensor:
    """Counts ``(6, P, N)`` before a rollout, by returns and lengths of the episodes under way, ``(P, 2, N)``."""
    members, _, count = so_far.shape
    counts = so_far.new_zeros(COUNTS, members, count)
    counts[:2] = so_far.transpose(0, 1)
    return counts


def count(so_far: Tensor, rollout: Rollout) -> Tensor:
    """Counts ``(6, P, N)`` after a rollout, see :func:`begin`."""
    counts = begin(so_far)
    scan(counted, counts.unbind(0), [rollout.reward, rollout.terminated, rollout.truncated, rollout.valid])
    return counts


def counted(so_far: Any, length: Any, steps: Any, episodes: Any, returns: Any, lengths: Any, *now: Any) -> list[Any]:
    """The counts of an environment after one more step: reward, terminated, truncated, valid."""
    reward, terminated, truncated, valid = now
    real, done = valid.to(torch.float64), terminated | truncated
    so_far, length = so_far + reward.to(torch.float64), length + real
    returns, lengths = (x + torch.where(done, y, 0.0) for x, y in ((returns, so_far), (lengths, length)))
    so_far, length = (torch.where(done, 0.0, x) for x in (so_far, length))
    return [so_far, length, steps + real, episodes + done.to(torch.float64), returns, lengths]
