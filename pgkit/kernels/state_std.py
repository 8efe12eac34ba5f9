"""Log standard deviations that depend on the state: outputs of the network, limited to [-20, 2] as in SAC.

(Haarnoja et al. 2018, arXiv 1812.05905, and its code; a wider range lets an exponential overflow early in training.)
The functions of :mod:`pgkit.kernels.gaussian` and :mod:`pgkit.kernels.tanh_gaussian` take outputs that are limited.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pgkit.kernels.gaussian import halves

MIN_LOG_STD = -20.0
MAX_LOG_STD = 2.0


class Functions(NamedTuple):
    """Functions of one sample of a family of distributions, see :attr:`pgkit.kernels.distribution.Distribution`."""

    sample: Callable[..., list[Any]]
    mode: Callable[..., list[Any]]
    kl_divergence: Callable[..., Any]
    log_prob_and_entropy: Callable[..., tuple[Any, Any]]
    output_gradients: Callable[..., list[Any]]


def limit(outputs: Tensor) -> Tensor:
    """Limit the log standard deviations among outputs, ``(..., 2 A) -> (..., 2 A)``; the gradient is 0 beyond."""
    mean, log_std = outputs.chunk(2, -1)
    return torch.cat([mean, log_std.clamp(MIN_LOG_STD, MAX_LOG_STD)], -1)


def with_limit(family: Any) -> Functions:
    """The functions of a family, of outputs that are not limited yet."""

    def output_gradients(outputs: Sequence[Any], *others: Any) -> list[Any]:
        limited = _limit_one(outputs)
        gradients = family.output_gradients(limited, *others)
        return [
            torch.where(number == limit, gradient, 0.0)
            for number, limit, gradient in zip(outputs, limited, gradients, strict=True)
        ]

    return Functions(
        sample=lambda outputs, uniforms: family.sample(_limit_one(outputs), uniforms),
        mode=family.mode,
        kl_divergence=lambda outputs, other: family.kl_divergence(_limit_one(outputs), _limit_one(other)),
        log_prob_and_entropy=lambda outputs, action: family.log_prob_and_entropy(_limit_one(outputs), action),
        output_gradients=output_gradients,
    )


def _limit_one(outputs: Sequence[Any]) -> list[Any]:
    """The same of one sample."""
    means, log_stds = halves(outputs)
    return [*means, *(torch.clamp(log_std, MIN_LOG_STD, MAX_LOG_STD) for log_std in log_stds)]
