"""Gradient estimators on the same data: what each would make of one batch, and how far it is from the true gradient.

A rollout of whole episodes (:class:`pgkit.types.Rollout`, ``(T, P, N)``) whose P members are copies of one point holds
P independent batches of N episodes. :func:`advantages` and :func:`policy_gradients` turn it into gradients ``(P, D)``
of each estimator, sums over steps, means over episodes; :func:`compare_estimators` measures these against a reference
from *other* batches:

    U_x, S2_x   signal and noise of estimator x, see :mod:`pgkit.diagnose.noise`
    U_R         signal of the reference
    bias^2      |E x - E R|^2 = U_x - 2 mean_x . mean_R + U_R, unbiased
    mse         S2_x + bias^2

The reference is the leave-one-out estimator, which is unbiased: at the agent's discount for the agent's target, at 1
for J, the return without discount.

>>> rng = np.random.default_rng(0)
>>> reference = np.array([1.0, 2.0]) + rng.normal(size=(48, 2))
>>> half = 0.5 * (np.array([1.0, 2.0]) + 0.1 * rng.normal(size=(48, 2)))
>>> comparison = compare_estimators({"half": half}, reference, rng=0)
>>> comparison.quantities["half/bias2"].low < 0.25 < comparison.quantities["half/bias2"].high
True
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from pgkit.diagnose.noise import (
    MIN_BATCHES,
    delete_one,
    fieller,
    flaw,
    flip_test,
    gram,
    jackknife_covariance,
    moments,
    unresolved_reason,
    with_error,
)
from pgkit.diagnose.results import Quantity
from pgkit.nn.mlp import forward_pass
from pgkit.nn.policy import Policy
from pgkit.returns import EpisodeEnds, gae, leave_one_out_baseline, mean_baseline, reward_to_go
from pgkit.stats.samples import FloatArray, Rng, generator
from pgkit.types import Batch, ForwardCache, Params, Rollout, Scalar

LAMS = (0.0, 0.5, 0.9, 0.95, 0.99, 1.0)
"""Values of GAE's lambda that are compared."""

MEASURES = ("variance", "bias2", "mse", "cosine", "nsr")
"""What is measured of each estimator."""


class Comparison(NamedTuple):
    """Estimators against a reference.

    Attributes:
        rows: of the table ``estimators``: ``name``, each of :data:`MEASURES` with ``_low`` and ``_high``, ``p_flip``,
            ``n``, and ``reason`` where ``bias2``, ``mse`` and ``cosine`` are missing.
        quantities: by ``"<name>/<measure>"``; all but ``nsr``, which is in the rows only.
    """

    rows: list[dict[str, Any]]
    quantities: dict[str, Quantity]


def check_whole_episodes(rollout: Rollout) -> None:
    """Raise ValueError unless each of the ``P * N`` environments holds one episode, up to its end."""
    later = rollout.valid.flip(0).cumsum(0).flip(0) - rollout.valid.long()
    last = rollout.valid & (later == 0)
    done = (rollout.terminated | rollout.truncated) & rollout.valid
    if not (rollout.valid.any(0).all() and torch.equal(done, last)):
        raise ValueError("the rollout must hold one whole episode in each environment")


def advantages(
    rollout: Rollout, value: Tensor, next_value: Tensor, gamma: Scalar, lams: Sequence[float] = LAMS
) -> dict[str, Tensor]:
    """Compute the advantages of all estimators of a rollout of whole episodes, ``(T, P, N)`` by name.

    ``none``, ``mean`` and ``leave-one-out`` are returns minus that baseline over the N episodes of a batch, ``value``
    is returns minus V; returns count nothing behind the time limit. ``gae-<lambda>`` is generalized advantage
    estimation, with V behind the time limit, as actor-critic has it.

    >>> never = torch.zeros(2, 1, 2, dtype=torch.bool)  # T = 2, P = 1, N = 2
    >>> last = torch.tensor([False, True]).view(2, 1, 1).expand(2, 1, 2)
    >>> reward = torch.tensor([[[1.0, 3.0]], [[1.0, 1.0]]])
    >>> rollout = Rollout(torch.zeros(3, 1, 2, 4), reward.long(), reward, last, never, ~never)
    >>> advantages(rollout, torch.zeros_like(reward), torch.zeros_like(reward), gamma=1.0)["leave-one-out"][0]
    tensor([[-2.,  2.]])

    Args:
        rollout: one episode in each environment.
        value: ``(T, P, N)``, V of the observations, see :meth:`pgkit.nn.policy.Policy.values`.
        next_value: ``(T, P, N)``, V of the true next observations.
        gamma: discount per step in [0, 1], a number or ``(P,)``.
        lams: GAE's lambdas.

    Raises:
        ValueError: the rollout does not hold whole episodes, or shapes do not fit.
    """
    check_whole_episodes(rollout)
    ends = EpisodeEnds(rollout.terminated, rollout.truncated, rollout.valid)
    returns = reward_to_go(rollout.reward, torch.zeros_like(rollout.reward), ends, gamma)
    generalized = {f"gae-{lam:g}": gae(rollout.reward, value, next_value, ends, gamma, lam) for lam in lams}
    return {
        "none": returns,
        "mean": returns - mean_baseline(returns, ends.valid),
        "leave-one-out": returns - leave_one_out_baseline(returns, ends.valid),
        "value": torch.where(ends.valid, returns - value, 0.0),
        **generalized,
    }


