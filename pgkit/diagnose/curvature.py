"""Slope and curvature of the expected return J, by policy gradients alone.

Averaged over whole episodes, the Hessian of J is

    H = E sum_t w_t [ s_t s_t' + d2 log pi_t + s_t S_{t-1}' + S_{t-1} s_t' ],

s_t the gradient of log pi(a_t | s_t), S_{t-1} the sum of the episode's earlier ones, w_t = gamma^t (G_t - b). It is
unbiased with a baseline of the state or leave-one-out, and the second derivative of DiCE (Foerster et al. 2018, arXiv
1802.05098; Farquhar et al. 2019, arXiv 1909.10549; the same split in Furmston et al. 2016, JMLR 17). The loss that
agents train with has the right gradient but another Hessian, because it treats the data as fixed: never differentiate
it twice.

No second derivative is computed. With u_t the derivative of log pi_t along a vector v, by central differences, c_t the
sum of u over earlier steps of the episode, and e_t the sum of w u over later ones,

    H v = grad sum_t (w_t (u_t + c_t) + e_t) log pi_t  +  d/dv grad sum_t w_t log pi_t:

three ordinary policy gradients with other advantages. Along v itself, no gradient is needed at all:

    v'Hv = E sum_t w_t (u_t^2 + a_t + 2 u_t c_t),      v'g = E sum_t w_t u_t,

with a_t the second difference of log pi_t. These are numbers of each episode, so that their mean has an interval.

Vectors are flat, float64 ``(D,)``, in the order of :func:`pgkit.diagnose.vectors.actor_names`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from pgkit.diagnose.vectors import actor_names, flatten_params, unflatten
from pgkit.nn.policy import Policy
from pgkit.returns import EpisodeEnds, discount_from_start, leave_one_out_baseline, reward_to_go
from pgkit.rollouts.trajectory import pad
from pgkit.types import Batch, Params, Rollout

STEP = 0.01
"""Length of the displacement in parameters for differences.

A longer one is inaccurate along steep directions: along the gradient of a CartPole policy that has learnt, the error of
a product is 3 % at 0.1, and 0.04 % at 0.01, also in float32.
"""

BLOCK_SAMPLES = 4096
"""Samples whose activations are in memory, and in the CPU's cache, at once."""


@dataclass(frozen=True)
class EpisodeSamples:
    """The steps of E whole episodes of one policy, and their weights.

    Attributes:
        batch: samples of one member, ``P = 1``, for the policy's loss.
        index: int64 ``(S,)``, where the S steps are among the B samples, episode by episode, in order of time.
        episode: int64 ``(S,)``, which episode a step belongs to, 0 ... E - 1.
        weight: float64 ``(S,)``, w_t of each step.
        first: int64 ``(E,)``, the first step of each episode.
    """

    batch: Batch
    index: Tensor
    episode: Tensor
    weight: Tensor
    first: Tensor

    @property
    def count(self) -> int:
        """E."""
        return len(self.first)

    def sums(self, x: Tensor) -> Tensor:
        """Add up the numbers ``(S,)`` of each episode's steps, ``(E,)``."""
        return x.new_zeros(self.count).index_add_(0, self.episode, x)

    def earlier(self, x: Tensor) -> Tensor:
        """Add up the numbers ``(S,)`` of the steps before each step in its episode, ``(S,)``."""
        before = x.cumsum(0) - x
        return before - before[self.first][self.episode]

    def later(self, x: Tensor) -> Tensor:
        """Add up the numbers ``(S,)`` of the steps after each step in its episode, ``(S,)``."""
        return self.sums(x)[self.episode] - self.earlier(x) - x


class Derivatives(NamedTuple):
    """Derivatives of J along a vector v, one unbiased estimate of each episode, ``(E,)`` float64.

    Attributes:
        slope: v'g.
        curvature: v'Hv.
    """

    slope: Tensor
    curvature: Tensor


