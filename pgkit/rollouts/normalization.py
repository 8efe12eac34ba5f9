"""Scaling of rollouts for the learner, by running statistics that belong to each member alone."""

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from pgkit.envs import normalize
from pgkit.tree import member_samples
from pgkit.types import Rollout


class Normalization(NamedTuple):
    """How the learner's observations and rewards differ from those of the environment.

    Attributes:
        reward_scale: constant factor of every reward.
        observations: subtract the running mean, divide by the running standard deviation, per member.
        rewards: divide by the running standard deviation of the discounted return, per member.
        gamma: discount of that return, ``(P,)``.
    """

    reward_scale: float
    observations: bool
    rewards: bool
    gamma: Tensor

    @property
    def uses_statistics(self) -> bool:
        """Whether anything is scaled by running statistics."""
        return self.observations or self.rewards


def normalize_observations(rollout: Rollout, stats: normalize.Stats) -> tuple[Rollout, normalize.Stats]:
    """Scale observations by the statistics that the actions were chosen with, then add this rollout to them.

    Args:
        rollout: T steps of P members.
        stats: statistics of the observations before it.
    """

    def normalized(obs: Tensor) -> Tensor:
        return normalize.apply_to_features(stats, obs.transpose(0, 1)).transpose(0, 1)

    features = member_samples(rollout.obs[:-1])[..., : stats["mean"].shape[1]]
    updated = normalize.update(stats, features, member_samples(rollout.valid))
    final_obs = None if rollout.final_obs is None else normalized(rollout.final_obs)
    return replace(rollout, obs=normalized(rollout.obs), final_obs=final_obs), updated


def normalize_rewards(
    rollout: Rollout, stats: normalize.Stats, discounted: Tensor, gamma: Tensor
) -> tuple[Rollout, normalize.Stats, Tensor]:
    """Divide rewards by the standard deviation of the discounted return, this rollout included.

    Args:
        rollout: T steps of P members.
        stats: statistics of the discounted returns before it.
        discounted: ``(P, N)`` discounted return of the episodes under way.
        gamma: ``(P,)`` discount per step.

    Returns:
        The rollout; statistics and discounted returns after it.
    """
    returns = []
    for reward, done in zip(rollout.reward, rollout.terminated | rollout.truncated, strict=True):
        discounted = normalize.discounted(discounted, reward, gamma)
        returns.append(discounted)
        discounted = torch.where(done, 0.0, discounted)
    samples = member_samples(torch.stack(returns)).unsqueeze(2)
    stats = normalize.update(stats, samples, member_samples(rollout.valid))
    scaled = normalize.scale(stats, member_samples(rollout.reward)).view(rollout.reward.transpose(0, 1).shape)
    return replace(rollout, reward=scaled.transpose(0, 1)), stats, discounted
