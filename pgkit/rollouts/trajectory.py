"""Rollouts of members, put together from single steps."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from pgkit.envs.base import Transition
from pgkit.tree import MemberRows
from pgkit.types import Rollout


class MemberRollout(NamedTuple):
    """A rollout of some members: ``rows`` are their places in the parameters, the rollout's P their number.

    ``raw`` is the same with observations and rewards as the environments gave them.
    """

    rows: MemberRows
    rollout: Rollout
    raw: Rollout

    def without_cache(self) -> "MemberRollout":
        """Drop what networks have computed of the observations."""
        return MemberRollout(self.rows, replace(self.rollout, cache=None), replace(self.raw, cache=None))


def _unflatten(obs: Tensor, action: Tensor, result: Transition) -> Rollout:
    """One step of all environments as ``(P, N, ...)``."""
    shape = obs.shape[:2]
    final_obs = None if result.final_obs is None else result.final_obs.view_as(obs)
    terminated, truncated, valid = (flag.view(shape) for flag in (result.terminated, result.truncated, result.valid))
    return Rollout(obs, action, result.reward.view(shape), terminated, truncated, valid, final_obs)


def _stack(record: Sequence[Rollout], last_obs: Tensor) -> Rollout:
    """Single steps ``(P, N, ...)`` as one rollout ``(T, P, N, ...)``, the numbers of a member one behind the other."""
    final_obs = [step.final_obs for step in record if step.final_obs is not None]

    def stacked(steps: Sequence[Tensor]) -> Tensor:
        return torch.stack(list(steps), 1).transpose(0, 1)

    return Rollout(
        obs=stacked([*(step.obs for step in record), last_obs]),
        action=stacked([step.action for step in record]),
        reward=stacked([step.reward for step in record]),
        terminated=stacked([step.terminated for step in record]),
        truncated=stacked([step.truncated for step in record]),
        valid=stacked([step.valid for step in record]),
        final_obs=stacked(final_obs) if final_obs else None,
    )


def _joined(record: Sequence[Rollout], rows: Tensor) -> Rollout:
    """Rollouts one after the other, of some members; ``rows`` is a mask ``(P,)``."""

    def joined(parts: Sequence[Tensor]) -> Tensor:
        return torch.cat([part.transpose(0, 1)[rows] for part in parts], 1).transpose(0, 1)

    obs = [*(part.obs[:-1] for part in record), record[-1].obs[-1:]]
    names = ("action", "reward", "terminated", "truncated", "valid")
    return Rollout(joined(obs), *(joined([getattr(part, name) for part in record]) for name in names))


def _pad(rollout: Rollout, length: int) -> Rollout:
    """The rollout continued with steps that are none, to ``length`` steps."""
    missing = length - len(rollout.valid)

    def padded(x: Tensor) -> Tensor:
        return torch.cat([x, x.new_zeros(missing, *x.shape[1:])]) if missing else x

    tensors = (rollout.obs, rollout.action, rollout.reward, rollout.terminated, rollout.truncated, rollout.valid)
    return Rollout(*(padded(tensor) for tensor in tensors))
