"""Returns and advantages: what a policy gradient weighs log-probabilities with. Pure functions, no gradients.

All take ``(T, P, N)`` tensors, time first. An episode ends where ``terminated`` (nothing follows) or ``truncated``
(a time limit cut it: its value goes on). Steps that are none (``valid`` False: resets, idle environments) get 0
and let nothing pass. ``value[t] = V(s_t)`` and ``next_value[t] = V(s_{t+1})`` of the *true* next observation.
The rollout's last step bootstraps from ``next_value`` unless its episode terminated.

Notation: r reward, d = gamma * (1 - terminated), e = 1 where the episode ends at t, else 0.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from pgkit.types import Scalar


class Ends(NamedTuple):
    """Where episodes end; bool ``(T, P, N)`` each, as in :class:`pgkit.types.Rollout`."""

    terminated: Tensor
    truncated: Tensor
    valid: Tensor


def gae(reward: Tensor, value: Tensor, next_value: Tensor, ends: Ends, gamma: Scalar, lam: Scalar) -> Tensor:
    """Generalised advantage estimation (Schulman et al. 2016, arXiv 1506.02438, eq. 16), cut at episode ends.

    ``A_t = delta_t + (1 - e_t) d_t lam A_{t+1}``, ``delta_t = r_t + d_t next_value_t - value_t``.

    ``lam = 0`` is the TD error, ``lam = 1`` the discounted return minus the value. Unbiased when ``value`` is the
    policy's true value, or when ``lam = 1`` and every episode in the rollout is whole and terminates.

    Args:
        reward: ``(T, P, N)``.
        value: ``(T, P, N)``.
        next_value: ``(T, P, N)``.
        ends: where episodes end.
        gamma: discount in [0, 1], a number or ``(P,)``.
        lam: in [0, 1], a number or ``(P,)``.

    Returns:
        ``(T, P, N)`` advantages.
    """
    _check(reward, value, next_value, *ends)
    discount = _discount(reward, ends, gamma)
    delta = torch.where(ends.valid, reward + discount * next_value - value, 0.0)
    passes = torch.where(_goes_on(ends), discount * _per_member(lam, reward.dtype), 0.0)
    return _accumulate(delta, passes)


def td0(reward: Tensor, value: Tensor, next_value: Tensor, ends: Ends, gamma: Scalar) -> Tensor:
    """The TD error ``r_t + d_t next_value_t - value_t`` (Sutton and Barto 2018, eq. 6.5); arguments as :func:`gae`."""
    _check(reward, value, next_value, *ends)
    target = reward + _discount(reward, ends, gamma) * next_value
    return torch.where(ends.valid, target - value, 0.0)


def reward_to_go(reward: Tensor, next_value: Tensor, ends: Ends, gamma: Scalar) -> Tensor:
    """The discounted return from each step on: ``G_t = r_t + d_t (e_t next_value_t + (1 - e_t) G_{t+1})``.

    What lies behind a truncation, or behind the rollout's end, is stood for by ``next_value``; give zeros to
    count it as nothing. Arguments as :func:`gae`. With whole episodes this is the weight of REINFORCE.
    """
    _check(reward, next_value, *ends)
    discount = _discount(reward, ends, gamma)
    goes_on = _goes_on(ends)
    cut = ~goes_on
    cut[-1] = True
    step = torch.where(ends.valid, reward + torch.where(cut, discount * next_value, 0.0), 0.0)
    return _accumulate(step, torch.where(goes_on, discount, 0.0))


def full_return(reward: Tensor, next_value: Tensor, ends: Ends, gamma: Scalar) -> Tensor:
    """The discounted return of the whole episode, the same number at each of its steps.

    Weighs past rewards too, which an action cannot have changed: the same expectation as :func:`reward_to_go`
    at a higher variance, if both are multiplied by ``gamma^t`` (:func:`discount_from_start`). Episodes must
    begin in the rollout. Arguments as :func:`gae`.
    """
    to_go = reward_to_go(reward, next_value, ends, gamma)
    returns = []
    current, starts = to_go[0], torch.ones_like(ends.valid[0])
    for t in range(len(reward)):
        current = torch.where(starts, to_go[t], current)
        returns.append(torch.where(ends.valid[t], current, 0.0))
        starts = ends.terminated[t] | ends.truncated[t] | (starts & ~ends.valid[t])
    return torch.stack(returns)


def discount_from_start(ends: Ends, gamma: Scalar) -> Tensor:
    """``gamma^t`` with t counted from the episode's first step in the rollout, ``(T, P, N)``; 0 where not valid.

    The policy gradient of the discounted return has this factor (Sutton and Barto 2018, section 13.3); most code
    leaves it out, and with it the claim to be the gradient of anything discounted (Nota and Thomas 2020, arXiv
    1906.07073).
    """
    _check(*ends)
    factors = []
    factor = torch.ones(ends.valid.shape[1:], device=ends.valid.device)
    for t in range(len(ends.valid)):
        factors.append(torch.where(ends.valid[t], factor, 0.0))
        done = ends.terminated[t] | ends.truncated[t]
        factor = torch.where(done, 1.0, torch.where(ends.valid[t], factor * _per_member(gamma, factor.dtype), factor))
    return torch.stack(factors)


def n_step(reward: Tensor, next_value: Tensor, ends: Ends, gamma: Scalar, n: int) -> Tensor:
    """The n-step return: n rewards, then the value (Sutton and Barto 2018, eq. 7.1), shorter at ends.

    ``G_t^1 = r_t + d_t next_value_t``, ``G_t^k = r_t + d_t (e_t next_value_t + (1 - e_t) G_{t+1}^{k-1})``.
    ``n >= T`` is :func:`reward_to_go`. Arguments as :func:`gae`; n at least 1.
    """
    _check(reward, next_value, *ends)
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    discount = _discount(reward, ends, gamma)
    one = torch.where(ends.valid, reward + discount * next_value, 0.0)
    goes_on = _goes_on(ends)[:-1]
    result = one
    for _ in range(min(n, len(reward)) - 1):
        longer = torch.where(goes_on, reward[:-1] + discount[:-1] * result[1:], one[:-1])
        result = torch.cat([longer, one[-1:]])
    return result


def mean_baseline(returns: Tensor, valid: Tensor) -> Tensor:
    """The mean over a member's N environments at each time step, over those still running; ``(T, P, N)``.

    It holds a share of each sample's own return, so the gradient comes out too short by a factor of (n - 1) / n
    where n environments run; the direction is right.
    """
    _check(returns, valid)
    counts = valid.sum(2, keepdim=True)
    total = torch.where(valid, returns, 0.0).sum(2, keepdim=True)
    return torch.where(valid, total / counts.clamp(min=1), 0.0)


def leave_one_out_baseline(returns: Tensor, valid: Tensor) -> Tensor:
    """The mean over a member's *other* environments at each time step; ``(T, P, N)``, 0 where there is no other.

    Unbiased: the others' episodes are independent of this one's actions (Kool et al. 2019, "Buy 4 REINFORCE
    samples, get a baseline for free!").
    """
    _check(returns, valid)
    kept = torch.where(valid, returns, 0.0)
    others = valid.sum(2, keepdim=True) - 1
    return torch.where(valid & (others > 0), (kept.sum(2, keepdim=True) - kept) / others.clamp(min=1), 0.0)


def normalize_advantage(advantage: Tensor, valid: Tensor, eps: float = 1e-8) -> Tensor:
    """Mean 0 and (population) standard deviation 1 over each member's valid samples; both ``(P, B)``.

    Changes the scale of the gradient from update to update: biased, and customary.
    """
    _check(advantage, valid, dims=2)
    count = valid.sum(1, keepdim=True).clamp(min=1)
    mean = torch.where(valid, advantage, 0.0).sum(1, keepdim=True) / count
    centred = torch.where(valid, advantage - mean, 0.0)
    return centred / ((centred.square().sum(1, keepdim=True) / count).sqrt() + eps)


def _accumulate(step: Tensor, passes: Tensor) -> Tensor:
    """``x_t = step_t + passes_t x_{t+1}``, backwards in time."""
    results = [step[-1]]
    for t in range(len(step) - 2, -1, -1):
        results.append(step[t] + passes[t] * results[-1])  # no fused multiply-add: it rounds by position in memory
    return torch.stack(results[::-1])


def _goes_on(ends: Ends) -> Tensor:
    """Whether the next row belongs to the same episode."""
    return ends.valid & ~(ends.terminated | ends.truncated)


def _discount(reward: Tensor, ends: Ends, gamma: Scalar) -> Tensor:
    """``gamma * (1 - terminated)`` in the rewards' precision."""
    return (~ends.terminated).to(reward.dtype) * _per_member(gamma, reward.dtype)


def _per_member(number: Scalar, dtype: torch.dtype) -> Scalar:
    """A number, or ``(P,)`` made to broadcast against ``(..., P, N)``."""
    return number.to(dtype).unsqueeze(-1) if isinstance(number, Tensor) else number


def _check(*tensors: Tensor, dims: int = 3) -> None:
    shapes = [tuple(tensor.shape) for tensor in tensors]
    if len(set(shapes)) != 1 or len(shapes[0]) != dims:
        raise ValueError(f"expected {dims}-dimensional tensors of one shape, got {', '.join(map(str, shapes))}")
