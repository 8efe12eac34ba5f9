"""Stacked multi-layer perceptrons: one batched matrix product per layer for the whole population.

A network is one node of autograd's graph: its backward pass is written out below. That halves the time of a gradient,
because activations are computed in place, where autograd would read and write a new tensor for each of them.
:mod:`pgkit.products` multiplies the matrices.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pgkit.products import multiply, multiply_and_sum
from pgkit.seeding import uniform
from pgkit.types import Params


class Activation(NamedTuple):
    """An element-wise function.

    Attributes:
        plain: the function, as autograd can differentiate it any number of times.
        apply: the same, faster; it may write into what it is given.
        backward: ``backward(grad, kept)``, the gradient of the argument in the memory of that of the result, from what
            the function gave, or was given if ``keeps_argument``.
        keeps_argument: ``apply`` leaves its argument as it is, and ``backward`` wants it.
    """

    plain: Callable[[Tensor], Tensor]
    apply: Callable[[Tensor], Tensor]
    backward: Callable[[Tensor, Tensor], Tensor]
    keeps_argument: bool = False


@np.errstate(all="ignore")
def tanh_(x: Tensor) -> Tensor:
    """The hyperbolic tangent in place.

    NumPy's takes less time than PyTorch's, and its vector code needs no other code for the elements that fill no
    register, so that a number's bits do not depend on its neighbours.
    """
    if x.device.type != "cpu":
        return x.tanh_()
    np.tanh(x.numpy(), out=x.numpy())
    return x


_aten = torch.ops.aten
ACTIVATIONS: dict[str, Activation] = {
    "tanh": Activation(torch.tanh, tanh_, lambda grad, y: _aten.tanh_backward.grad_input(grad, y, grad_input=grad)),
    "relu": Activation(
        torch.relu, torch.relu_, lambda grad, y: _aten.threshold_backward.grad_input(grad, y, 0, grad_input=grad)
    ),
    "elu": Activation(
        functional.elu,
        lambda x: functional.elu(x, inplace=True),
        lambda grad, y: _aten.elu_backward.grad_input(grad, 1, 1, 1, True, y, grad_input=grad),
    ),
    "silu": Activation(
        functional.silu,
        functional.silu,
        lambda grad, x: _aten.silu_backward.grad_input(grad, x, grad_input=grad),
        keeps_argument=True,
    ),
}

_LAYER_STRIDE = 1 << 32  # counters of one layer's weights never reach the next layer's


def mlp(params: Params, name: str, x: Tensor, activation: str, activate_last: bool = False) -> Tensor:
    """Apply the layers ``name.0``, ``name.1``, ... to ``x`` of shape ``(P, B, D)``; members do not mix.

    A layer is ``x @ weight + bias``: ``(P, B, in)``, ``(P, in, out)``, ``(P, 1, out)`` -> ``(P, B, out)``. The
    activation stands between layers, and after the last one if ``activate_last``.
    """
    layers = layer_count(params, name)
    if layers == 0:
        return x
    leaves = [params[f"{name}.{layer}.{kind}"] for layer in range(layers) for kind in ("weight", "bias")]
    form = ACTIVATIONS[activation], activate_last
    if torch.is_grad_enabled():
        return _Layers.apply(form, x, *leaves)  # type: ignore[no-untyped-call]
    return _forward(form, x, leaves)[-1]


class _Product(torch.autograd.Function):
    """``a @ b`` of each member, differentiable any number of times."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        return multiply(a, b)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        a, b = ctx.saved_tensors
        product = _Product.apply
        return product(grads[0], b.mT), product(a.mT, grads[0])  # type: ignore[no-untyped-call]


_Form = tuple[Activation, bool]


def _forward(form: _Form, x: Tensor, leaves: Sequence[Tensor]) -> list[Tensor]:
    """What the backward pass needs of each layer, and the output: ``x``, then one or two tensors a layer."""
    activation, activate_last = form
    tape = [x]
    for weight, bias in zip(leaves[::2], leaves[1::2], strict=True):
        tape.append(multiply(tape[-1], weight, bias))
        if activate_last or weight is not leaves[-2]:
            x = activation.apply(tape[-1])
            tape[-1:] = [tape[-1], x] if activation.keeps_argument else [x]
    return tape