def policy_gradients(
    policy: Policy, params: Params, rollout: Rollout, advantages: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Compute ``mean over episodes of sum_t grad log pi(a_t | s_t) A_t`` per batch and estimator, ``(P, D)`` by name.

    D counts all parameters but the critic's, in the order of ``params``. The networks' forward passes are computed once
    where they can be cached. The gradient points uphill, as that of J does.

    >>> from pgkit.nn import categorical
    >>> policy = Policy(obs_dim=4, head=categorical(2), hidden=())  # 4 * 2 weights and 2 biases
    >>> zeros = torch.zeros(5, 3, 2)  # T = 5, P = 3, N = 2
    >>> rollout = Rollout(torch.zeros(6, 3, 2, 4), zeros.long(), zeros, zeros.bool(), zeros.bool(), ~zeros.bool())
    >>> policy_gradients(policy, policy.init([0, 0, 0]), rollout, {"none": zeros})["none"].shape
    torch.Size([3, 10])

    Args:
        policy: of all P members.
        params: leaves ``(P, ...)``, those that played the rollout.
        rollout: P batches of N episodes.
        advantages: ``(T, P, N)`` by name.
    """
    zeros = torch.zeros_like(rollout.reward)
    batch = Batch.from_rollout(rollout, zeros, zeros, _actor_cache(policy, params, rollout))
    episodes = rollout.valid.shape[2]
    steps = batch.valid.to(zeros.dtype).sum(1) / episodes  # per episode: the loss is a mean over steps
    leaves = {name: leaf.detach() for name, leaf in params.items()}
    actor = [leaf.requires_grad_() for name, leaf in leaves.items() if not name.startswith("critic")]
    gradients = {}
    for name, advantage in advantages.items():
        weight = advantage.transpose(0, 1).flatten(1, 2) * steps[:, None]
        loss = policy.losses(leaves, batch._replace(advantage=weight), critic=False)["loss/policy"]
        grads = torch.autograd.grad(loss.sum(), actor, materialize_grads=True)
        gradients[name] = -torch.cat([leaf.flatten(1) for leaf in grads], 1)
    return gradients


def compare_estimators(gradients: Mapping[str, ArrayLike], reference: ArrayLike, rng: Rng) -> Comparison:
    """Measure variance, bias, error and direction of each estimator, with jackknife intervals over batches.

    ``variance`` is S2_x; ``bias2`` and ``mse`` are divided by U_R (Fieller's interval), ``cosine`` is ``mean_x . mean_R
    / sqrt(U_x U_R)``, ``nsr`` is S2_x / U_x. An unbiased estimate of a squared bias may be negative, and a cosine may
    exceed 1 by noise: clip what is shown, not what is averaged. Where the reference is not resolved there are no
    ratios; if the estimator is resolved nevertheless, and differs from the reference, the reason says that its gradient
    is the critic's own. An example is in the module's notes.

    Args:
        gradients: ``(B, D)`` by the estimator's name, B batches.
        reference: ``(B', D)``, of an unbiased estimator on batches that are independent of these.
        rng: generator or seed of the sign flips.

    Raises:
        ValueError: the gradients do not have the same D.
    """
    source = generator(rng)
    target = np.asarray(reference, dtype=np.float64)
    target_products = gram(target)
    problem = flaw(target_products)
    unresolved = f"reference: {problem}" if problem else None
    if unresolved is None:
        reason = unresolved_reason(flip_test(target_products, source), moments(target_products))
        unresolved = reason and reason.replace("the gradient", "the true gradient")
    rows = []
    quantities: dict[str, Quantity] = {}
    for name, batches in gradients.items():
        sample = np.asarray(batches, dtype=np.float64)
        if sample.ndim != 2 or sample.shape[1:] != target.shape[1:]:
            raise ValueError(f"gradients of {name!r} must be (B, D) as the reference, got {sample.shape}")
        p, measured = _measure(sample, target, unresolved, source)
        rows.append(_row(name, len(sample), p, measured))
        quantities |= {f"{name}/{measure}": measured[measure] for measure in MEASURES if measure != "nsr"}
    return Comparison(rows, quantities)


def _actor_cache(policy: Policy, params: Params, rollout: Rollout) -> ForwardCache | None:
    """The actor's forward pass: as acting has kept it, or computed if the samples are packed."""
    packing = rollout.packing
    if packing is None:
        return rollout.cache
    actor = forward_pass(params, "actor", packing.obs, policy.activation, sizes=packing.forward_sizes)
    return ForwardCache(packing.obs, {"actor": actor})


def _measure(
    sample: FloatArray, target: FloatArray, unresolved: str | None, rng: np.random.Generator
) -> tuple[float, dict[str, Quantity]]:
    """The p value of the sign flips and all measures of one estimator."""
    products = gram(sample)
    problem = flaw(products)
    if problem is not None:
        return math.nan, dict.fromkeys(MEASURES, Quantity.missing(problem))
    p = flip_test(products, rng)
    estimate = moments(products)
    vague = unresolved_reason(p, estimate)
    measured = {"variance": with_error(estimate.noise, estimate.covariance[0, 0], estimate.n)}
    nsr = Quantity.missing(vague) if vague else _ratio(estimate.noise, estimate.signal, estimate.covariance, estimate.n)
    relative = _against(sample, target, unresolved, vague)
    return p, measured | relative | {"nsr": nsr}


def _against(sample: FloatArray, target: FloatArray, unresolved: str | None, vague: str | None) -> dict[str, Quantity]:
    """Squared bias, error and cosine against the reference; ``unresolved`` and ``vague`` say what is not resolved."""
    if len(target) < MIN_BATCHES or not np.isfinite(target).all():
        return dict.fromkeys(("bias2", "mse", "cosine"), Quantity.missing(unresolved or ""))
    n = min(len(sample), len(target))
    value, replicates = _statistics(sample, target)
    covariance = sum(jackknife_covariance(part) for part in replicates)
    # Rows: squared bias, squared error, squared norm of the reference; columns: S2_x, U_x, mean_x . mean_R, U_R.
    sums = np.array([[0.0, 1.0, -2.0, 1.0], [1.0, 1.0, -2.0, 1.0], [0.0, 0.0, 0.0, 1.0]])
    bias2, mse, signal = sums @ value
    covariance = sums @ covariance @ sums.T
    if unresolved is not None:
        differs = not vague and with_error(bias2, covariance[0, 0], n).low > 0
        reason = f"{unresolved}, this estimator's is: the gradient is the critic's own" if differs else unresolved
        return dict.fromkeys(("bias2", "mse", "cosine"), Quantity.missing(reason))
    return {
        "bias2": _ratio(bias2, signal, covariance[np.ix_([0, 2], [0, 2])], n),
        "mse": _ratio(mse, signal, covariance[np.ix_([1, 2], [1, 2])], n),
        "cosine": Quantity.missing(vague) if vague else _cosine(value, replicates, n),
    }


def _statistics(sample: FloatArray, target: FloatArray) -> tuple[FloatArray, tuple[FloatArray, FloatArray]]:
    """S2_x, U_x, mean_x . mean_R, U_R: of all batches ``(4,)``, then without each of ``sample``, or of ``target``."""
    ours = moments(gram(sample))
    theirs = moments(gram(target))
    along = sample @ target.mean(0)
    back = target @ sample.mean(0)
    value = np.array([ours.noise, ours.signal, along.mean(), theirs.signal])
    without_ours = np.tile(value, (len(sample), 1))
    without_ours[:, :2] = delete_one(gram(sample))
    without_ours[:, 2] = (along.sum() - along) / (len(along) - 1)
    without_theirs = np.tile(value, (len(target), 1))
    without_theirs[:, 2] = (back.sum() - back) / (len(back) - 1)
    without_theirs[:, 3] = delete_one(gram(target))[:, 1]
    return value, (without_ours, without_theirs)


def _ratio(numerator: float, denominator: float, covariance: FloatArray, n: int) -> Quantity:
    low, high = fieller(numerator, denominator, covariance, n - 1)
    return Quantity(float(numerator / denominator), low, high, n)


def _cosine(value: FloatArray, replicates: Sequence[FloatArray], n: int) -> Quantity:
    """The cosine of the means, corrected for noise, with a jackknife interval over both samples.

    Near 1 it is quadratic in the difference of directions, and the interval may end above or below 1 by mistake.
    """
    if min(float(part[:, [1, 3]].min()) for part in replicates) <= 0:
        return Quantity.missing("without one of the batches there is no signal")
    cosines = [part[:, 2] / np.sqrt(part[:, 1] * part[:, 3]) for part in replicates]
    variance = sum(float(jackknife_covariance(part[:, None])[0, 0]) for part in cosines)
    return with_error(float(value[2] / np.sqrt(value[1] * value[3])), variance, n)


def _row(name: str, n: int, p: float, measured: Mapping[str, Quantity]) -> dict[str, Any]:
    """One row of the table ``estimators``."""
    row: dict[str, Any] = {"name": name, "n": n, "p_flip": p, "reason": measured["bias2"].reason}
    for measure in MEASURES:
        quantity = measured[measure]
        row |= {measure: quantity.value, f"{measure}_low": quantity.low, f"{measure}_high": quantity.high}
    return row
