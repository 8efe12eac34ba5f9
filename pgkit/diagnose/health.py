"""Whether a policy and its networks can still move: saturated outputs, constant units, ranks of features, weights.

One network is one network: intervals, where there are any, are over the states that it is looked at on.
"""

import math
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from pgkit.diagnose.results import Quantity
from pgkit.nn.action_masks import split_mask
from pgkit.nn.mlp import forward_pass, layer_count
from pgkit.nn.policy import Policy
from pgkit.stats.samples import FloatArray, percentile_interval
from pgkit.types import Params

RESAMPLES = 500
CERTAIN = 0.99
"""A choice is certain whose probability is larger."""

DORMANT, CONSTANT, SATURATED, FLAT, SRANK, FEATURE = 0.025, 0.01, 0.97, 0.05, 0.99, 0.01
"""Thresholds of the measures of units below."""


@torch.no_grad()
def health(policy: Policy, params: Params, obs: Tensor, initial: Params | None = None) -> dict[str, Quantity]:
    """Look at the networks of one member on B states.

    Args:
        policy: what the parameters mean.
        params: leaves ``(1, ...)``.
        obs: ``(1, B, D)``, what the policy acts on.
        initial: the parameters before training; norms of weights are then divided by theirs.

    Returns:
        By ``"<network>/<measure>"``: ``policy`` (:func:`policy_health`), and for each MLP :func:`unit_health` of its
        last hidden layer and the norms of its weights (:func:`weight_health`).
    """
    measured = {f"policy/{name}": quantity for name, quantity in policy_health(policy, params, obs).items()}
    for network, units in _last_hidden(policy, params, obs).items():
        measured |= {f"{network}/{name}": quantity for name, quantity in unit_health(units, policy.activation).items()}
    for network in ("trunk", "actor", "critic"):
        if layer_count(params, network):
            weights = weight_health(params, network, initial)
            measured |= {f"{network}/{name}": quantity for name, quantity in weights.items()}
    return measured


def policy_health(policy: Policy, params: Params, obs: Tensor) -> dict[str, Quantity]:
    """How much choice a policy has left, over B states ``(1, B, D)``.

    With discrete actions: ``entropy`` (mean, over that of uniform actions), ``certain`` (share of states in which one
    choice has more than 99 %), ``gap`` (median difference of the two largest outputs). With Gaussian ones ``entropy``
    is in nats, and ``log_std`` the mean over actions.
    """
    outputs = policy.outputs(params, obs)
    entropy = policy.head.entropy(outputs)[0].double().numpy()
    choices = policy.head.choices
    if not choices:
        measured = {"entropy": _mean(entropy)}
        if policy.head.family is not None:
            measured["log_std"] = Quantity(float(outputs[..., policy.head.noise :].double().mean()), n=obs.shape[1])
        return measured
    parts = [part[0].double() for part in outputs.split(list(choices), -1)]
    largest = torch.stack([torch.softmax(part, -1).amax(-1) for part in parts]).amin(0)
    gaps = torch.stack([part.topk(2, -1).values.diff(dim=-1).abs()[:, 0] for part in parts]).amin(0)
    return {
        "entropy": _mean(entropy / math.log(math.prod(choices))),
        "certain": _mean((largest > CERTAIN).double().numpy()),
        "gap": Quantity(float(gaps.median()), n=obs.shape[1]),
    }