def step_weights(rollout: Rollout, gamma: float = 1.0, baseline: Tensor | None = None) -> Tensor:
    """Compute ``w_t = gamma^t (G_t - b_t)``, float64 ``(T, P, N)``, for the curvature of the discounted return.

    >>> never = torch.zeros(2, 1, 2, dtype=torch.bool)  # T = 2, P = 1, N = 2
    >>> reward = torch.tensor([[[1.0, 1.0]], [[1.0, 3.0]]])
    >>> ended = torch.tensor([[[False, False]], [[True, True]]])
    >>> rollout = Rollout(torch.zeros(3, 1, 2, 4), never.long(), reward, ended, never, ~never)
    >>> step_weights(rollout)
    tensor([[[-2.,  2.]],
    <BLANKLINE>
            [[-2.,  2.]]], dtype=torch.float64)

    Args:
        rollout: whole episodes. Its rewards count as they are: pass those before normalization for J itself.
        gamma: discount; 1 for J, the expected undiscounted return.
        baseline: ``(T, P, N)``, of the state alone; default: the mean return of the other episodes that run at that
            time, of all copies.
    """
    ends = EpisodeEnds(rollout.terminated, rollout.truncated, rollout.valid)
    reward = rollout.reward.double()
    to_go = reward_to_go(reward, torch.zeros_like(reward), ends, gamma)
    if baseline is None:
        baseline = leave_one_out_baseline(_merge_members(to_go), _merge_members(ends.valid)).view(to_go.shape)
    return discount_from_start(ends, gamma, torch.float64) * torch.where(ends.valid, to_go - baseline, 0.0)


def episode_samples(
    policy: Policy, rollout: Rollout, weight: Tensor, dtype: torch.dtype | None = None
) -> EpisodeSamples:
    """List the steps of all ``P * N`` environments as those of one policy.

    Args:
        policy: that has acted.
        rollout: whole episodes, one or several of each environment; P copies with the same parameters.
        weight: ``(T, P, N)``, see :func:`step_weights`.
        dtype: of the computation; default: that of the observations.

    Raises:
        ValueError: shapes differ, or an episode has not ended.
    """
    if weight.numel() != rollout.valid.numel():
        raise ValueError(
            f"expected weights of shape (T, P, N) = {tuple(rollout.valid.shape)}, got {tuple(weight.shape)}"
        )
    rollout = _one_member(rollout)
    steps, _, count = rollout.valid.shape
    place = torch.arange(steps * count, device=rollout.valid.device).view(steps, count).T
    index = place[rollout.valid[:, 0].T]  # environment by environment
    done = (rollout.terminated | rollout.truncated).flatten()[index]
    is_last = torch.ones_like(done)
    is_last[:-1] = (index % count)[1:] != (index % count)[:-1]
    if not len(index) or not done[is_last].all():
        raise ValueError("expected whole episodes: the last step of an environment does not end one")
    number = done.cumsum(0)
    is_first = torch.cat([torch.ones_like(done[:1]), done[:-1]])
    batch = _batch_of(rollout, dtype or rollout.obs.dtype)
    weight = weight.double().flatten()[index]
    if not policy.memory:  # a recurrent policy goes over the whole rectangle; others skip the padding
        batch = Batch.of_columns({name: column[:, index] for name, column in batch.columns.items()})
        index = torch.arange(len(index), device=index.device)
    return EpisodeSamples(batch, index, number - done.long(), weight, is_first.nonzero().squeeze(1))


def join_episodes(rollouts: list[Rollout]) -> Rollout:
    """Join rollouts of copies of one policy, ``(T_i, P_i, N)`` each, along P; shorter ones are padded.

    Whole episodes are collected in groups of different lengths. Not for recurrent policies, whose observations say how
    long their sequence is.
    """
    longest = max(len(rollout.valid) for rollout in rollouts)
    columns = zip(*(_columns(pad(rollout, longest)) for rollout in rollouts), strict=True)
    obs, action, reward, terminated, truncated, valid = (torch.cat(parts, 1) for parts in columns)
    return Rollout(obs, action, reward, terminated, truncated, valid)


