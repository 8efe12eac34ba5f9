"""The normal distribution squashed by tanh into (-1, 1), by tensor operations and for one sample, as
:mod:`pgkit.kernels.gaussian`.

An action is the number ``u`` before tanh, so that its log-probability stays exact where tanh(u) rounds to 1. Densities
and entropies are those of ``tanh(u)``: with ``u ~ N(mean, std)`` in each component,

    log p(tanh(u)) = log N(u; mean, std) - log(1 - tanh(u)^2)
    H = H(N(mean, std)) + E[log(1 - tanh(u)^2)]

(Haarnoja et al. 2018, arXiv 1801.01290, appendix C). The expectation has no closed form: it is a Gauss-Hermite sum of
16 points, a smooth function of mean and std. Minus the log-probability of a drawn action would estimate H, too, but its
gradient with the action held fixed is zero on average, so a bonus for it would teach nothing. KL divergences are those
before tanh, which is a bijection.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pgkit.kernels import gaussian
from pgkit.kernels.gaussian import halves, kl_divergence, mode, sample

__all__ = ["entropy", "kl_divergence", "log_prob", "log_prob_and_entropy", "mode", "output_gradients", "sample"]

MAX_COMPILED_COMPONENTS = 8
"""The largest number of components that is compiled: each has some hundred instructions."""

LOG_FOUR = math.log(4.0)

NODES = (
    (0.3867606045005574, 0.286568521238012),
    (1.1638291005549648, 0.1583383727509497),
    (1.9519803457163334, 0.04728475235401406),
    (2.7602450476307014, 0.007266937601184749),
    (3.6008736241715487, 0.0005259849265739087),
    (4.492955302520011, 1.530003216248732e-05),
    (5.472225705949343, 1.309473216286817e-07),
    (6.630878198393129, 1.4978147231618412e-10),
)
"""Positive nodes and weights of the Gauss-Hermite sum of 16 points for a standard normal variable; it is symmetric.

Against the exact integral, the entropy of a component is off by at most 2e-5 nats for deviations up to 1, 6e-4 up to
1.5, 2e-2 up to e, 0.1 up to 4; wider ones saturate tanh, and their entropy falls in the sum as in the integral.
"""


def log_prob(outputs: Tensor, action: Tensor) -> Tensor:
    """Logarithms of the densities of ``tanh(action)``, ``(..., B, 2 A), (..., B, A) -> (..., B)``."""
    return gaussian.log_prob(outputs, action) - _log_slope(action).sum(-1)


def entropy(outputs: Tensor) -> Tensor:
    """Entropies of ``tanh(u)`` in nats, ``(..., B, 2 A) -> (..., B)``, up to the error of the Gauss-Hermite sum."""
    return gaussian.entropy(outputs) + _mean_log_slope(*outputs.chunk(2, -1)).sum(-1)


def log_prob_and_entropy(outputs: Sequence[Any], action: Sequence[Any]) -> tuple[Any, Any]:
    """The log-probability of one action and the entropy, in nats."""
    log_prob_of_normal, entropy_of_normal = gaussian.log_prob_and_entropy(outputs, action)
    slopes = gaussian.sum_of([_log_slope(component) for component in action])
    mean_slopes = gaussian.sum_of([_mean_log_slope(*numbers) for numbers in zip(*halves(outputs), strict=True)])
    return log_prob_of_normal - slopes, entropy_of_normal + mean_slopes


def output_gradients(outputs: Sequence[Any], action: Sequence[Any], log_prob_grad: Any, entropy_grad: Any) -> list[Any]:
    """The gradients of one sample's means, then of its log_stds; arguments as of ``gaussian.output_gradients``.

    With u = mean + std z, d log(1 - tanh(u)^2) / d mean = -2 tanh(u), and d log(1 - tanh(u)^2) / d log_std =
    -2 tanh(u) std z.
    """
    of_normal = gaussian.output_gradients(outputs, action, log_prob_grad, entropy_grad)
    mean_grads = []
    log_std_grads = []
    for mean, log_std, mean_grad, log_std_grad in zip(*halves(outputs), *halves(of_normal), strict=True):
        std = torch.exp(log_std)
        mean_terms = []
        log_std_terms = []
        for node, weight in NODES:
            shift = std * node
            above = torch.tanh(mean + shift)
            below = torch.tanh(mean - shift)
            mean_terms.append((above + below) * weight)
            log_std_terms.append((above - below) * shift * weight)
        mean_grads.append(mean_grad - entropy_grad * gaussian.sum_of(mean_terms) * 2.0)
        log_std_grads.append(log_std_grad - entropy_grad * gaussian.sum_of(log_std_terms) * 2.0)
    return [*mean_grads, *log_std_grads]


def _log_slope(u: Any) -> Any:
    """log(1 - tanh(u)^2), finite for every finite u: 2 (log 2 - |u| - log(1 + exp(-2 |u|)))."""
    twice = torch.abs(u) * 2.0
    return LOG_FOUR - twice - torch.log(torch.exp(-twice) + 1.0) * 2.0


def _mean_log_slope(mean: Any, log_std: Any) -> Any:
    """E[log(1 - tanh(u)^2)] with u normal, by the Gauss-Hermite sum."""
    std = torch.exp(log_std)
    shifts = [(std * node, weight) for node, weight in NODES]
    return gaussian.sum_of([(_log_slope(mean + shift) + _log_slope(mean - shift)) * weight for shift, weight in shifts])
