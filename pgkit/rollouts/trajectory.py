"""Rollouts of some members, put together from single steps and from chunks."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from pgkit.envs.base import Transition
from pgkit.tree import MemberRows
from pgkit.types import Rollout


class MemberRollout(NamedTuple):
    """What some members of a population did for one update.

    Attributes:
        rows: their places in the parameters, None for all members; the rollout's P is their number.
        rollout: observations and rewards as the learner sees them.
        unnormalized: the same as the environments gave them.
        steps_before: float64 ``(P,)``, environment steps of each of these members before the rollout.
    """

    rows: MemberRows
    rollout: Rollout
    unnormalized: Rollout
    steps_before: Tensor

    def without_cache(self) -> "MemberRollout":
        """Drop the forward passes that acting has computed."""
        rollout = replace(self.rollout, cache=None)
        return self._replace(rollout=rollout, unnormalized=replace(self.unnormalized, cache=None))


def unflatten_step(obs: Tensor, action: Tensor, transition: Transition) -> Rollout:
    """One step of ``P * N`` environments as a rollout without a time axis.

    Args:
        obs: ``(P, N, D)`` before the step.
        action: ``(P, N)`` or ``(P, N, A)``.
        transition: of all these environments, ``(P * N, ...)``.
    """
    shape = obs.shape[:2]
    flags = (transition.terminated, transition.truncated, transition.valid)
    terminated, truncated, valid = (flag.view(shape) for flag in flags)
    final_obs = None if transition.final_obs is None else transition.final_obs.view_as(obs)
    return Rollout(obs, action, transition.reward.view(shape), terminated, truncated, valid, final_obs)


def stack_steps(steps: Sequence[Rollout], last_obs: Tensor) -> Rollout:
    """Stack steps ``(P, N, ...)`` into a rollout ``(T, P, N, ...)``.

    In memory, the numbers of a member stand one behind the other: sums over them round alike for any P.

    Args:
        steps: T of them, see :func:`unflatten_step`.
        last_obs: ``(P, N, D)`` after the last one.
    """
    final_obs = [step.final_obs for step in steps if step.final_obs is not None]

    def stack(tensors: Sequence[Tensor]) -> Tensor:
        return torch.stack(list(tensors), 1).transpose(0, 1)

    return Rollout(
        obs=stack([*(step.obs for step in steps), last_obs]),
        action=stack([step.action for step in steps]),
        reward=stack([step.reward for step in steps]),
        terminated=stack([step.terminated for step in steps]),
        truncated=stack([step.truncated for step in steps]),
        valid=stack([step.valid for step in steps]),
        final_obs=stack(final_obs) if final_obs else None,
    )


def concatenate(chunks: Sequence[Rollout], members: Tensor) -> Rollout:
    """Join chunks, one after the other in time, of the members where the mask ``(P,)`` is True."""

    def join(tensors: Sequence[Tensor]) -> Tensor:
        return torch.cat([tensor.transpose(0, 1)[members] for tensor in tensors], 1).transpose(0, 1)

    return Rollout(
        obs=join([*(chunk.obs[:-1] for chunk in chunks), chunks[-1].obs[-1:]]),
        action=join([chunk.action for chunk in chunks]),
        reward=join([chunk.reward for chunk in chunks]),
        terminated=join([chunk.terminated for chunk in chunks]),
        truncated=join([chunk.truncated for chunk in chunks]),
        valid=join([chunk.valid for chunk in chunks]),
    )


def pad(rollout: Rollout, length: int) -> Rollout:
    """Append steps of zeros, which are not ``valid``, up to ``length`` steps."""
    missing = length - len(rollout.valid)

    def padded(x: Tensor) -> Tensor:
        return torch.cat([x, x.new_zeros(missing, *x.shape[1:])]) if missing else x

    tensors = (rollout.obs, rollout.action, rollout.reward, rollout.terminated, rollout.truncated, rollout.valid)
    return Rollout(*(padded(tensor) for tensor in tensors))
