"""Layers of a whole population as single operations, which autograd differentiates any number of times.

They serve networks that the compiled passes of :mod:`pgkit.nn.mlp` do not have (layer norm, GRU), and second
derivatives. On CPU, products and activations are compiled: PyTorch's own round a number by its place in the tensor, so
a member's bits would depend on how many there are.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from pgkit.compiler.lazy import lazy_kernel
from pgkit.kernels.activations import Activation
from pgkit.kernels.matmul import multiply
from pgkit.system.cpu import is_traced, use_compiled

_compile = lazy_kernel("pgkit.compiler.elementwise:compile_elementwise")


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``x @ weight + bias`` of each member: ``(P, B, in)``, ``(P, in, out)``, ``(P, 1, out)`` -> ``(P, B, out)``."""
    if is_traced():
        return torch.baddbmm(bias, x, weight)
    return _Product.apply(x, weight) + bias  # type: ignore[no-untyped-call]


def activate(x: Tensor, activation: Activation) -> Tensor:
    """The activation of each number, with its derivative as it stands in :data:`pgkit.kernels.ACTIVATIONS`."""
    if is_traced():
        return activation.plain(x)
    return _Activate.apply(x, activation)  # type: ignore[no-untyped-call]


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Normalise each sample's features to mean 0 and variance 1, then ``* weight + bias`` (Ba et al. 2016,
    arXiv 1607.06450).

    Args:
        x: ``(P, B, W)``.
        weight: ``(P, 1, W)``, as are biases.
        bias: see there.
    """
    return functional.layer_norm(x, x.shape[-1:]) * weight + bias


class _Product(torch.autograd.Function):
    """``a @ b`` of each member, its gradients made of the same products."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        return multiply(a, b)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        a, b = ctx.saved_tensors
        product = _Product.apply
        return product(grads[0], b.mT), product(a.mT, grads[0])  # type: ignore[no-untyped-call]


class _Activate(torch.autograd.Function):
    """``(x, activation) -> y``; the second derivative is that of the formula of the first."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, activation: Activation) -> Tensor:
        y = _map(activation.plain, x)
        ctx.activation = activation
        ctx.save_for_backward(x, y)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        x, y = ctx.saved_tensors
        activation: Activation = ctx.activation
        if not torch.is_grad_enabled():
            return _map(activation.backward, grads[0], x if activation.keeps_argument else y), None
        stored = x if activation.keeps_argument else _Activate.apply(x, activation)  # type: ignore[no-untyped-call]
        return activation.backward(grads[0], stored), None


def _map(function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """``function(*inputs)`` of each element, compiled on CPU."""
    first = inputs[0]
    if not use_compiled(first.dtype, first.device):
        return function(*inputs)
    columns = [tensor.contiguous() for tensor in inputs]
    result = torch.empty_like(columns[0])
    _map_kernel(function, len(inputs), first.dtype)(
        first.numel(), *(column.data_ptr() for column in columns), result.data_ptr()
    )
    return result


@lru_cache
def _map_kernel(function: Callable[..., Tensor], inputs: int, dtype: torch.dtype) -> Callable[..., None]:
    kernel: Callable[..., None] = _compile(lambda *xs: [function(*xs)], ((dtype, 1),) * inputs, ((dtype, 1),))
    return kernel
