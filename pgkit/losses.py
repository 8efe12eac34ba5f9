"""Averages over the samples of a batch, one number for each member. Pure functions of tensors.

Samples are ``(P, B)``; those that are not valid may hold anything, NaN included, and get no gradient. Sums run
along a contiguous row, so that a member's bits do not depend on P. A tensor of another rank or shape, which PyTorch
would silently broadcast, is a ValueError.
"""

import torch
from torch import Tensor

from pgkit.kernels.scan import total


def masked_mean(x: Tensor, valid: Tensor) -> Tensor:
    """Mean of ``x (P, B)`` over the samples where ``valid (P, B)``, ``(P,)``; 0 where there is none."""
    _check(x=x, valid=valid)
    return total(torch.where(valid, x, 0.0).contiguous()) / total(valid.to(x.dtype)).clamp(min=1)


def policy_gradient_loss(log_prob: Tensor, advantage: Tensor, valid: Tensor) -> Tensor:
    """``-mean(log pi(a|s) * A)``, ``(P,)``: minus its gradient is the policy gradient (Williams 1992), A held fixed.

    A mean over samples is the unbiased estimator, a sum over steps and a mean over episodes, divided by the mean
    length of the member's episodes; where lengths vary and tell of returns, that also turns the expected direction.
    For the unbiased one, multiply ``A`` by the number of valid samples over the number of episodes.

    Args:
        log_prob: ``(P, B)``, in nats; the only argument that gradients flow to.
        advantage: ``(P, B)``.
        valid: ``(P, B)`` bool, samples that count.
    """
    _check(log_prob=log_prob, advantage=advantage, valid=valid)
    weight = torch.where(valid, advantage.detach(), 0.0)  # before the product: NaN times a gradient of 0 is NaN
    return -masked_mean(log_prob * weight, valid)


def value_loss(value: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """``mean((V - target)^2)``, ``(P,)``, the target held fixed; all arguments ``(P, B)``."""
    _check(value=value, target=target, valid=valid)
    error = torch.where(valid, value - target.detach(), 0.0)
    return masked_mean(error.square(), valid)


def actor_critic_terms(
    log_prob: Tensor, entropy: Tensor, value: Tensor, advantage: Tensor, target: Tensor, valid: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Policy loss, value loss and mean entropy, ``(P,)`` each; all arguments ``(P, B)``, as above."""
    policy = policy_gradient_loss(log_prob, advantage, valid)
    return policy, value_loss(value, target, valid), masked_mean(entropy, valid)


def explained_variance(value: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """``1 - Var(target - V) / Var(target)``, ``(P,)``: 1 is perfect, 0 no better than a constant.

    NaN where all targets are equal: there is nothing to explain.
    """
    _check(value=value, target=target, valid=valid)
    variance = _variance(target, valid)
    return torch.where(variance > 0, 1 - _variance(target - value, valid) / variance, torch.nan)


def _variance(x: Tensor, valid: Tensor) -> Tensor:
    centred = x - masked_mean(x, valid).unsqueeze(1)
    return masked_mean(centred * centred, valid)


def _check(**tensors: Tensor) -> None:
    valid = tensors["valid"]
    if valid.dim() != 2 or any(tensor.shape != valid.shape for tensor in tensors.values()):
        given = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items())
        raise ValueError(f"expected tensors of one shape (P, B), got {given}")
    if valid.dtype != torch.bool:
        raise ValueError(f"valid must be bool, got {valid.dtype}")
