"""Returns and advantages: what a policy gradient weighs log-probabilities with. Pure functions of tensors.

All take ``(T, P, N)`` tensors, time first. An episode ends where ``terminated`` (nothing follows) or ``truncated``
(a time limit cut it: its value goes on). Steps that are none (``valid`` False: resets, idle environments) get 0
and let nothing pass, whatever their entries hold. ``value[t] = V(s_t)`` and ``next_value[t] = V(s_{t+1})`` of the
*true* next observation. The rollout's last step bootstraps from ``next_value`` unless its episode terminated.

Notation: r reward, d = gamma * (1 - terminated), e = 1 where the next row is not a step of the same episode, else 0.

An estimator A is called *unbiased* when, with w_t = gamma^t (:func:`discount_from_start`),

    E[ mean over episodes of  sum_t w_t grad log pi(a_t | s_t) A_t ]  =  grad E[ sum_t gamma^t r_t ].

With w_t = 1 and gamma < 1, the custom, the same estimators are unbiased for another quantity: the sum over steps of
``E[grad log pi(a_t | s_t) Q(s_t, a_t)]`` with Q discounted and states weighed by how often they are visited. It is
the gradient of no objective (Nota and Thomas 2020, arXiv 1906.07073). The tests compare both with exact values.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from pgkit.kernels.pointwise import deterministic_map
from pgkit.kernels.scan import scan, total
from pgkit.types import Scalar


class EpisodeEnds(NamedTuple):
    """Where episodes end; bool ``(T, P, N)`` each, as in :class:`pgkit.types.Rollout`."""

    terminated: Tensor
    truncated: Tensor
    valid: Tensor


def gae(reward: Tensor, value: Tensor, next_value: Tensor, ends: EpisodeEnds, gamma: Scalar, lam: Scalar) -> Tensor:
    """Generalised advantage estimation (Schulman et al. 2016, arXiv 1506.02438, eq. 16), cut at episode ends.

    ``A_t = delta_t + (1 - e_t) d_t lam A_{t+1}``, ``delta_t = r_t + d_t next_value_t - value_t``.

    ``lam = 0`` is the TD error, ``lam = 1`` :func:`reward_to_go` minus the value. Unbiased for any lam when
    ``value`` is the policy's true value; for any value when ``lam = 1`` and every episode is in the rollout to its
    termination. Biased otherwise.

    Args:
        reward: ``(T, P, N)``.
        value: ``(T, P, N)``.
        next_value: ``(T, P, N)``; may hold anything where ``terminated``.
        ends: where episodes end.
        gamma: discount in [0, 1], a number or ``(P,)``.
        lam: in [0, 1], a number or ``(P,)``.

    Returns:
        ``(T, P, N)`` advantages.

    Raises:
        ValueError: shapes differ or are not ``(T, P, N)``, a mask is not bool, ``gamma`` or ``lam`` is not ``(P,)``.
    """
    _check(ends, reward=reward, value=value, next_value=next_value)
    dtype = torch.promote_types(reward.dtype, torch.promote_types(value.dtype, next_value.dtype))
    reward, value, next_value = (numbers.to(dtype) for numbers in (reward, value, next_value))
    gamma, lam = _per_member("gamma", gamma, reward), _per_member("lam", lam, reward)
    discounts = [number.expand(reward.shape) for number in (gamma, gamma * lam)]
    carried = [reward.new_zeros(reward.shape[1:]), ends.valid.new_zeros(reward.shape[1:])]
    inputs = [reward, value, next_value, *ends, *discounts]
    return scan(_advantage, carried, inputs, [reward.dtype], reverse=True)[0]


def td0(reward: Tensor, value: Tensor, next_value: Tensor, ends: EpisodeEnds, gamma: Scalar) -> Tensor:
    """The TD error ``r_t + d_t next_value_t - value_t`` (Sutton and Barto 2018, eq. 6.5); arguments as :func:`gae`.

    Unbiased when ``value`` is the policy's true value, biased otherwise.
    """
    _check(ends, reward=reward, value=value, next_value=next_value)
    target = reward + _following(next_value, ends, _per_member("gamma", gamma, reward))
    return torch.where(ends.valid, target - value, 0.0)


def reward_to_go(reward: Tensor, next_value: Tensor, ends: EpisodeEnds, gamma: Scalar) -> Tensor:
    """The discounted return from each step on: ``G_t = r_t + d_t (e_t next_value_t + (1 - e_t) G_{t+1})``.

    What lies behind a truncation, or behind the rollout's end, is stood for by ``next_value``; give zeros to
    count it as nothing. Arguments as :func:`gae`. With whole episodes this is the weight of REINFORCE, unbiased
    with any baseline that does not depend on the action: none, leave-one-out, a value of the state alone.
    """
    _check(ends, reward=reward, next_value=next_value)
    gamma, goes_on = _per_member("gamma", gamma, reward), _goes_on(ends)
    bootstrap = torch.where(goes_on, 0.0, _following(next_value, ends, gamma))
    step = torch.where(ends.valid, reward + bootstrap, 0.0)
    return _accumulate(step, torch.where(goes_on, gamma, 0.0))


def full_return(reward: Tensor, next_value: Tensor, ends: EpisodeEnds, gamma: Scalar) -> Tensor:
    """The discounted return of the whole episode, the same number at each of its steps.

    Weighs past rewards too, which an action cannot have changed: the expectation of :func:`reward_to_go` times
    :func:`discount_from_start`, at a higher variance. Unbiased as it is (w_t = 1 for every gamma), with the
    same baselines. Episodes must begin in the rollout. Arguments as :func:`gae`.
    """
    to_go = reward_to_go(reward, next_value, ends, gamma)
    goes_on, returns = _goes_on(ends), [to_go[0]]
    for t in range(1, len(to_go)):
        returns.append(torch.where(goes_on[t - 1], returns[-1], to_go[t]))
    return torch.stack(returns)


def discount_from_start(ends: EpisodeEnds, gamma: Scalar, dtype: torch.dtype = torch.float32) -> Tensor:
    """``gamma^t`` with t counted from the episode's first step in the rollout, ``(T, P, N)``; 0 where not valid.

    The policy gradient of the discounted return has this factor (Sutton and Barto 2018, section 13.3). Most code
    leaves it out, because late steps would hardly count; see the module's notes for what that estimates.
    """
    _check(ends)
    factor = torch.ones(ends.valid.shape[1:], dtype=dtype, device=ends.valid.device)
    goes_on, number, factors = _goes_on(ends), _per_member("gamma", gamma, factor.unsqueeze(0)), [factor]
    for t in range(1, len(ends.valid)):
        factors.append(torch.where(goes_on[t - 1], factors[-1] * number, 1.0))
    return torch.where(ends.valid, torch.stack(factors), 0.0)


def n_step(reward: Tensor, next_value: Tensor, ends: EpisodeEnds, gamma: Scalar, n: int) -> Tensor:
    """The n-step return: n rewards, then the value (Sutton and Barto 2018, eq. 7.1), shorter at ends.

    ``G_t^1 = r_t + d_t next_value_t``, ``G_t^k = r_t + d_t (e_t next_value_t + (1 - e_t) G_{t+1}^{k-1})``.
    ``n >= T`` is :func:`reward_to_go`. Arguments as :func:`gae`; n at least 1. Unbiased when ``next_value`` is
    the policy's true value, biased otherwise.
    """
    _check(ends, reward=reward, next_value=next_value)
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    gamma, goes_on = _per_member("gamma", gamma, reward), _goes_on(ends)
    result = torch.where(ends.valid, reward + _following(next_value, ends, gamma), 0.0)
    last = result
    for _ in range(min(n, len(reward)) - 1):
        longer = torch.where(goes_on[:-1], reward[:-1] + gamma * result[1:], last[:-1])
        result = torch.cat([longer, last[-1:]])
    return result


def mean_baseline(returns: Tensor, valid: Tensor) -> Tensor:
    """The mean over a member's N environments at each time step, over those still running; ``(T, P, N)``.

    Biased: it holds a share of each sample's own return. Where n environments run, the gradient comes out too
    short by a factor of (n - 1) / n: with episodes of one length the direction is right, with others late steps
    count less.
    """
    _check_pair(returns, valid, "(T, P, N)")
    counts = valid.sum(2, keepdim=True)
    total = torch.where(valid, returns, 0.0).contiguous().sum(2, keepdim=True)
    return torch.where(valid, total / counts.clamp(min=1), 0.0)


def leave_one_out_baseline(returns: Tensor, valid: Tensor) -> Tensor:
    """The mean over a member's *other* environments running at each time step; ``(T, P, N)``, 0 where none does.

    Unbiased when environments begin their episodes together, because the others' episodes are independent of
    this one's actions (Kool et al. 2019, "Buy 4 REINFORCE samples, get a baseline for free!").
    """
    _check_pair(returns, valid, "(T, P, N)")
    kept = torch.where(valid, returns, 0.0).contiguous()
    others = valid.sum(2, keepdim=True) - 1
    return torch.where(valid & (others > 0), (kept.sum(2, keepdim=True) - kept) / others.clamp(min=1), 0.0)


def normalize_advantage(advantage: Tensor, valid: Tensor, eps: float = 1e-8) -> Tensor:
    """Mean 0 and (population) standard deviation 1 over each member's valid samples; both ``(P, B)``.

    Changes the scale of the gradient from update to update: biased, and customary. Samples that are not valid get 0.
    """
    _check_pair(advantage, valid, "(P, B)")
    count = total(valid.to(advantage.dtype)).clamp(min=1)
    mean = total(torch.where(valid, advantage, 0.0)) / count
    centred = torch.where(valid, advantage - mean[:, None], 0.0)
    variance = total(centred * centred) / count
    return centred / (deterministic_map(torch.sqrt, variance) + eps)[:, None]


def _advantage(later: Any, valid_later: Any, reward: Any, value: Any, next_value: Any, *rest: Any) -> list[Any]:
    """One step of :func:`gae`."""
    terminated, truncated, valid, gamma, gamma_lam = rest
    error = torch.where(valid, reward + torch.where(terminated, 0.0, gamma * next_value) - value, 0.0)
    goes_on = valid & valid_later & ~(terminated | truncated)
    advantage = error + torch.where(goes_on, gamma_lam * later, 0.0)
    return [advantage, valid, advantage]


def _accumulate(step: Tensor, passes: Tensor) -> Tensor:
    """``x_t = step_t + passes_t x_{t+1}``, backwards in time."""
    carried, inputs = [step.new_zeros(step.shape[1:])], [step, passes.to(step.dtype)]
    return scan(_accumulated, carried, inputs, [step.dtype], reverse=True)[0]


def _accumulated(later: Any, step: Any, passes: Any) -> list[Any]:
    result = step + passes * later  # no fused multiply-add, which torch and LLVM would round differently
    return [result, result]


def _goes_on(ends: EpisodeEnds) -> Tensor:
    """``1 - e``: whether the next row is a step of the same episode."""
    goes_on = ends.valid & ~(ends.terminated | ends.truncated)
    goes_on[:-1] &= ends.valid[1:]
    goes_on[-1] = False
    return goes_on


def _following(next_value: Tensor, ends: EpisodeEnds, gamma: Tensor) -> Tensor:
    """``d_t next_value_t``; a selection, not a product, so that an infinite value of a last state does no harm."""
    return torch.where(ends.terminated, 0.0, gamma * next_value)


def _per_member(name: str, number: Scalar, like: Tensor) -> Tensor:
    """A number or ``(P,)``, in the precision of ``like (T, P, N)`` and made to broadcast against it."""
    if not isinstance(number, Tensor):
        return like.new_full((1, 1), number)
    if number.shape not in ((), like.shape[1:2]):
        raise ValueError(f"{name} must be a number or have shape (P,) = ({like.shape[1]},), got {tuple(number.shape)}")
    return number.to(like.dtype).reshape(-1, 1)


def _check(ends: EpisodeEnds, **tensors: Tensor) -> None:
    shape = ends.valid.shape
    if len(shape) != 3 or shape[0] == 0 or any(tensor.shape != shape for tensor in (*ends, *tensors.values())):
        given = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in (tensors | ends._asdict()).items())
        raise ValueError(f"expected tensors of one shape (T, P, N) with T >= 1, got {given}")
    for name, mask in zip(ends._fields, ends, strict=True):
        _check_mask(name, mask)


def _check_pair(x: Tensor, valid: Tensor, axes: str) -> None:
    if x.shape != valid.shape or x.dim() != axes.count(",") + 1:
        raise ValueError(f"expected two tensors of one shape {axes}, got {tuple(x.shape)} and {tuple(valid.shape)}")
    _check_mask("valid", valid)


def _check_mask(name: str, mask: Tensor) -> None:
    if mask.dtype != torch.bool:
        raise ValueError(f"{name} must be bool, got {mask.dtype}")
