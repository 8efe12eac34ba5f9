"""Stacked multi-layer perceptrons: all layers of the whole population in one pass.

A network is one node of autograd's graph, its backward pass written out below. On CPU both passes are compiled
(:mod:`pgkit.kernels.codegen.mlp`); elsewhere they are batched matrix products.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pgkit.kernels.activations import ACTIVATIONS
from pgkit.kernels.matmul import multiply, multiply_and_sum
from pgkit.kernels.mlp import LayerOutputs, MLPSpec, compiled_backward, compiled_forward
from pgkit.seeding import uniform
from pgkit.system.cpu import use_compiled
from pgkit.types import Params

_LAYER_STRIDE = 1 << 32  # counters of one layer's weights never reach the next layer's


def mlp(
    params: Params, name: str, x: Tensor, activation: str, activate_last: bool = False, tapes: "Tapes | None" = None
) -> Tensor:
    """Apply the layers ``name.0``, ``name.1``, ... to ``x`` of shape ``(P, B, D)``; members do not mix.

    A layer is ``x @ weight + bias``: ``(P, B, in)``, ``(P, in, out)``, ``(P, 1, out)`` -> ``(P, B, out)``. The
    activation stands between layers, and after the last one if ``activate_last``.

    Args:
        params: weights and biases by name.
        name: of the network.
        x: the input.
        activation: one of ``ACTIVATIONS``.
        activate_last: see above.
        tapes: where a pass without gradient leaves its tape, by name; what is found there is not computed again.

    Raises:
        ValueError: shapes, dtypes or devices do not fit together.
    """
    leaves = layer_leaves(params, name)
    if not leaves:
        return x
    spec = MLPSpec(ACTIVATIONS[activation], len(leaves) // 2 - (not activate_last))
    kept = _found(tapes, name, spec, x, leaves)
    tape = kept.rows(x.shape[1]) if kept else None
    if torch.is_grad_enabled():
        return _Layers.apply(spec, tape, x, *leaves)  # type: ignore[no-untyped-call]
    if tape is None:
        tape = _forward(spec, x, leaves)
        if tapes is not None:
            tapes[name] = CachedForward.of(spec, tape, x, *leaves)
    return tape.results[-1]


def kept_pass(
    name: str, x: Tensor, activation: str, leaves: Sequence[Tensor], tapes: "Tapes", sizes: Tensor | None = None
) -> "CachedForward":
    """What the pass of :func:`mlp` leaves: taken from ``tapes`` if it is there; autograd sees nothing of it.

    With ``sizes``, int64 ``(P,)``, only so many rows of each member are computed.
    """
    spec = MLPSpec(ACTIVATIONS[activation], len(leaves) // 2 - 1)
    return _found(tapes, name, spec, x, leaves) or CachedForward.of(spec, _forward(spec, x, leaves, sizes), x, *leaves)


def _found(
    tapes: "Tapes | None", name: str, spec: MLPSpec, x: Tensor, leaves: Sequence[Tensor]
) -> "CachedForward | None":
    """The tape of this pass, if it is there."""
    kept = tapes.get(name) if tapes else None
    return kept if kept and kept.fits(spec, x, *leaves) else None


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


class CachedForward(NamedTuple):
    """A tape, and of what it is.

    Attributes:
        spec: of the network.
        layers: of at least the rows that are asked for.
        tensors: the input and the leaves; held, so that nothing else is where they are.
        versions: how often they had been written to.
    """

    spec: MLPSpec
    layers: LayerOutputs
    tensors: Sequence[Tensor]
    versions: Sequence[int]

    @staticmethod
    def of(spec: MLPSpec, tape: LayerOutputs, *tensors: Tensor) -> "CachedForward":
        """The tape of a pass, with its input and its leaves."""
        return CachedForward(spec, tape, tensors, [tensor._version for tensor in tensors])

    def fits(self, spec: MLPSpec, *tensors: Tensor) -> bool:
        """Whether the tape is of these leaves, and its first rows are of this input."""
        x, seen = tensors[0], self.tensors[0]
        same = spec == self.spec and len(tensors) == len(self.tensors) and x.shape[0] == seen.shape[0]
        same = (
            same
            and x.shape[1] <= self.layers.results[0].shape[1]
            and (x.stride(0) == seen.stride(0) or x.shape[0] == 1)
        )
        return same and all(
            own.data_ptr() == other.data_ptr() and other._version == version
            for own, other, version in zip(self.tensors, tensors, self.versions, strict=True)
        )

    def rows(self, count: int) -> LayerOutputs:
        """The first so many rows of each member."""
        after, before = ([tensor[:, :count] for tensor in part] for part in self.layers[:2])
        return LayerOutputs(after, before)


Tapes = dict[str, CachedForward]
"""Tapes by name of the network."""


def _forward(spec: MLPSpec, x: Tensor, leaves: Sequence[Tensor], sizes: Tensor | None = None) -> LayerOutputs:
    activation, activated = spec
    if use_compiled(x.dtype, x.device):
        return compiled_forward(spec, x.contiguous(), [leaf.contiguous() for leaf in leaves], sizes)
    kept: list[Tensor] = []
    results: list[Tensor] = []
    for layer, (weight, bias) in enumerate(zip(leaves[::2], leaves[1::2], strict=True)):
        x = before = torch.baddbmm(bias, x, weight)
        if layer < activated:
            x = activation.plain(before)
        results.append(x)
        kept.append(before if activation.keeps_argument else x)
    return LayerOutputs(results, kept)


def _backward(
    spec: MLPSpec, x: Tensor, leaves: Sequence[Tensor], tape: LayerOutputs, grad: Tensor, wants_input: bool
) -> tuple[Tensor | None, list[Tensor]]:
    """The gradients of the input, if wanted, and of the leaves."""
    activation, activated = spec
    if use_compiled(x.dtype, x.device):
        return compiled_backward(spec, x, leaves, tape, grad.contiguous(), wants_input)
    gradients: list[Tensor] = []
    for layer in range(len(leaves) // 2 - 1, -1, -1):
        if layer < activated:
            grad = activation.backward(grad, tape.preactivations[layer])
        source = tape.results[layer - 1] if layer else x
        of_weight, of_bias = multiply_and_sum(source.mT, grad)
        gradients += [of_bias, of_weight]
        if layer or wants_input:
            grad = multiply(grad, leaves[2 * layer].mT)
    return grad if wants_input else None, gradients[::-1]


class _Layers(torch.autograd.Function):
    """The layers of a network as one function of its input and its leaves (weight, bias, weight, bias, ...)."""

    @staticmethod
    def forward(ctx: Any, spec: MLPSpec, tape: LayerOutputs | None, x: Tensor, *leaves: Tensor) -> Tensor:
        tape = _forward(spec, x, leaves) if tape is None else tape
        ctx.spec = spec
        ctx.save_for_backward(
            x, *leaves, *tape.results, *(tape.preactivations if spec.activation.keeps_argument else ())
        )
        return tape.results[-1]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, *others = ctx.saved_tensors
        layers = (len(ctx.needs_input_grad) - 3) // 2
        leaves, after = others[: 2 * layers], others[2 * layers : 3 * layers]
        if torch.is_grad_enabled():  # somebody asks for second derivatives
            return None, None, *_differentiable_backward(ctx.spec, x, leaves, grads[0])
        tape = LayerOutputs(after, others[3 * layers :] or after)
        of_x, of_leaves = _backward(ctx.spec, x, leaves, tape, grads[0], ctx.needs_input_grad[2])
        return None, None, of_x, *of_leaves


def _differentiable_backward(spec: MLPSpec, x: Tensor, leaves: Sequence[Tensor], grad: Tensor) -> list[Tensor | None]:
    """The gradients of input and leaves by autograd, so that they can be differentiated."""
    y = layer_by_layer(spec, x, leaves)
    wanted = [leaf for leaf in (x, *leaves) if leaf.requires_grad]
    found = iter(torch.autograd.grad(y, wanted, grad, create_graph=True))
    return [next(found) if leaf.requires_grad else None for leaf in (x, *leaves)]


def layer_by_layer(spec: MLPSpec, x: Tensor, leaves: Sequence[Tensor]) -> Tensor:
    """The layers as single operations, differentiable any number of times."""
    activation, activated = spec
    for layer, (weight, bias) in enumerate(zip(leaves[::2], leaves[1::2], strict=True)):
        x = _Product.apply(x, weight) + bias  # type: ignore[no-untyped-call]
        x = activation.plain(x) if layer < activated else x
    return x


def layer_leaves(params: Params, name: str) -> list[Tensor]:
    """Weight, bias, weight, bias, ... of the layers stored under ``name``."""
    return [params[leaf] for leaf in _leaf_names(name, tuple(params))]


@lru_cache(maxsize=256)
def _leaf_names(name: str, names: Sequence[str]) -> list[str]:
    layers = range(layer_count(dict.fromkeys(names), name))
    return [f"{name}.{layer}.{kind}" for layer in layers for kind in ("weight", "bias")]


def layer_count(params: Mapping[str, Any], name: str) -> int:
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
