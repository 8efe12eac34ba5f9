"""Stacked multi-layer perceptrons: all layers of the whole population in one pass.

A network is one node of autograd's graph with a hand-written backward pass. On CPU both passes are compiled
(:mod:`pgkit.kernels.codegen.mlp`); elsewhere they are batched matrix products.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from pgkit.kernels.activations import ACTIVATIONS
from pgkit.kernels.matmul import multiply, multiply_and_sum
from pgkit.kernels.mlp import LayerOutputs, MLPSpec, compiled_backward, compiled_forward
from pgkit.nn.layers import activate, linear
from pgkit.seeding import uniform
from pgkit.system.cpu import is_traced, use_compiled
from pgkit.types import Params

_LAYER_STRIDE = 1 << 32
"""Distance between the counters of two layers' random weights, larger than any number of weights in a layer."""


def mlp(
    params: Params,
    name: str,
    x: Tensor,
    activation: str,
    activate_last: bool = False,
    cached: LayerOutputs | None = None,
) -> Tensor:
    """Apply the layers ``name.0``, ``name.1``, ... to ``x`` of shape ``(P, B, D)``; members do not mix.

    A layer is ``x @ weight + bias``: ``(P, B, in)``, ``(P, in, out)``, ``(P, 1, out)`` -> ``(P, B, out)``. The
    activation stands between layers, and after the last one if ``activate_last``. A network without layers returns
    ``x``.

    >>> from pgkit.seeding import stream_keys
    >>> params = init_mlp("net", stream_keys([0, 1], "weights"), [4, 8, 3], [1.0, 1.0])
    >>> mlp(params, "net", torch.zeros(2, 5, 4), "tanh").shape
    torch.Size([2, 5, 3])

    Args:
        params: weights and biases by name.
        name: the prefix of the network's parameters.
        x: the input.
        activation: one of ``ACTIVATIONS``.
        activate_last: whether the activation follows the last layer, too.
        cached: the forward pass over ``x`` (or over more rows per member, ``x`` first) with these parameters. Its
            results are used instead of computing them again.

    Raises:
        ValueError: shapes, dtypes or devices do not fit together.
    """
    leaves = layer_leaves(params, name)
    if not leaves:
        return x
    spec = MLPSpec(ACTIVATIONS[activation], len(leaves) // 2 - (not activate_last))
    outputs = None if cached is None else first_rows(cached, x)
    if torch.is_grad_enabled() and not is_traced():
        return _Network.apply(spec, outputs, x, *leaves)  # type: ignore[no-untyped-call]
    if outputs is None:
        outputs = _forward(spec, x, leaves)
    return outputs.results[-1]


@torch.no_grad()
def forward_pass(
    params: Params,
    name: str,
    x: Tensor,
    activation: str,
    activate_last: bool = False,
    sizes: Tensor | None = None,
) -> LayerOutputs:
    """Compute what :func:`mlp` computes and return the results of all layers; no gradient flows through them.

    With ``sizes``, int64 ``(P,)``, only the first ``sizes[k]`` rows of member k are computed; the others hold
    anything. The network must have a layer.
    """
    leaves = layer_leaves(params, name)
    return _forward(MLPSpec(ACTIVATIONS[activation], len(leaves) // 2 - (not activate_last)), x, leaves, sizes)


def first_rows(cached: LayerOutputs, x: Tensor) -> LayerOutputs:
    """Cut a forward pass to the rows of ``x`` ``(P, B, D)``.

    Raises:
        ValueError: the pass has another number of members, or fewer rows.
    """
    members, rows = cached.results[0].shape[:2]
    if members != x.shape[0] or rows < x.shape[1]:
        raise ValueError(f"a forward pass over ({members}, {rows}, D) cannot serve an input {tuple(x.shape)}")
    count = x.shape[1]
    results = [tensor[:, :count] for tensor in cached.results]
    preactivations = [tensor[:, :count] for tensor in cached.preactivations]
    return LayerOutputs(results, preactivations)


def _forward(spec: MLPSpec, x: Tensor, leaves: Sequence[Tensor], sizes: Tensor | None = None) -> LayerOutputs:
    activation, activated = spec
    if use_compiled(x.dtype, x.device):
        return compiled_forward(spec, x.contiguous(), [leaf.contiguous() for leaf in leaves], sizes)
    results: list[Tensor] = []
    preactivations: list[Tensor] = []
    for layer, (weight, bias) in enumerate(zip(leaves[::2], leaves[1::2], strict=True)):
        linear = torch.baddbmm(bias, x, weight)
        x = activation.plain(linear) if layer < activated else linear
        results.append(x)
        preactivations.append(linear if activation.keeps_argument else x)
    return LayerOutputs(results, preactivations)


def _backward(
    spec: MLPSpec, x: Tensor, leaves: Sequence[Tensor], outputs: LayerOutputs, grad: Tensor, wants_input: bool
) -> tuple[Tensor | None, list[Tensor]]:
    """Compute the gradients of the input, if wanted, and of the leaves."""
    activation, activated = spec
    if use_compiled(x.dtype, x.device):
        return compiled_backward(spec, x, leaves, outputs, grad.contiguous(), wants_input)
    gradients: list[Tensor] = []
    for layer in range(len(leaves) // 2 - 1, -1, -1):
        if layer < activated:
            grad = activation.backward(grad, outputs.preactivations[layer])
        source = outputs.results[layer - 1] if layer else x
        weight_grad, bias_grad = multiply_and_sum(source.mT, grad)
        gradients += [bias_grad, weight_grad]
        if layer or wants_input:
            grad = multiply(grad, leaves[2 * layer].mT)
    return grad if wants_input else None, gradients[::-1]


class _Network(torch.autograd.Function):
    """``(spec, outputs or None, x, weight, bias, weight, bias, ...) -> outputs`` as one node of autograd."""

    @staticmethod
    def forward(ctx: Any, spec: MLPSpec, outputs: LayerOutputs | None, x: Tensor, *leaves: Tensor) -> Tensor:
        if outputs is None:
            outputs = _forward(spec, x, leaves)
        ctx.spec = spec
        ctx.save_for_backward(
            x, *leaves, *outputs.results, *(outputs.preactivations if spec.activation.keeps_argument else ())
        )
        return outputs.results[-1]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, *others = ctx.saved_tensors
        layers = (len(ctx.needs_input_grad) - 3) // 2
        leaves = others[: 2 * layers]
        results = others[2 * layers : 3 * layers]
        if torch.is_grad_enabled():
            # The caller differentiates this gradient again (create_graph=True). Only Fisher-vector products of the
            # natural gradient do so (pgkit.optim.natural_gradient). The compiled pass is opaque to autograd, so compute
            # the gradient from single operations that autograd follows.
            inputs = [leaf for leaf in (x, *leaves) if leaf.requires_grad]
            y = layer_by_layer(ctx.spec, x, leaves)
            gradients = iter(torch.autograd.grad(y, inputs, grads[0], create_graph=True))
            return None, None, *(next(gradients) if leaf.requires_grad else None for leaf in (x, *leaves))
        outputs = LayerOutputs(results, others[3 * layers :] or results)
        x_grad, leaf_grads = _backward(ctx.spec, x, leaves, outputs, grads[0], ctx.needs_input_grad[2])
        return None, None, x_grad, *leaf_grads


def layer_by_layer(spec: MLPSpec, x: Tensor, leaves: Sequence[Tensor]) -> Tensor:
    """Apply the layers as single operations, which can be differentiated any number of times."""
    activation, activated = spec
    for layer, (weight, bias) in enumerate(zip(leaves[::2], leaves[1::2], strict=True)):
        x = linear(x, weight, bias)
        x = activate(x, activation) if layer < activated else x
    return x


def layer_leaves(params: Params, name: str) -> list[Tensor]:
    """List weight, bias, weight, bias, ... of the layers stored under ``name``."""
    return [params[leaf] for leaf in _leaf_names(name, tuple(params))]


@lru_cache(maxsize=256)
def _leaf_names(name: str, names: Sequence[str]) -> list[str]:
    layers = range(layer_count(dict.fromkeys(names), name))
    return [f"{name}.{layer}.{leaf}" for layer in layers for leaf in ("weight", "bias")]


def layer_count(params: Mapping[str, Any], name: str) -> int:
    """Count the layers stored under ``name``."""
    count = 0
    while f"{name}.{count}.weight" in params:
        count += 1
    return count


def init_mlp(name: str, keys: Tensor, sizes: Sequence[int], gains: Sequence[float], orthogonal: bool = True) -> Params:
    """Draw weights ``(P, in, out)`` and zero biases ``(P, 1, out)`` of the layers ``sizes[0] -> sizes[1] -> ...``.

    >>> from pgkit.seeding import stream_keys
    >>> params = init_mlp("net", stream_keys([0, 1], "weights"), [4, 8, 3], [1.0, 1.0])
    >>> {name: tuple(leaf.shape) for name, leaf in params.items()}
    {'net.0.weight': (2, 4, 8), 'net.0.bias': (2, 1, 8), 'net.1.weight': (2, 8, 3), 'net.1.bias': (2, 1, 3)}

    Args:
        name: prefix of the parameter names; two networks of one member need different keys.
        keys: int64 ``(P,)``, one random stream per member.
        sizes: widths, input first.
        gains: factor of each layer's weights, ``len(sizes) - 1`` of them.
        orthogonal: semi-orthogonal weights (Saxe et al. 2014, arXiv 1312.6120), as most policy-gradient code has;
            otherwise normal weights with standard deviation ``gain / sqrt(in)`` (LeCun et al. 1998).
    """
    params = {}
    for layer, (fan_in, fan_out, gain) in enumerate(zip(sizes[:-1], sizes[1:], gains, strict=True)):
        params[f"{name}.{layer}.weight"] = gain * init_weight(keys, layer, (fan_in, fan_out), orthogonal)
        params[f"{name}.{layer}.bias"] = torch.zeros(len(keys), 1, fan_out)
    return params


def init_weight(keys: Tensor, layer: int, shape: tuple[int, int], orthogonal: bool = True) -> Tensor:
    """Draw matrices ``(P, in, out)`` from the part of each member's stream that belongs to a layer, as
    :func:`init_mlp` does."""
    normal = _normal(keys, layer, shape)
    return _orthogonal(normal) if orthogonal else normal / shape[0] ** 0.5


def _normal(keys: Tensor, layer: int, shape: tuple[int, int]) -> Tensor:
    """Draw standard normal numbers ``(P, *shape)``; each member's depend on its key and the layer alone."""
    counter = torch.arange(shape[0] * shape[1]).reshape(1, *shape) + layer * _LAYER_STRIDE
    return torch.special.ndtri(uniform(keys[:, None, None], counter))


def _orthogonal(normal: Tensor) -> Tensor:
    """Turn normal matrices ``(P, in, out)`` into uniformly distributed semi-orthogonal ones by a QR decomposition.

    LAPACK chooses the signs of q by its own rules. Multiplied by the signs of r's diagonal, q is uniform (Mezzadri
    2007, arXiv math-ph/0609050).
    """
    tall = normal if normal.shape[1] >= normal.shape[2] else normal.mT
    q, r = torch.linalg.qr(tall)
    q = q * r.diagonal(dim1=1, dim2=2).sign()[:, None, :]
    return (q if tall is normal else q.mT).contiguous()