def return_gradient(policy: Policy, params: Params, samples: EpisodeSamples) -> Tensor:
    """Estimate g, the gradient of J, ``(D,)``: the mean over episodes of ``sum_t w_t grad log pi_t``.

    Args:
        policy: what the parameters mean.
        params: leaves ``(1, ...)`` of one member.
        samples: its episodes.
    """
    return _gradient(policy, _actor(params, samples), samples, samples.weight)


def hessian_product(
    policy: Policy, params: Params, samples: EpisodeSamples, vector: Tensor, step: float = STEP
) -> Tensor:
    """Estimate ``H v``, H the Hessian of J, ``(D,)``; see the module's notes.

    Relative error against second derivatives, D = 4,610: 1e-6 to 1e-4 in float64, below 1e-3 in float32.

    Args:
        policy: what the parameters mean.
        params: leaves ``(1, ...)`` of one member.
        samples: its episodes.
        vector: v, ``(D,)``, of any length.
        step: length of the displacement of the parameters; default: :data:`STEP`.

    Raises:
        ValueError: the vector is 0 or not ``(D,)``.
    """
    center = _actor(params, samples)
    plus, minus, h = _displaced(center, vector, step)
    weight = samples.weight
    u = (_log_prob(policy, plus, samples) - _log_prob(policy, minus, samples)) / (2 * h)
    scores = weight * (u + samples.earlier(u)) + samples.later(weight * u)
    first = _gradient(policy, center, samples, scores)
    second = _gradient(policy, plus, samples, weight) - _gradient(policy, minus, samples, weight)
    return first + second / (2 * h)


def return_hessian(
    policy: Policy, params: Params, samples: EpisodeSamples, step: float = STEP
) -> Callable[[Tensor], Tensor]:
    """Make ``v -> H v`` of :func:`hessian_product`, for :func:`pgkit.diagnose.lanczos.lanczos`."""
    return lambda vector: hessian_product(policy, params, samples, vector, step)


def log_probabilities(policy: Policy, params: Params, samples: EpisodeSamples) -> Tensor:
    """Compute log pi(a_t | s_t) of each step, float64 ``(S,)``. Arguments as :func:`return_gradient`."""
    return _log_prob(policy, _actor(params, samples), samples)


def directional_derivatives(
    policy: Policy,
    params: Params,
    samples: EpisodeSamples,
    vector: Tensor,
    step: float = STEP,
    log_probs: Tensor | None = None,
) -> Derivatives:
    """Estimate slope ``v'g`` and curvature ``v'Hv`` of J along v from each episode, by three forward passes.

    Their means are unbiased if v does not depend on these episodes. Then v'Hv of a unit vector bounds the largest
    eigenvalue from below and the smallest from above. :func:`pgkit.diagnose.evidence.mean_quantity` makes intervals.

    >>> from pgkit.nn import categorical
    >>> policy = Policy(obs_dim=1, head=categorical(2), hidden=())
    >>> params = policy.init(seeds=[0])  # P = 1
    >>> flags = torch.ones(1, 1, 4, dtype=torch.bool)  # T = 1, P = 1, N = 4: episodes of one step
    >>> action = torch.tensor([[[0, 1, 1, 0]]])
    >>> rollout = Rollout(torch.ones(2, 1, 4, 1), action, action.float(), flags, ~flags, flags)
    >>> samples = episode_samples(policy, rollout, step_weights(rollout))
    >>> v = torch.tensor([0.0, 1.0, 0.0, 0.0])  # one weight
    >>> directional_derivatives(policy, params, samples, v).slope.mean()  # the sample covariance of score and return
    tensor(0.3333, dtype=torch.float64)

    Arguments and errors as :func:`hessian_product`, and ``log_probs``, of :func:`log_probabilities`, which spares one
    pass of each direction where several are tried.
    """
    plus, minus, h = _displaced(_actor(params, samples), vector, step)
    before = _log_prob(policy, minus, samples)
    at = log_probabilities(policy, params, samples) if log_probs is None else log_probs
    after = _log_prob(policy, plus, samples)
    u = (after - before) / (2 * h)
    a = (after + before - 2 * at) / h**2
    bends = u * u + a + 2 * u * samples.earlier(u)
    return Derivatives(samples.sums(samples.weight * u), samples.sums(samples.weight * bends))


