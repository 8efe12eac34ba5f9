"""Averages over the samples of a batch, one number for each member. Pure functions.

Samples are ``(P, B)``; sums run along a contiguous row, so that a member's bits do not depend on P.
"""

import torch
from torch import Tensor


def masked_mean(x: Tensor, valid: Tensor) -> Tensor:
    """Mean of ``x (P, B)`` over the samples where ``valid (P, B)``, ``(P,)``; 0 where there is none.

    Invalid samples may hold anything, NaN included.
    """
    if x.dim() != 2 or x.shape != valid.shape:
        raise ValueError(f"expected x and valid of one shape (P, B), got {tuple(x.shape)} and {tuple(valid.shape)}")
    return torch.where(valid, x, 0.0).contiguous().sum(1) / valid.sum(1).clamp(min=1)


def policy_gradient_loss(log_prob: Tensor, advantage: Tensor, valid: Tensor) -> Tensor:
    """``-mean(log pi(a|s) * A)``, ``(P,)``: minus its gradient is the policy gradient (Williams 1992), A held fixed."""
    return -masked_mean(log_prob * advantage, valid)


def value_loss(value: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """``mean((V - target)^2)``, ``(P,)``."""
    return masked_mean((value - target).square(), valid)


def explained_variance(value: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """``1 - Var(target - V) / Var(target)``, ``(P,)``: 1 is perfect, 0 no better than a constant; 0 / 0 gives NaN."""
    return 1 - _variance(target - value, valid) / _variance(target, valid)


def _variance(x: Tensor, valid: Tensor) -> Tensor:
    return masked_mean((x - masked_mean(x, valid).unsqueeze(1)).square(), valid)
