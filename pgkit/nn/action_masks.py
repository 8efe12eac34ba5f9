"""Action masks: which actions a policy may choose, as columns of an observation behind those that networks see.

Observations are ``(..., D)``, or ``(..., D + M)`` with a mask of M numbers, 1 for each choice that is allowed and 0 for
the others: the choices of all components of an action, one component after the other, as in sb3-contrib's MaskablePPO.
So a mask goes wherever its observation goes: into rollouts, minibatches, evaluations and checkpoints.

>>> outputs = torch.tensor([[[0.5, 2.0, 0.5]]])
>>> exclude(outputs, torch.tensor([[[1.0, 0.0, 1.0]]]), choices=(3,)).softmax(-1)
tensor([[[0.5000, 0.0000, 0.5000]]])
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def append_mask(obs: Tensor, action_mask: Tensor) -> Tensor:
    """Observations with their masks, ``(..., D), (..., M) -> (..., D + M)``, as policies take them."""
    return torch.cat([obs, action_mask.to(obs)], -1)


def split_mask(obs: Tensor, obs_dim: int) -> tuple[Tensor, Tensor | None]:
    """The features ``(..., D)`` that networks see, and the mask ``(..., M)``; None if there is none."""
    if obs.shape[-1] <= obs_dim:
        return obs, None
    return obs[..., :obs_dim], obs[..., obs_dim:]


def exclude(outputs: Tensor, action_mask: Tensor, choices: Sequence[int]) -> Tensor:
    """Give choices that are not allowed the logit -inf: probability 0, no part in entropies and divergences.

    Where no choice of a component is allowed, all are: so it is in padding, and where an episode is over.

    Args:
        outputs: logits ``(..., M)``.
        action_mask: ``(..., M)``, 0 where a choice is not allowed.
        choices: of each component, M in all.

    Raises:
        ValueError: the mask does not have M numbers.
    """
    if action_mask.shape[-1] != sum(choices):
        raise ValueError(f"expected an action mask of {sum(choices)} numbers, got {action_mask.shape[-1]}")
    allowed = action_mask != 0
    parts = [part | ~part.any(-1, keepdim=True) for part in allowed.split(list(choices), -1)]
    return torch.where(torch.cat(parts, -1), outputs, -torch.inf)
