"""What recurrent policies remember while they act, and what their learner gets of it."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from pgkit.envs.base import Transition
from pgkit.nn.gru import sequences
from pgkit.types import Rollout


def forget(memory: Tensor, step: Transition) -> Tensor:
    """The memory ``(P, N, M)`` for the step after this one: 0 where an episode begins with it.

    Args:
        memory: after this step.
        step: what happened in it.
    """
    if not memory.shape[-1]:
        return memory
    begins = _episode_begins_next(step).view(*memory.shape[:2], 1)
    return torch.where(begins, 0.0, memory)


def as_sequences(rollout: Rollout, memory: Tensor, after: Sequence[Tensor] = ()) -> Rollout:
    """Append to the observations of a rollout what a recurrent policy needs to go over them again.

    Args:
        rollout: T steps.
        memory: ``(P, N, M)`` before the first step.
        after: T times ``(P, N, M)``, after each step before anything is forgotten; for rollouts with ``final_obs``.
    """
    if not memory.shape[-1]:
        return rollout
    begins = torch.cat([torch.zeros_like(rollout.valid[:1]), _episode_begins_next(rollout)])
    final_obs = rollout.final_obs
    if final_obs is not None:
        final_obs = sequences(final_obs, torch.stack(list(after)), torch.zeros_like(rollout.valid))
    return replace(rollout, obs=sequences(rollout.obs, memory, begins), final_obs=final_obs)


def _episode_begins_next(steps: Rollout | Transition) -> Tensor:
    """Bool, of the shape of ``steps.valid``: whether the next observation is the first of an episode."""
    if steps.final_obs is None:  # NEXT_STEP autoreset: a step that is not valid resets the environment
        return ~steps.valid
    return steps.terminated | steps.truncated
