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


def stack_transitions(obs: Sequence[Tensor], actions: Sequence[Tensor], transitions: Sequence[Transition]) -> Rollout:
    """Put T steps of ``P * N`` environments together as a rollout, in memory as :func:`stack_steps` has it.

    Args:
        obs: T + 1 times ``(P, N, D)``, before each step and after the last one.
        actions: T times ``(P, N)`` or ``(P, N, A)``.
        transitions: T times ``(P * N, ...)``.
    """
    members = obs[0].shape[:2]

    def stack(tensors: Sequence[Tensor]) -> Tensor:
        return torch.stack(list(tensors)).unflatten(1, members).transpose(0, 1).contiguous().transpose(0, 1)

    final_obs = [step.final_obs for step in transitions if step.final_obs is not None]
    return Rollout(
        obs=_stack_members(obs),
        action=_stack_members(actions),
        reward=stack([step.reward for step in transitions]),
        terminated=stack([step.terminated for step in transitions]),
        truncated=stack([step.truncated for step in transitions]),
        valid=stack([step.valid for step in transitions]),
        final_obs=stack(final_obs) if final_obs else None,
    )


def stack_steps(steps: Sequence[Rollout], last_obs: Tensor) -> Rollout:
    """Stack steps ``(P, N, ...)`` into a rollout ``(T, P, N, ...)``.

    In memory, the numbers of a member stand one behind the other: sums over them round alike for any P.

    Args:
        steps: T of them, rollouts without a time axis and without ``final_obs``.
        last_obs: ``(P, N, D)`` after the last one.
    """
    return Rollout(
        obs=_stack_members([*(step.obs for step in steps), last_obs]),
        action=_stack_members([step.action for step in steps]),
        reward=_stack_members([step.reward for step in steps]),
        terminated=_stack_members([step.terminated for step in steps]),
        truncated=_stack_members([step.truncated for step in steps]),
        valid=_stack_members([step.valid for step in steps]),
    )


def _stack_members(tensors: Sequence[Tensor]) -> Tensor:
    """Stack tensors ``(P, ...)`` to ``(T, P, ...)``, whose memory is member-major."""
    return torch.stack(list(tensors), 1).transpose(0, 1)


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