class _Layers(torch.autograd.Function):
    """The layers of a network as one function of its input and its leaves (weight, bias, weight, bias, ...)."""

    @staticmethod
    def forward(ctx: Any, form: _Form, x: Tensor, *leaves: Tensor) -> Tensor:
        tape = _forward(form, x, leaves)
        ctx.form = form
        ctx.save_for_backward(*tape, *leaves)
        return tape[-1]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,), (activation, activate_last) = grads, ctx.form
        count = len(ctx.needs_input_grad) - 2
        tape, leaves = list(ctx.saved_tensors[:-count]), ctx.saved_tensors[-count:]
        if torch.is_grad_enabled():  # somebody asks for second derivatives
            return None, *_differentiable_backward(ctx.form, tape[0], leaves, grad)
        output = tape.pop()
        gradients: list[Tensor | None] = []
        for layer in range(count - 2, -1, -2):
            if activate_last or layer < count - 2:
                own = grad.clone() if layer == count - 2 else grad  # the first is not ours to write into
                grad = activation.backward(own, tape.pop() if activation.keeps_argument else output)
            output = tape.pop()
            of_weight, of_bias = multiply_and_sum(output.mT, grad)
            gradients += [of_bias, of_weight]
            if layer or ctx.needs_input_grad[1]:
                grad = multiply(grad, leaves[layer].mT)
        return None, grad if ctx.needs_input_grad[1] else None, *reversed(gradients)


def _differentiable_backward(form: _Form, x: Tensor, leaves: Sequence[Tensor], grad: Tensor) -> list[Tensor | None]:
    """The gradients of input and leaves by autograd, operation by operation, so that they can be differentiated."""
    activation, activate_last = form
    y = x
    for weight, bias in zip(leaves[::2], leaves[1::2], strict=True):
        y = _Product.apply(y, weight) + bias  # type: ignore[no-untyped-call]
        y = activation.plain(y) if activate_last or weight is not leaves[-2] else y
    wanted = [leaf for leaf in (x, *leaves) if leaf.requires_grad]
    found = iter(torch.autograd.grad(y, wanted, grad, create_graph=True))
    return [next(found) if leaf.requires_grad else None for leaf in (x, *leaves)]


def layer_count(params: Params, name: str) -> int:
    """The number of layers stored under ``name``."""
    count = 0
    while f"{name}.{count}.weight" in params:
        count += 1
    return count


def init_mlp(name: str, keys: Tensor, sizes: Sequence[int], gains: Sequence[float], orthogonal: bool = True) -> Params:
    """Weights ``(P, in, out)`` and zero biases ``(P, 1, out)`` of the layers ``sizes[0] -> sizes[1] -> ...``.

    Args:
        name: prefix of the parameter names; distinct prefixes need distinct keys.
        keys: int64 ``(P,)``, one random stream per member.
        sizes: widths, input first.
        gains: factor of each layer's weights, ``len(sizes) - 1`` of them.
        orthogonal: semi-orthogonal weights (Saxe et al. 2014, arXiv 1312.6120), the custom of policy-gradient
            code; otherwise normal with standard deviation ``gain / sqrt(in)`` (LeCun).
    """
    params = {}
    for layer, (fan_in, fan_out, gain) in enumerate(zip(sizes[:-1], sizes[1:], gains, strict=True)):
        normal = _normal(keys, layer, (fan_in, fan_out))
        weight = _orthogonal(normal) if orthogonal else normal / fan_in**0.5
        params[f"{name}.{layer}.weight"] = gain * weight
        params[f"{name}.{layer}.bias"] = torch.zeros(len(keys), 1, fan_out)
    return params


def _normal(keys: Tensor, layer: int, shape: tuple[int, int]) -> Tensor:
    """Standard normal numbers ``(P, *shape)``, a function of each member's key and the layer alone."""
    counter = torch.arange(shape[0] * shape[1]).reshape(1, *shape) + layer * _LAYER_STRIDE
    return torch.special.ndtri(uniform(keys[:, None, None], counter))


def _orthogonal(normal: Tensor) -> Tensor:
    """Uniformly random semi-orthogonal matrices by QR, signs fixed so that the distribution is uniform."""
    tall = normal if normal.shape[1] >= normal.shape[2] else normal.mT
    q, r = torch.linalg.qr(tall)
    q = q * r.diagonal(dim1=1, dim2=2).sign()[:, None, :]
    return (q if tall is normal else q.mT).contiguous()
