"""Stacked multi-layer perceptrons: one batched matrix product per layer for the whole population.

A network is one node of autograd's graph: its backward pass is written out below. That halves the time of a gradient,
because activations are computed in place, where autograd would read and write a new tensor for each of them.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from pgkit.seeding import uniform
from pgkit.types import Params


class Activation(NamedTuple):
    """An element-wise function.

    Attributes:
        plain: the function, as autograd can differentiate it any number of times.
        apply: the same of ``scale`` times the argument, faster; it may write into what it is given.
        backward: ``backward(grad, kept)``, the gradient of the argument in the memory of that of the result, from what
            the function gave, or was given if ``keeps_argument``.
        keeps_argument: ``apply`` leaves its argument as it is, and ``backward`` wants it.
    """

    plain: Callable[[Tensor], Tensor]
    apply: Callable[[Tensor], Tensor]
    backward: Callable[[Tensor, Tensor], Tensor]
    keeps_argument: bool = False
    scale: float = 1


def tanh_of_half(x: Tensor) -> Tensor:
    """``tanh(x / 2)`` in place, on CPU as ``2 sigmoid(x) - 1``: absolute error below 2e-7, six times faster than tanh.

    Libraries compute the elements that fill no vector register with scalar code, which rounds differently. Where that
    could make a member depend on its neighbours, because its own elements do not fill whole registers, ``torch.tanh``
    is taken, which has no such remainder.
    """
    if x.device.type != "cpu" or x.shape[1:].numel() % _REGISTERS:
        return x.mul_(0.5).tanh_()
    x.sigmoid_()
    return torch.add(_MINUS_ONE, x, alpha=2, out=x)


_REGISTERS = 64  # elements: a multiple of what any processor's vector loop handles at once
_MINUS_ONE = torch.tensor(-1.0)

_aten = torch.ops.aten
ACTIVATIONS: dict[str, Activation] = {
    "tanh": Activation(
        torch.tanh, tanh_of_half, lambda grad, y: _aten.tanh_backward.grad_input(grad, y, grad_input=grad), scale=2
    ),
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
    leaves = _padded_leaves(params, name, layers, rows=x.shape[1])
    x = functional.pad(x, (0, 1)) if x.shape[2] == 1 else x
    form, graph = (ACTIVATIONS[activation], activate_last), torch.is_grad_enabled()
    y = _Layers.apply(form, x, *leaves) if graph else _forward(form, x, leaves)[-1]  # type: ignore[no-untyped-call]
    return y[..., : params[f"{name}.{layers - 1}.bias"].shape[2]]


def _padded_leaves(params: Params, name: str, layers: int, rows: int) -> list[Tensor]:
    """Weight, bias, weight, bias, ... of a network, narrow widths padded with zeros.

    A width of one becomes two: the matrix-vector kernels that BLAS takes for width one round differently for one member
    than for many, and a member must not depend on its neighbours. For many rows see :func:`_product`.
    """
    leaves: list[Tensor] = []
    least = _LEAST_WIDTH if rows >= _MANY_ROWS else 2
    for layer in range(layers):
        weight, bias = params[f"{name}.{layer}.weight"], params[f"{name}.{layer}.bias"]
        width_in = leaves[-1].shape[2] if leaves else max(2, weight.shape[1])
        more_in, more_out = width_in - weight.shape[1], max(0, least - weight.shape[2])
        if more_in or more_out:
            weight, bias = functional.pad(weight, (0, more_out, 0, more_in)), functional.pad(bias, (0, more_out))
        leaves += [weight, bias]
    return leaves


_MANY_ROWS, _LEAST_WIDTH, _NARROW = 32, 4, 16


def _product(x: Tensor, weight: Tensor, bias: Tensor, scale: float) -> Tensor:
    """``scale * (x @ weight + bias)``.

    BLAS takes several times as long for narrow results as for their transpose, if that has many columns; a width of two
    is slower either way than one of four.
    """
    if weight.shape[2] < _NARROW and x.shape[1] >= _MANY_ROWS:
        return torch.baddbmm(bias.mT, weight.mT, x.mT, beta=scale, alpha=scale).mT.contiguous()
    return torch.baddbmm(bias, x, weight, beta=scale, alpha=scale)


def _weight_gradient(x: Tensor, grad: Tensor) -> Tensor:
    """``x^T @ grad``."""
    if grad.shape[2] < _NARROW:
        return torch.bmm(grad.mT, x).mT.contiguous()
    return torch.bmm(x.mT, grad)


_Form = tuple[Activation, bool]


def _forward(form: _Form, x: Tensor, leaves: Sequence[Tensor]) -> list[Tensor]:
    """What the backward pass needs of each layer, and the output: ``x``, then one or two tensors a layer."""
    activation, activate_last = form
    tape = [x]
    for weight, bias in zip(leaves[::2], leaves[1::2], strict=True):
        active = activate_last or weight is not leaves[-2]
        tape.append(_product(tape[-1], weight, bias, activation.scale if active else 1))
        if active:
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
            gradients += [grad.sum(1, keepdim=True), _weight_gradient(output, grad)]
            if layer or ctx.needs_input_grad[1]:
                grad = torch.bmm(grad, leaves[layer].mT)
        return None, grad if ctx.needs_input_grad[1] else None, *reversed(gradients)


def _differentiable_backward(form: _Form, x: Tensor, leaves: Sequence[Tensor], grad: Tensor) -> list[Tensor | None]:
    """The gradients of input and leaves by autograd, operation by operation, so that they can be differentiated."""
    plain = form[0]._replace(apply=form[0].plain, keeps_argument=False, scale=1)
    wanted = [leaf for leaf in (x, *leaves) if leaf.requires_grad]
    found = iter(torch.autograd.grad(_forward((plain, form[1]), x, leaves)[-1], wanted, grad, create_graph=True))
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