def unit_health(units: ArrayLike, activation: str = "tanh") -> dict[str, Quantity]:
    """Measure the units of a hidden layer.

    ``dormant``: share of units whose mean ``|h|`` is at most 2.5 % of the layer's mean (Sokar et al. 2023, arXiv
    2302.12902); made for ReLU, and blind with tanh, whose units saturate instead. ``constant``: share with a standard
    deviation below .01. ``saturated``: share of entries ``|h| > .97``, and ``flat``: share of units whose mean slope
    ``1 - h^2`` is below .05; with tanh only. ``srank``: singular values that make up 99 % of their sum (Kumar et al.
    2021, arXiv 2010.14498). ``feature_rank``: those of ``h / sqrt(B)`` above .01 (Lyle et al. 2022, arXiv 2204.09560).
    ``effective_rank``: exp of the entropy of their shares (Roy and Vetterli 2007). ``sign_balance``: expected share of
    units whose sign differs in two states, over a half (Fernandez-Hernandez et al. 2025, arXiv 2504.17160).

    >>> h = [[1.0, 0.0, 0.5, 0.0], [1.0, 0.0, -0.5, 0.01]] * 2  # B = 4 states, H = 4 units
    >>> measured = unit_health(h)
    >>> measured["dormant"].value, measured["constant"].value, round(measured["effective_rank"].value, 6)
    (0.5, 0.75, 1.889892)

    Args:
        units: ``(B, H)``, outputs of the layer.
        activation: its activation.
    """
    h = np.asarray(units, dtype=np.float64)
    if h.ndim != 2 or len(h) < 2 or not np.isfinite(h).all():
        names = ("dormant", "constant", "srank", "feature_rank", "effective_rank", "sign_balance")
        return dict.fromkeys(names, Quantity.missing("activations are not finite, or there are fewer than two states"))
    size = np.abs(h).mean(0)
    singular = np.linalg.svd(h, compute_uv=False)
    shares = singular / max(singular.sum(), np.finfo(float).tiny)
    positive = (h > 0).mean(0)
    values = {
        "dormant": float((size <= DORMANT * size.mean()).mean()),
        "constant": float((h.std(0) < CONSTANT).mean()),
        "srank": float(1 + np.searchsorted(np.cumsum(shares), SRANK)) if singular[0] > 0 else 0.0,
        "feature_rank": float((singular / math.sqrt(len(h)) > FEATURE).sum()),
        "effective_rank": float(np.exp(-(shares * np.log(np.where(shares > 0, shares, 1.0))).sum())),
        "sign_balance": float((4 * positive * (1 - positive) * len(h) / (len(h) - 1)).mean()),
    }
    if activation == "tanh":
        values["saturated"] = float((np.abs(h) > SATURATED).mean())
        values["flat"] = float(((1 - h * h).mean(0) < FLAT).mean())
    return {name: Quantity(value, n=len(h)) for name, value in values.items()}


def weight_health(params: Params, network: str, initial: Params | None = None) -> dict[str, Quantity]:
    """``weight_norm`` of all layers of a network (over the initial one, if given), and the ``largest_singular`` value.

    Weights that grow make a learning rate effectively smaller (Lyle et al. 2024, arXiv 2407.01800).
    """
    names = [f"{network}.{layer}.weight" for layer in range(layer_count(params, network))]
    norm = _norm(params, names)
    if initial is not None:
        norm /= max(_norm(initial, names), np.finfo(float).tiny)
    weights = [params[name][0].double() for name in names]
    finite = all(bool(weight.isfinite().all()) for weight in weights)
    largest = max(float(torch.linalg.matrix_norm(weight, 2)) for weight in weights) if finite else math.nan
    return {"weight_norm": Quantity(norm), "largest_singular": Quantity(largest)}


@torch.no_grad()
def churn(policy: Policy, before: Params, after: Params, obs: Tensor) -> dict[str, Quantity]:
    """How far updates move the policy in states outside of their batch (Schaul et al. 2022, arXiv 2206.00730).

    Args:
        policy: what the parameters mean.
        before: leaves ``(M, ...)`` of M copies.
        after: after one update each.
        obs: ``(1, B, D)``, states.

    Returns:
        ``kl``: mean KL(before || after), ``changed``: share of states whose most likely action is another; each a mean
        over copies with a bootstrap interval.
    """
    copies = len(next(iter(after.values())))
    probe = obs.expand(copies, -1, -1)
    old, new = policy.outputs(before, probe), policy.outputs(after, probe)
    changed = policy.head.mode(old) != policy.head.mode(new)
    shares = changed.double().flatten(1).mean(1).numpy()
    return {"kl": _mean(policy.head.kl(old, new).double().mean(1).numpy()), "changed": _mean(shares)}


def _last_hidden(policy: Policy, params: Params, obs: Tensor) -> dict[str, FloatArray]:
    """Outputs ``(B, H)`` of the last hidden layer of each MLP; of networks in front of them nothing is known."""
    if policy.network is not None:
        return {}
    x, _ = split_mask(obs, policy.obs_dim)
    if layer_count(params, "trunk"):
        trunk = forward_pass(params, "trunk", x, policy.activation, activate_last=True)
        return {"trunk": trunk.results[-1][0].double().numpy()}
    hidden = {}
    for network in ("actor", "critic"):
        if layer_count(params, network) > 1:
            hidden[network] = forward_pass(params, network, x, policy.activation).results[-2][0].double().numpy()
    return hidden


def _norm(params: Mapping[str, Tensor], names: list[str]) -> float:
    return math.sqrt(sum(float(params[name].double().square().sum()) for name in names))


def _mean(values: FloatArray) -> Quantity:
    """The mean of ``(B,)`` with a bootstrap interval, from a fixed seed."""
    draws = np.random.default_rng(0).multinomial(len(values), np.full(len(values), 1 / len(values)), RESAMPLES)
    return Quantity(float(values.mean()), *percentile_interval(draws @ values / len(values)), len(values))
