"""The normal distribution with independent components: by tensor operations, and for one sample, as
:mod:`pgkit.kernels.categorical`.

``outputs`` are A means, then A logarithms of standard deviations ("log_std").
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pgkit.compiler.lazy import lazy_kernel
from pgkit.kernels.signatures import AppendLogStd
from pgkit.system.cpu import use_compiled

MAX_COMPILED_COMPONENTS = 32
"""The largest number of components that is compiled: the code has some instructions for each, without a loop."""

LOG_TWO_PI = math.log(2 * math.pi)

_append = lazy_kernel("pgkit.kernels.codegen.gaussian:compile_append")


def log_prob(outputs: Tensor, action: Tensor) -> Tensor:
    """Logarithms of the densities of actions, ``(..., B, 2 A), (..., B, A) -> (..., B)``."""
    mean, log_std = outputs.chunk(2, -1)
    return _log_prob(mean, log_std, action).sum(-1)


def entropy(outputs: Tensor) -> Tensor:
    """Entropies in nats, ``(..., B, 2 A) -> (..., B)``."""
    return _entropy(outputs.chunk(2, -1)[1]).sum(-1)


def kl(outputs: Tensor, other: Tensor) -> Tensor:
    """KL(outputs || other) in nats, two ``(..., B, 2 A) -> (..., B)``."""
    return 0.5 * _twice_kl(*outputs.chunk(2, -1), *other.chunk(2, -1)).sum(-1)


def tensor_sample(outputs: Tensor, uniform: Tensor) -> Tensor:
    """Sample actions ``(..., A)`` by tensor operations, with PyTorch's normal quantile in place of this module's."""
    mean, log_std = outputs.chunk(2, -1)
    return mean + log_std.exp() * torch.special.ndtri(uniform.to(outputs))


def append_log_std(mean: Tensor, log_std: Tensor) -> Tensor:
    """Make outputs of the networks' means ``(P, B, A)`` and the members' log_std ``(P, 1, A)``: ``(P, B, 2 A)``.

    Without a gradient on CPU one compiled loop, which graphs can capture.
    """
    if torch.is_grad_enabled() or not use_compiled(mean.dtype, mean.device):
        return torch.cat([mean, log_std.expand_as(mean)], -1)
    mean = mean.contiguous()
    log_std = log_std.to(mean).contiguous()
    members, rows, components = mean.shape
    outputs = mean.new_empty(members, rows, 2 * components)
    arguments = AppendLogStd(
        members=members,
        rows=rows,
        components=components,
        mean=mean.data_ptr(),
        log_std=log_std.data_ptr(),
        outputs=outputs.data_ptr(),
    )
    _append(mean.dtype)(*arguments)
    return outputs


def sample(outputs: Sequence[Any], uniforms: Sequence[Any]) -> list[Any]:
    """The A components of one action, by inverting the distribution function at a uniform number for each."""
    means, log_stds = halves(outputs)
    return [
        mean + torch.exp(log_std) * normal_quantile(uniform)
        for mean, log_std, uniform in zip(means, log_stds, uniforms, strict=True)
    ]


def mode(outputs: Sequence[Any]) -> list[Any]:
    """The A components of the most likely action: the means."""
    return list(halves(outputs)[0])


def kl_divergence(outputs: Sequence[Any], other: Sequence[Any]) -> Any:
    """KL(outputs || other) of one sample, in nats."""
    columns = zip(*halves(outputs), *halves(other), strict=True)
    return sum_of([_twice_kl(*numbers) for numbers in columns]) * 0.5


def log_prob_and_entropy(outputs: Sequence[Any], action: Sequence[Any]) -> tuple[Any, Any]:
    """The log-probability of one action and the entropy, in nats."""
    means, log_stds = halves(outputs)
    log_probs = [_log_prob(*numbers) for numbers in zip(means, log_stds, action, strict=True)]
    return sum_of(log_probs), sum_of([_entropy(log_std) for log_std in log_stds])


def output_gradients(outputs: Sequence[Any], action: Sequence[Any], log_prob_grad: Any, entropy_grad: Any) -> list[Any]:
    """The gradients of one sample's means, then of its log_stds.

    With ``z = (action - mean) / std``, d log p / d mean = z / std, d log p / d log_std = z^2 - 1, dH / d log_std = 1.

    Args:
        outputs: means, then log_stds.
        action: of A components.
        log_prob_grad: the gradient of the action's log-probability.
        entropy_grad: the gradient of the entropy.
    """
    mean_grads = []
    log_std_grads = []
    for mean, log_std, component in zip(*halves(outputs), action, strict=True):
        inverse_std = torch.exp(-log_std)
        z = (component - mean) * inverse_std
        mean_grads.append(log_prob_grad * z * inverse_std)
        log_std_grads.append(log_prob_grad * (z * z - 1.0) + entropy_grad)
    return [*mean_grads, *log_std_grads]


# Coefficients from the constant term on; the last digits are beyond float64.
_CENTRE = (
    (3.3871328727963666080e0, 1.3314166789178437745e2, 1.9715909503065514427e3, 1.3731693765509461125e4)
    + (4.5921953931549871457e4, 6.7265770927008700853e4, 3.3430575583588128105e4, 2.5090809287301226727e3),
    (1.0, 4.2313330701600911252e1, 6.8718700749205790830e2, 5.3941960214247511077e3)
    + (2.1213794301586595867e4, 3.9307895800092710610e4, 2.8729085735721942674e4, 5.2264952788528545610e3),
)
_TAIL = (
    (1.42343711074968357734e0, 4.63033784615654529590e0, 5.76949722146069140550e0, 3.64784832476320460504e0)
    + (1.27045825245236838258e0, 2.41780725177450611770e-1, 2.27238449892691845833e-2, 7.74545014278341407640e-4),
    (1.0, 2.05319162663775882187e0, 1.67638483018380384940e0, 6.89767334985100004550e-1)
    + (1.48103976427480074590e-1, 1.51986665636164571966e-2, 5.47593808499534494600e-4, 1.05075007164441684324e-9),
)
_FAR_TAIL = (
    (6.65790464350110377720e0, 5.46378491116411436990e0, 1.78482653991729133580e0, 2.96560571828504891230e-1)
    + (2.65321895265761230930e-2, 1.24266094738807843860e-3, 2.71155556874348757815e-5, 2.01033439929228813265e-7),
    (1.0, 5.99832206555887937690e-1, 1.36929880922735805310e-1, 1.48753612908506148525e-2)
    + (7.86869131145613259100e-4, 1.84631831751005468180e-5, 1.42151175831644588870e-7, 2.04426310338993978564e-15),
)


def normal_quantile(probability: Any) -> Any:
    """The number that a standard normal variable is below with this probability, in (0, 1).

    A quotient of two polynomials in each of three intervals (Wichura 1988, "Algorithm AS 241: The percentage points of
    the normal distribution", PPND16), accurate to 1e-16. All coefficients are positive, so nothing cancels in float32.
    """
    q = probability - 0.5
    tail = torch.sqrt(-torch.log(torch.minimum(probability, 1.0 - probability)))
    near, far = (_fraction(*part, tail - start) for part, start in ((_TAIL, 1.6), (_FAR_TAIL, 5.0)))
    numerator, denominator = _fraction(*_CENTRE, 0.180625 - q * q)
    is_near = tail <= 5.0
    is_central = torch.abs(q) <= 0.425
    # The division is the expensive operation: choose what is divided, not among quotients.
    numerator = torch.where(is_central, numerator * torch.abs(q), torch.where(is_near, near[0], far[0]))
    denominator = torch.where(is_central, denominator, torch.where(is_near, near[1], far[1]))
    quantile = numerator / denominator
    return torch.where(q < 0.0, -quantile, quantile)


def _fraction(numerator: Sequence[float], denominator: Sequence[float], x: Any) -> tuple[Any, Any]:
    return _polynomial(numerator, x), _polynomial(denominator, x)


def _polynomial(coefficients: Sequence[float], x: Any) -> Any:
    """``c_0 + c_1 x + c_2 x^2 + ...`` by Horner's rule."""
    *rest, last = coefficients
    result = x * last + rest.pop()
    for coefficient in reversed(rest):
        result = result * x + coefficient
    return result


def _log_prob(mean: Any, log_std: Any, action: Any) -> Any:
    z = (action - mean) * torch.exp(-log_std)
    return z * z * -0.5 - log_std - 0.5 * LOG_TWO_PI


def _entropy(log_std: Any) -> Any:
    return log_std + 0.5 * (1 + LOG_TWO_PI)


def _twice_kl(mean: Any, log_std: Any, other_mean: Any, other_log_std: Any) -> Any:
    log_ratio = (log_std - other_log_std) * 2.0
    distance = (mean - other_mean) * torch.exp(-other_log_std)
    return torch.exp(log_ratio) + distance * distance - 1.0 - log_ratio


def sum_of(numbers: Sequence[Any]) -> Any:
    """The sum from the first number on; ``sum`` would add it to 0."""
    first, *rest = numbers
    for number in rest:
        first = first + number
    return first


def halves(numbers: Sequence[Any]) -> tuple[Sequence[Any], Sequence[Any]]:
    """Means and log_stds."""
    components = len(numbers) // 2
    return numbers[:components], numbers[components:]
