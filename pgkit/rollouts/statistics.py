"""Statistics of episodes, as the environments report them: before any normalization.

For each environment a rollout carries six numbers, "env stats" ``(P, 6, N)`` float64: return and length of the running
episode, then the four fields of :class:`Statistics`, summed since the start of the run.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from pgkit.kernels.scan import scan, total
from pgkit.types import Rollout

NUM_ENV_STATS = 6
"""Numbers per environment."""


class Statistics(NamedTuple):
    """Totals since the start of the run: float64 ``(P,)`` of members, or ``(P, N)`` of single environments.

    Attributes:
        env_steps: environment steps; reset steps and steps of idle environments do not count.
        episodes: finished episodes.
        returns: sum of their undiscounted returns.
        lengths: sum of their lengths in steps.
    """

    env_steps: Tensor
    episodes: Tensor
    returns: Tensor
    lengths: Tensor


def init_env_stats(members: int, num_envs: int, device: torch.device) -> Tensor:
    """Env stats ``(P, 6, N)`` of environments that have just been reset for the first time."""
    return torch.zeros(members, NUM_ENV_STATS, num_envs, dtype=torch.float64, device=device)


def update_env_stats(env_stats: Tensor, rollout: Rollout) -> Tensor:
    """Env stats ``(P, 6, N)`` after one more rollout."""
    columns = [column.contiguous() for column in env_stats.unbind(1)]
    scan(step_env_stats, columns, [rollout.reward, rollout.terminated, rollout.truncated, rollout.valid])
    return torch.stack(columns, 1)


def member_statistics(env_stats: Tensor) -> Statistics:
    """Totals over all environments of each member, fields ``(P,)``."""
    return Statistics(*(total(column) for column in env_stats.unbind(1)[2:]))


def per_env_statistics(env_stats: Tensor) -> Statistics:
    """Totals of each environment, fields ``(P, N)``."""
    return Statistics(*env_stats.unbind(1)[2:])


def env_steps(env_stats: Tensor) -> Tensor:
    """Environment steps of each member, float64 ``(P,)``."""
    return total(env_stats[:, 2])


def step_env_stats(
    episode_return: Any,
    episode_length: Any,
    steps: Any,
    episodes: Any,
    returns: Any,
    lengths: Any,
    reward: Any,
    terminated: Any,
    truncated: Any,
    valid: Any,
) -> list[Any]:
    """The six numbers of one environment after a step; works on tensors and on traced scalars."""
    real = valid.to(torch.float64)
    over = terminated | truncated
    episode_return = episode_return + reward.to(torch.float64)
    episode_length = episode_length + real
    return [
        torch.where(over, 0.0, episode_return),
        torch.where(over, 0.0, episode_length),
        steps + real,
        episodes + over.to(torch.float64),
        returns + torch.where(over, episode_return, 0.0),
        lengths + torch.where(over, episode_length, 0.0),
    ]
