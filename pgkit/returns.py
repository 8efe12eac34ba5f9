"""Returns and advantages: the weights of log-probabilities in a policy gradient. Pure functions of tensors.

All functions take ``(T, P, N)`` tensors, time first. An episode ends where it is ``terminated`` (nothing follows) or
``truncated`` (a time limit cut it, and the value of the next observation stands for the rest). Steps that are not
``valid`` (resets, environments that wait) get 0, and nothing passes through them, whatever they hold.
``value[t]`` is V(s_t), and ``next_value[t]`` is V(s_{t+1}) of the *true* next observation. The last step of a rollout
bootstraps from ``next_value`` unless its episode terminated.

>>> def episode(*numbers):  # T steps of one environment of one member
...     return torch.tensor(numbers).view(-1, 1, 1)
>>> ends = EpisodeEnds(
...     terminated=episode(False, False, True), truncated=episode(False, False, False), valid=episode(True, True, True)
... )
>>> reward = episode(1.0, 1.0, 1.0)
>>> zeros = torch.zeros_like(reward)
>>> reward_to_go(reward, zeros, ends, gamma=0.5).flatten()
tensor([1.7500, 1.5000, 1.0000])
>>> value = episode(1.5, 1.5, 1.5)
>>> next_value = episode(1.5, 1.5, 0.0)
>>> gae(reward, value, next_value, ends, gamma=0.5, lam=1.0).flatten()  # reward_to_go - value
tensor([ 0.2500,  0.0000, -0.5000])
>>> gae(reward, value, next_value, ends, gamma=0.5, lam=0.0).flatten()  # the TD error
tensor([ 0.2500,  0.2500, -0.5000])

Notation: r reward, d = gamma (1 - terminated), e = 1 where the next row is not a step of the same episode, else 0.

An estimator A is called *unbiased* when, with w_t = gamma^t (:func:`discount_from_start`),

    E[ mean over episodes of  sum_t w_t grad log pi(a_t | s_t) A_t ]  =  grad E[ sum_t gamma^t r_t ].

With w_t = 1 and gamma < 1, as in most code, the same estimators are unbiased for another quantity: the sum over steps
of ``E[grad log pi(a_t | s_t) Q(s_t, a_t)]``, with Q discounted and states weighted by how often they are visited. It is
the gradient of no objective (Nota and Thomas 2020, arXiv 1906.07073). The tests compare both with exact values.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from pgkit.kernels.pointwise import deterministic_map
from pgkit.kernels.scan import scan, total
from pgkit.types import Scalar


class EpisodeEnds(NamedTuple):
    """Where episodes end, and which steps count: bool ``(T, P, N)`` each, as in :class:`pgkit.types.Rollout`.

    >>> never = torch.zeros(5, 3, 2, dtype=torch.bool)  # T = 5, P = 3, N = 2
    >>> ends = EpisodeEnds(terminated=never, truncated=never, valid=~never)

    Attributes:
        terminated: the task ended after this step: nothing follows.
        truncated: a time limit cut the episode after this step.
        valid: the step is one of an episode, neither a reset nor padding.
    """

    terminated: Tensor
    truncated: Tensor
    valid: Tensor


def gae(reward: Tensor, value: Tensor, next_value: Tensor, ends: EpisodeEnds, gamma: Scalar, lam: Scalar) -> Tensor:
    """Compute generalized advantage estimates (Schulman et al. 2016, arXiv 1506.02438, eq. 16), cut at episode ends.

    ``A_t = delta_t + (1 - e_t) d_t lam A_{t+1}``, ``delta_t = r_t + d_t next_value_t - value_t``.

    ``lam = 0`` is the TD error, ``lam = 1`` is :func:`reward_to_go` minus the value. Unbiased for any lam if ``value``
    is the policy's true value; unbiased for any value if ``lam = 1`` and the rollout holds every episode up to its
    termination. Biased otherwise. An example is in the module's notes.

    Args:
        reward: ``(T, P, N)``.
        value: ``(T, P, N)``, in units of the discounted return.
        next_value: ``(T, P, N)``; may hold anything where ``terminated``.
        ends: where episodes end.
        gamma: discount per step in [0, 1], a number or ``(P,)``.
        lam: in [0, 1], a number or ``(P,)``.

    Returns:
        ``(T, P, N)`` advantages.

    Raises:
        ValueError: shapes differ or are not ``(T, P, N)``, a mask is not bool, ``gamma`` or ``lam`` is not ``(P,)``.
    """
    _check(ends, reward=reward, value=value, next_value=next_value)
    dtype = torch.promote_types(reward.dtype, torch.promote_types(value.dtype, next_value.dtype))
    reward, value, next_value = (numbers.to(dtype) for numbers in (reward, value, next_value))
    gamma = _per_member("gamma", gamma, reward)
    lam = _per_member("lam", lam, reward)
    discounts = [number.expand(reward.shape) for number in (gamma, gamma * lam)]
    carried = [reward.new_zeros(reward.shape[1:]), ends.valid.new_zeros(reward.shape[1:])]
    inputs = [reward, value, next_value, *ends, *discounts]
    return scan(_advantage, carried, inputs, [reward.dtype], reverse=True)[0]


def td0(reward: Tensor, value: Tensor, next_value: Tensor, ends: EpisodeEnds, gamma: Scalar) -> Tensor:
    """Compute the TD error ``r_t + d_t next_value_t - value_t`` (Sutton and Barto 2018, eq. 6.5), ``(T, P, N)``.

    Unbiased if ``value`` is the policy's true value, biased otherwise. Arguments and errors as :func:`gae`.
    """
    _check(ends, reward=reward, value=value, next_value=next_value)
    target = reward + _following(next_value, ends, _per_member("gamma", gamma, reward))
    return torch.where(ends.valid, target - value, 0.0)


def reward_to_go(reward: Tensor, next_value: Tensor, ends: EpisodeEnds, gamma: Scalar) -> Tensor:
    """Compute discounted returns from each step on: ``G_t = r_t + d_t (e_t next_value_t + (1 - e_t) G_{t+1})``.

    ``next_value`` stands for the rewards after a truncation and after the end of the rollout; pass zeros to count them
    as nothing. With whole episodes this is the weight of REINFORCE (Williams 1992), unbiased with any baseline that
    does not depend on the action: none, leave-one-out, a value of the state alone. Arguments and errors as :func:`gae`;
    returns ``(T, P, N)``. An example is in the module's notes.
    """
    _check(ends, reward=reward, next_value=next_value)
    gamma = _per_member("gamma", gamma, reward)
    goes_on = _goes_on(ends)
    bootstrap = torch.where(goes_on, 0.0, _following(next_value, ends, gamma))
    step = torch.where(ends.valid, reward + bootstrap, 0.0)
    return _accumulate(step, torch.where(goes_on, gamma, 0.0))


def full_return(reward: Tensor, next_value: Tensor, ends: EpisodeEnds, gamma: Scalar) -> Tensor:
    """Compute the discounted return of the whole episode, the same number at each of its steps, ``(T, P, N)``.

    It includes past rewards, which an action cannot have changed. The gradient has the expectation of
    :func:`reward_to_go` times :func:`discount_from_start`, and a higher variance. Unbiased as it is (w_t = 1 for every
    gamma), with the same baselines. Episodes must begin in the rollout. Arguments and errors as :func:`gae`.
    """
    to_go = reward_to_go(reward, next_value, ends, gamma)
    goes_on = _goes_on(ends)
    returns = [to_go[0]]
    for t in range(1, len(to_go)):
        returns.append(torch.where(goes_on[t - 1], returns[-1], to_go[t]))
    return torch.stack(returns)


def discount_from_start(ends: EpisodeEnds, gamma: Scalar, dtype: torch.dtype = torch.float32) -> Tensor:
    """Compute ``gamma^t``, with t counted from the episode's first step in the rollout, ``(T, P, N)``.

    The policy gradient of the discounted return has this factor (Sutton and Barto 2018, section 13.3). Most code
    leaves it out, because late steps would hardly count; the module's notes say what that estimates. Steps that are not
    valid get 0.

    >>> never = torch.zeros(3, 1, 1, dtype=torch.bool)
    >>> discount_from_start(EpisodeEnds(never, never, ~never), gamma=0.5).flatten()
    tensor([1.0000, 0.5000, 0.2500])

    Args:
        ends: where episodes end.
        gamma: discount per step in [0, 1], a number or ``(P,)``.
        dtype: of the result.

    Raises:
        ValueError: the masks are not bool ``(T, P, N)``, or ``gamma`` is not ``(P,)``.
    """
    _check(ends)
    factor = torch.ones(ends.valid.shape[1:], dtype=dtype, device=ends.valid.device)
    gamma = _per_member("gamma", gamma, factor.unsqueeze(0))
    goes_on = _goes_on(ends)
    factors = [factor]
    for t in range(1, len(ends.valid)):
        factors.append(torch.where(goes_on[t - 1], factors[-1] * gamma, 1.0))
    return torch.where(ends.valid, torch.stack(factors), 0.0)


def n_step(reward: Tensor, next_value: Tensor, ends: EpisodeEnds, gamma: Scalar, n: int) -> Tensor:
    """Compute n-step returns: n rewards, then the value (Sutton and Barto 2018, eq. 7.1); fewer where an episode ends.

    ``G_t^1 = r_t + d_t next_value_t``, ``G_t^k = r_t + d_t (e_t next_value_t + (1 - e_t) G_{t+1}^{k-1})``.
    ``n >= T`` is :func:`reward_to_go`. Unbiased if ``next_value`` is the policy's true value, biased otherwise.
    Arguments as :func:`gae`, ``n`` at least 1; returns ``(T, P, N)``.

    >>> never = torch.zeros(3, 1, 1, dtype=torch.bool)
    >>> ones = torch.ones(3, 1, 1)
    >>> n_step(ones, 10 * ones, EpisodeEnds(never, never, ~never), gamma=1.0, n=2).flatten()
    tensor([12., 12., 11.])

    Raises:
        ValueError: ``n`` is less than 1, or as for :func:`gae`.
    """
    _check(ends, reward=reward, next_value=next_value)
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    gamma = _per_member("gamma", gamma, reward)
    goes_on = _goes_on(ends)
    result = torch.where(ends.valid, reward + _following(next_value, ends, gamma), 0.0)
    last = result
    for _ in range(min(n, len(reward)) - 1):
        longer = torch.where(goes_on[:-1], reward[:-1] + gamma * result[1:], last[:-1])
        result = torch.cat([longer, last[-1:]])
    return result


def mean_baseline(returns: Tensor, valid: Tensor) -> Tensor:
    """Average the returns of a member's running environments at each time step, ``(T, P, N)``.

    Biased, because the mean contains a share of each sample's own return. Where n environments run, the gradient is too
    short by a factor of (n - 1) / n. If all episodes have one length, its direction is right; otherwise late steps
    count less.

    >>> returns = torch.tensor([[[1.0, 3.0]]])  # T = 1, P = 1, N = 2
    >>> mean_baseline(returns, torch.tensor([[[True, True]]]))
    tensor([[[2., 2.]]])

    Args:
        returns: ``(T, P, N)``.
        valid: ``(T, P, N)`` bool, which environments are running.

    Raises:
        ValueError: the shapes differ or are not ``(T, P, N)``, or ``valid`` is not bool.
    """
    _check_pair(returns, valid, "(T, P, N)")
    counts = valid.sum(2, keepdim=True)
    total = torch.where(valid, returns, 0.0).contiguous().sum(2, keepdim=True)
    return torch.where(valid, total / counts.clamp(min=1), 0.0)


def leave_one_out_baseline(returns: Tensor, valid: Tensor) -> Tensor:
    """Average the returns of a member's *other* running environments at each step, ``(T, P, N)``; 0 without others.

    Unbiased if environments begin their episodes together, because the other episodes are independent of this one's
    actions (Kool et al. 2019, "Buy 4 REINFORCE samples, get a baseline for free!"). Arguments and errors as
    :func:`mean_baseline`.

    >>> returns = torch.tensor([[[1.0, 3.0, 5.0]]])  # T = 1, P = 1, N = 3
    >>> leave_one_out_baseline(returns, torch.tensor([[[True, True, True]]]))
    tensor([[[4., 3., 2.]]])
    """
    _check_pair(returns, valid, "(T, P, N)")
    kept = torch.where(valid, returns, 0.0).contiguous()
    others = valid.sum(2, keepdim=True) - 1
    return torch.where(valid & (others > 0), (kept.sum(2, keepdim=True) - kept) / others.clamp(min=1), 0.0)


def normalize_advantage(advantage: Tensor, valid: Tensor, eps: float = 1e-8, ddof: int = 0) -> Tensor:
    """Shift and scale to mean 0 and (population) standard deviation 1 over each member's valid samples.

    Biased, because the scale of the gradient changes from update to update, but most policy-gradient code does it.
    Stable-Baselines3 and CleanRL divide by the sample's deviation (of B - 1), which is NaN for a single sample; with
    ``ddof = 0`` it is the population's (of B), 0 then. For B samples the advantages are larger by sqrt(B / (B - 1)),
    which is 1.3 % for 40: what a learning rate of 1.3 % more does. It stays so that runs of actor-critic and REINFORCE
    keep their bits; PPO has ``ddof = 1``.

    >>> normalize_advantage(torch.tensor([[1.0, 3.0, 9.0]]), torch.tensor([[True, True, False]]))
    tensor([[-1.,  1.,  0.]])

    Args:
        advantage: ``(P, B)``.
        valid: ``(P, B)`` bool, samples that count; the others get 0.
        eps: what is added to the standard deviation.
        ddof: 1 for the sample's deviation, 0 for a single sample; 0 for the population's.

    Raises:
        ValueError: the shapes differ or are not ``(P, B)``, or ``valid`` is not bool.
    """
    _check_pair(advantage, valid, "(P, B)")
    count = total(valid.to(advantage.dtype)).clamp(min=1)
    mean = total(torch.where(valid, advantage, 0.0)) / count
    centred = torch.where(valid, advantage - mean[:, None], 0.0)
    variance = total(centred * centred) / (count if ddof == 0 else (count - ddof).clamp(min=1))
    return centred / (deterministic_map(torch.sqrt, variance) + eps)[:, None]


def _advantage(later: Any, valid_later: Any, reward: Any, value: Any, next_value: Any, *rest: Any) -> list[Any]:
    """Compute one step of :func:`gae`, backwards in time, as :func:`pgkit.kernels.scan.scan` traces it."""
    terminated, truncated, valid, gamma, gamma_lam = rest
    error = torch.where(valid, reward + torch.where(terminated, 0.0, gamma * next_value) - value, 0.0)
    goes_on = valid & valid_later & ~(terminated | truncated)
    advantage = error + torch.where(goes_on, gamma_lam * later, 0.0)
    return [advantage, valid, advantage]


def _accumulate(step: Tensor, passes: Tensor) -> Tensor:
    """Compute ``x_t = step_t + passes_t x_{t+1}``, backwards in time."""
    carried = [step.new_zeros(step.shape[1:])]
    inputs = [step, passes.to(step.dtype)]
    return scan(_accumulated, carried, inputs, [step.dtype], reverse=True)[0]


def _accumulated(later: Any, step: Any, passes: Any) -> list[Any]:
    result = step + passes * later  # no fused multiply-add, which torch and LLVM would round differently
    return [result, result]


def _goes_on(ends: EpisodeEnds) -> Tensor:
    """Compute ``1 - e``: whether the next row is a step of the same episode, bool ``(T, P, N)``."""
    goes_on = ends.valid & ~(ends.terminated | ends.truncated)
    goes_on[:-1] &= ends.valid[1:]
    goes_on[-1] = False
    return goes_on


def _following(next_value: Tensor, ends: EpisodeEnds, gamma: Tensor) -> Tensor:
    """Compute ``d_t next_value_t`` by a selection, so that an infinite value of a terminal state does no harm."""
    return torch.where(ends.terminated, 0.0, gamma * next_value)


def _per_member(name: str, number: Scalar, like: Tensor) -> Tensor:
    """Convert a number or ``(P,)`` to the precision of ``like (T, P, N)``, in a shape that broadcasts against it."""
    if not isinstance(number, Tensor):
        return like.new_full((1, 1), number)
    if number.shape not in ((), like.shape[1:2]):
        raise ValueError(f"{name} must be a number or have shape (P,) = ({like.shape[1]},), got {tuple(number.shape)}")
    return number.to(like.dtype).reshape(-1, 1)


def _check(ends: EpisodeEnds, **tensors: Tensor) -> None:
    shape = ends.valid.shape
    if len(shape) != 3 or shape[0] == 0 or any(tensor.shape != shape for tensor in (*ends, *tensors.values())):
        shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in (tensors | ends._asdict()).items())
        raise ValueError(f"expected tensors of one shape (T, P, N) with T >= 1, got {shapes}")
    for name, mask in zip(ends._fields, ends, strict=True):
        _check_mask(name, mask)


def _check_pair(x: Tensor, valid: Tensor, axes: str) -> None:
    if x.shape != valid.shape or x.dim() != axes.count(",") + 1:
        raise ValueError(f"expected two tensors of one shape {axes}, got {tuple(x.shape)} and {tuple(valid.shape)}")
    _check_mask("valid", valid)


def _check_mask(name: str, mask: Tensor) -> None:
    if mask.dtype != torch.bool:
        raise ValueError(f"{name} must be bool, got {mask.dtype}")


def __getattr__(name: str) -> Any:
    if name == "Ends":
        raise AttributeError("pgkit.returns.Ends is called pgkit.returns.EpisodeEnds")
    raise AttributeError(f"module 'pgkit.returns' has no attribute {name!r}")