def _merge_members(x: Tensor) -> Tensor:
    """``(T, P, N, ...) -> (T, 1, P * N, ...)``."""
    return x.flatten(1, 2).unsqueeze(1)


def _one_member(rollout: Rollout) -> Rollout:
    """All environments of a rollout as those of one member."""
    obs, action, reward, terminated, truncated, valid = map(_merge_members, _columns(rollout))
    return Rollout(obs, action, reward, terminated, truncated, valid)


def _columns(rollout: Rollout) -> tuple[Tensor, ...]:
    """What there is of each step, in the order of :class:`Rollout`, without observations behind an episode's end."""
    return rollout.obs, rollout.action, rollout.reward, rollout.terminated, rollout.truncated, rollout.valid


def _batch_of(rollout: Rollout, dtype: torch.dtype) -> Batch:
    """The samples ``(1, T * N)`` of one member's rollout, without weights."""
    action = rollout.action if rollout.action.dtype == torch.int64 else rollout.action.to(dtype)
    zeros = torch.zeros_like(rollout.reward, dtype=dtype)
    single = replace(rollout, obs=rollout.obs.to(dtype), action=action)
    return Batch.from_rollout(single, zeros, zeros)


def _actor(params: Params, samples: EpisodeSamples) -> Params:
    """The leaves that vectors live on, in the dtype of the computation."""
    return {name: params[name].detach().to(samples.batch.obs.dtype) for name in actor_names(params)}


def _displaced(center: Params, vector: Tensor, step: float) -> tuple[Params, Params, float]:
    """``theta + h v`` and ``theta - h v``, leaves ``(1, ...)``, and h, with ``h |v|`` the length of the step."""
    theta = flatten_params(center)
    if vector.shape != theta.shape[1:] or not vector.norm() > 0:
        raise ValueError(f"expected a vector of shape ({theta.shape[1]},) that is not 0, got {tuple(vector.shape)}")
    h = step / float(vector.double().norm())
    shift = h * vector.double()
    return unflatten(theta + shift, center), unflatten(theta - shift, center), h


def _log_prob(policy: Policy, params: Params, samples: EpisodeSamples) -> Tensor:
    """Log-probabilities of the steps' actions, float64 ``(S,)``."""
    parts = [policy.log_prob(params, block)[0] for block in _blocks(policy, samples.batch)]
    return torch.cat(parts)[samples.index].double()


def _gradient(policy: Policy, params: Params, samples: EpisodeSamples, weight: Tensor) -> Tensor:
    """The gradient of ``sum_t weight_t log pi_t / E``, float64 ``(D,)``, by the policy's loss."""
    leaves = {name: leaf.detach().requires_grad_() for name, leaf in params.items()}
    batch = samples.batch
    advantage = torch.zeros_like(batch.advantage)
    advantage[0, samples.index] = weight.to(advantage.dtype)
    total = torch.zeros_like(flatten_params(params)[0])
    for block in _blocks(policy, batch._replace(advantage=advantage)):
        loss = policy.losses(leaves, block, critic=False)["loss/policy"]  # minus the mean over the block's steps
        grads = torch.autograd.grad(loss.sum(), list(leaves.values()), materialize_grads=True)
        total -= block.valid.sum() * flatten_params(dict(zip(leaves, grads, strict=True)))[0]
    return total / samples.count


def _blocks(policy: Policy, batch: Batch) -> list[Batch]:
    """Cut ``(1, B)`` samples into blocks; those of a recurrent policy are sequences, which stay whole."""
    count = batch.valid.shape[1]
    size = count if policy.memory else BLOCK_SAMPLES
    columns = batch.columns.items()
    return [
        Batch.of_columns({name: column[:, start : start + size] for name, column in columns})
        for start in range(0, count, size)
    ]
