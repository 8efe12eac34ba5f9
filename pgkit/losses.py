"""Losses of policy gradients: means over the samples of a batch, one number per member. Pure functions of tensors.

Samples are ``(P, B)``. Samples that are not valid may hold anything, NaN included; they get no gradient. A tensor of
another rank or shape, which PyTorch would silently broadcast, is a ValueError in every function. Sums run along a
contiguous row, so a member's bits do not depend on P.

>>> log_prob = torch.tensor([[-0.5, -1.0, -2.0]])  # P = 1, B = 3
>>> advantage = torch.tensor([[1.0, 2.0, 3.0]])
>>> valid = torch.tensor([[True, True, False]])  # the last sample does not count
>>> policy_gradient_loss(log_prob, advantage, valid)
tensor([1.2500])
"""

import torch
from torch import Tensor

from pgkit.kernels.pointwise import deterministic_map
from pgkit.kernels.scan import total

Limit = float | Tensor
"""One number for all members, or one per member ``(P,)``."""


def masked_mean(x: Tensor, valid: Tensor) -> Tensor:
    """Average ``x`` over each member's valid samples.

    >>> masked_mean(torch.tensor([[1.0, 3.0, 9.0]]), torch.tensor([[True, True, False]]))
    tensor([2.])

    Args:
        x: ``(P, B)``.
        valid: ``(P, B)`` bool, samples that count.

    Returns:
        ``(P,)``, 0 for a member without a valid sample.

    Raises:
        ValueError: the shapes differ or are not ``(P, B)``, or ``valid`` is not bool.
    """
    _check(x=x, valid=valid)
    return total(torch.where(valid, x, 0.0).contiguous()) / total(valid.to(x.dtype)).clamp(min=1)


def policy_gradient_loss(log_prob: Tensor, advantage: Tensor, valid: Tensor) -> Tensor:
    """Compute ``-mean(log pi(a|s) A)``, whose negative gradient is the policy gradient, with A held fixed.

    Source: Williams 1992, "Simple statistical gradient-following algorithms for connectionist reinforcement learning".

    The unbiased estimator of the policy gradient sums over the steps of an episode and averages over episodes. The mean
    over samples is this divided by the mean length of the member's episodes. Where lengths vary and are correlated with
    returns, the division also changes the expected direction. For the unbiased estimator, multiply ``advantage`` by the
    number of valid samples and divide it by the number of episodes.

    Args:
        log_prob: ``(P, B)``, in nats; the only argument that gradients flow to.
        advantage: ``(P, B)``, in units of the return.
        valid: ``(P, B)`` bool, samples that count.

    Returns:
        ``(P,)``.

    Raises:
        ValueError: the shapes differ or are not ``(P, B)``, or ``valid`` is not bool.
    """
    _check(log_prob=log_prob, advantage=advantage, valid=valid)
    weight = torch.where(valid, advantage.detach(), 0.0)  # before the product: NaN times a gradient of 0 is NaN
    return -masked_mean(log_prob * weight, valid)


def clipped_surrogate_loss(
    log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor, valid: Tensor, clip_range: Limit
) -> Tensor:
    """Compute ``-mean(min(r A, clip(r, 1 - c, 1 + c) A))`` with the ratio ``r = pi(a|s) / pi_old(a|s)``.

    Where r has left the interval in the direction that the advantage asks for, the gradient is 0; elsewhere it is that
    of :func:`policy_gradient_loss` times r.

    Source: Schulman et al. 2017 (arXiv 1707.06347), eq. 7.

    >>> log_prob = torch.tensor([[0.5, 1.5]]).log()  # P = 1, B = 2
    >>> ones = torch.ones(1, 2)
    >>> clipped_surrogate_loss(log_prob, torch.zeros(1, 2), ones, ones.bool(), clip_range=0.2)  # (0.5 + 1.2) / 2
    tensor([-0.8500])

    Args:
        log_prob: ``(P, B)``, in nats; the only argument that gradients flow to.
        old_log_prob: ``(P, B)``, of the policy that acted.
        advantage: ``(P, B)``, in units of the return.
        valid: ``(P, B)`` bool, samples that count.
        clip_range: c, a number or ``(P,)``.

    Returns:
        ``(P,)``.

    Raises:
        ValueError: the shapes differ or are not ``(P, B)``, or ``valid`` is not bool.
    """
    _check(log_prob=log_prob, old_log_prob=old_log_prob, advantage=advantage, valid=valid)
    ratio = _log_ratio(log_prob, old_log_prob, valid).exp()
    weight = torch.where(valid, advantage.detach(), 0.0)
    limit = _per_member(clip_range, log_prob)
    clipped = torch.minimum(torch.maximum(ratio, 1.0 - limit), 1.0 + limit)
    return -masked_mean(torch.minimum(ratio * weight, clipped * weight), valid)


