"""Counting what happens in environments."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from pgkit.kernels.scan import scan, total
from pgkit.types import Rollout

NUM_ENV_STATS = 6
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


def init_env_stats(members: int, count: int, device: torch.device) -> Tensor:
    """Counts ``(P, 6, N)``, float64, of environments that have just been reset."""
    return torch.zeros(members, NUM_ENV_STATS, count, dtype=torch.float64, device=device)


def update_env_stats(counts: Tensor, rollout: Rollout) -> Tensor:
    """Counts ``(P, 6, N)`` after one more rollout."""
    carried = [column.contiguous() for column in counts.unbind(1)]
    scan(step_env_stats, carried, [rollout.reward, rollout.terminated, rollout.truncated, rollout.valid])
    return torch.stack(carried, 1)


def member_statistics(counts: Tensor) -> Statistics:
    """What counts ``(P, 6, N)`` are of all environments of a member together."""
    return Statistics(*(total(column) for column in counts.unbind(1)[2:]))


def env_steps(counts: Tensor) -> Tensor:
    """The same, of environment steps alone."""
    return total(counts[:, 2])


def step_env_stats(
    so_far: Any, length: Any, steps: Any, episodes: Any, returns: Any, lengths: Any, *now: Any
) -> list[Any]:
    """The counts of an environment after one more step: reward, terminated, truncated, valid."""
    reward, terminated, truncated, valid = now
    real, done = valid.to(torch.float64), terminated | truncated
    so_far, length = so_far + reward.to(torch.float64), length + real
    returns, lengths = (x + torch.where(done, y, 0.0) for x, y in ((returns, so_far), (lengths, length)))
    so_far, length = (torch.where(done, 0.0, x) for x in (so_far, length))
    return [so_far, length, steps + real, episodes + done.to(torch.float64), returns, lengths]
