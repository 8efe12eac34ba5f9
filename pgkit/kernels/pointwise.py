"""Element-wise functions of tensors with the same bits on every processor."""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from pgkit.compiler.lazy import lazy_kernel
from pgkit.system.cpu import use_compiled

SERIES_END = 6.0
"""Where :func:`erfi` goes over from its power series to its asymptotic one."""


def erfi(x: Tensor) -> Tensor:
    """The imaginary error function 2 / sqrt(pi) times the integral of exp(t^2) from 0 to x, float64, to 1e-13.

    The terms of both series have one sign, so nothing is lost by cancellation: sum of x^(2k+1) / (k! (2k+1)) below
    ``SERIES_END``, where 110 terms are enough, and exp(x^2) / x times the sum of (2k-1)!! / (2 x^2)^k beyond, where 30
    are. PyTorch has no such function.
    """
    square = x * x
    near = _polynomial(POWER_SERIES, square)
    far = _polynomial(ASYMPTOTIC_SERIES, 1.0 / square)
    return torch.where(torch.abs(x) < SERIES_END, near * x, far * torch.exp(square) / x)


def _polynomial(coefficients: Sequence[float], x: Tensor) -> Tensor:
    """The sum of coefficients times powers of x, the constant first, by Horner's rule."""
    result = x * coefficients[-1] + coefficients[-2]
    for coefficient in coefficients[-3::-1]:
        result = result * x + coefficient
    return result


POWER_SERIES = tuple(2 / math.sqrt(math.pi) / (math.factorial(k) * (2 * k + 1)) for k in range(110))
"""Of erfi(x) / x, in x^2."""

ASYMPTOTIC_SERIES = tuple(math.factorial(2 * k) / (math.factorial(k) * 4**k) / math.sqrt(math.pi) for k in range(30))
"""Of erfi(x) x exp(-x^2), in 1 / x^2."""

_COMPILED_FUNCTIONS = (torch.sqrt, torch.exp, torch.log, torch.cos, erfi)
"""The functions that :func:`deterministic_map` compiles."""

_compile = lazy_kernel("pgkit.compiler.elementwise:compile_elementwise")


def deterministic_map(function: Callable[..., Tensor], *vectors: Tensor) -> Tensor:
    """``function(*vectors)`` for vectors ``(P,)``, with bits that do not depend on a number's position.

    PyTorch computes ``exp`` or ``cos`` by vector code as far as registers can be filled, and by scalar code for the
    rest; the two differ in the last bit, so a member's result would depend on how many members there are. On CPU the
    functions in ``_COMPILED_FUNCTIONS`` are compiled, which graphs can capture. For all others each number is repeated
    until it fills registers by itself.

    Raises:
        TypeError: from ``function``, if it does not take this many tensors.
    """
    first = vectors[0]
    if function not in _COMPILED_FUNCTIONS or not use_compiled(first.dtype, first.device):
        return function(*(vector.unsqueeze(1).expand(-1, 16).contiguous() for vector in vectors))[:, 0]
    x = first.contiguous()
    results = torch.empty_like(x)
    _kernel(function, x.dtype)(x.numel(), x.data_ptr(), results.data_ptr())
    return results


@lru_cache
def _kernel(function: Callable[..., Tensor], dtype: torch.dtype) -> Callable[..., None]:
    kernel: Callable[..., None] = _compile(lambda x: [function(x)], ((dtype, 1),), ((dtype, 1),))
    return kernel