def surrogate_gain(log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor, valid: Tensor) -> Tensor:
    """Compute by how much the surrogate ``mean(r A)`` has risen: ``mean((r - 1) A)``, ``r = pi(a|s) / pi_old(a|s)``.

    Without gradient, and with bits that do not depend on other members. Arguments and errors as
    :func:`clipped_surrogate_loss`. Source: Schulman et al. 2015 (arXiv 1502.05477), eq. 14.

    >>> log_prob = torch.tensor([[0.5, 1.5]]).log()  # P = 1, B = 2
    >>> surrogate_gain(log_prob, torch.zeros(1, 2), torch.tensor([[-1.0, 1.0]]), torch.ones(1, 2, dtype=torch.bool))
    tensor([0.5000])
    """
    _check(log_prob=log_prob, old_log_prob=old_log_prob, advantage=advantage, valid=valid)
    log_ratio = _log_ratio(log_prob.detach(), old_log_prob, valid)
    ratio = deterministic_map(torch.exp, log_ratio.flatten()).view_as(log_ratio)
    return masked_mean((ratio - 1.0) * torch.where(valid, advantage, 0.0), valid)


def sample_kl(log_prob: Tensor, old_log_prob: Tensor, valid: Tensor) -> Tensor:
    """Estimate KL(old || new) from the actions taken: ``mean((r - 1) - log r)``, ``(P,)``.

    Unbiased and never negative. Source: Schulman 2020, "Approximating KL divergence", estimator k3. Arguments as
    :func:`clipped_surrogate_loss`.
    """
    _check(log_prob=log_prob, old_log_prob=old_log_prob, valid=valid)
    log_ratio = _log_ratio(log_prob, old_log_prob, valid)
    return masked_mean((log_ratio.exp() - 1.0) - log_ratio, valid)


def clip_fraction(log_prob: Tensor, old_log_prob: Tensor, valid: Tensor, clip_range: Limit) -> Tensor:
    """Compute the share of samples with ``|r - 1| > c``, ``(P,)``; arguments as :func:`clipped_surrogate_loss`."""
    _check(log_prob=log_prob, old_log_prob=old_log_prob, valid=valid)
    distance = (_log_ratio(log_prob, old_log_prob, valid).exp() - 1.0).abs()
    return masked_mean((distance > _per_member(clip_range, log_prob)).to(log_prob.dtype), valid)


def value_loss(value: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Compute the critic's loss ``mean((V - target)^2)``, with the target held fixed.

    >>> value_loss(torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 4.0]]), torch.tensor([[True, True]]))
    tensor([2.5000])

    Args:
        value: ``(P, B)``, the critic's predictions; the only argument that gradients flow to.
        target: ``(P, B)``, returns to predict.
        valid: ``(P, B)`` bool, samples that count.

    Returns:
        ``(P,)``.

    Raises:
        ValueError: the shapes differ or are not ``(P, B)``, or ``valid`` is not bool.
    """
    _check(value=value, target=target, valid=valid)
    error = torch.where(valid, value - target.detach(), 0.0)
    return masked_mean(error.square(), valid)


def clipped_value_loss(value: Tensor, old_value: Tensor, target: Tensor, valid: Tensor, clip_range: Limit) -> Tensor:
    """Compute ``mean(max((V - target)^2, (clip(V, V_old - c, V_old + c) - target)^2))``, with the target held fixed.

    As in OpenAI's baselines and in CleanRL; Stable-Baselines3 takes the second term alone.

    Args:
        value: ``(P, B)``, the critic's predictions; the only argument that gradients flow to.
        old_value: ``(P, B)``, what it predicted when the policy acted.
        target: ``(P, B)``, returns to predict.
        valid: ``(P, B)`` bool, samples that count.
        clip_range: c, a number or ``(P,)``, in units of the return.

    Returns:
        ``(P,)``.

    Raises:
        ValueError: the shapes differ or are not ``(P, B)``, or ``valid`` is not bool.
    """
    _check(value=value, old_value=old_value, target=target, valid=valid)
    error = torch.where(valid, value - target.detach(), 0.0)
    limit = _per_member(clip_range, value)
    near = torch.where(valid, old_value.detach() - target.detach(), 0.0)
    change = error - near
    # Inside the interval the error itself, so that the two squares are equal there to the last bit.
    clipped = torch.where(change.abs() <= limit, error, near + torch.where(change < 0, -limit, limit))
    return masked_mean(
        torch.where(error.square() >= clipped.square(), error.square(), clipped.square().detach()), valid
    )


def actor_critic_terms(
    log_prob: Tensor, entropy: Tensor, value: Tensor, advantage: Tensor, target: Tensor, valid: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute what actor-critic losses are made of: policy loss, value loss and mean entropy.

    Args:
        log_prob: ``(P, B)``, see :func:`policy_gradient_loss`.
        entropy: ``(P, B)``, entropies of the policy's distributions, in nats.
        value: ``(P, B)``, see :func:`value_loss`.
        advantage: ``(P, B)``, see :func:`policy_gradient_loss`.
        target: ``(P, B)``, see :func:`value_loss`.
        valid: ``(P, B)`` bool, samples that count.

    Returns:
        :func:`policy_gradient_loss`, :func:`value_loss` and the mean entropy, ``(P,)`` each.

    Raises:
        ValueError: the shapes differ or are not ``(P, B)``, or ``valid`` is not bool.
    """
    policy = policy_gradient_loss(log_prob, advantage, valid)
    return policy, value_loss(value, target, valid), masked_mean(entropy, valid)


def explained_variance(value: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Compute ``1 - Var(target - V) / Var(target)``: 1 for a perfect critic, 0 for one no better than a constant.

    >>> target = torch.tensor([[1.0, 2.0, 3.0]])
    >>> explained_variance(target + 5.0, target, torch.ones(1, 3, dtype=torch.bool))  # a constant error does not count
    tensor([1.])

    Args:
        value: ``(P, B)``, the critic's predictions.
        target: ``(P, B)``, what they should be.
        valid: ``(P, B)`` bool, samples that count.

    Returns:
        ``(P,)``, at most 1; NaN where all targets are equal, because there is nothing to explain.

    Raises:
        ValueError: the shapes differ or are not ``(P, B)``, or ``valid`` is not bool.
    """
    _check(value=value, target=target, valid=valid)
    variance = _variance(target, valid)
    return torch.where(variance > 0, 1 - _variance(target - value, valid) / variance, torch.nan)


def _variance(x: Tensor, valid: Tensor) -> Tensor:
    centred = x - masked_mean(x, valid).unsqueeze(1)
    return masked_mean(centred * centred, valid)


def _log_ratio(log_prob: Tensor, old_log_prob: Tensor, valid: Tensor) -> Tensor:
    return torch.where(valid, log_prob - old_log_prob.detach(), 0.0)


def _per_member(number: Limit, like: Tensor) -> Tensor:
    """A number of each member against samples ``(P, B)``."""
    return number.to(like).unsqueeze(1) if isinstance(number, Tensor) else torch.full_like(like[:, :1], number)


def _check(**tensors: Tensor) -> None:
    valid = tensors["valid"]
    if valid.dim() != 2 or any(tensor.shape != valid.shape for tensor in tensors.values()):
        shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items())
        raise ValueError(f"expected tensors of one shape (P, B), got {shapes}")
    if valid.dtype != torch.bool:
        raise ValueError(f"valid must be bool, got {valid.dtype}")
