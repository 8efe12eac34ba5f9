"""Compiled forward and backward passes of stacked multi-layer perceptrons, on CPU.

One call computes all layers of all members. This module allocates what the passes write and hands them addresses;
:mod:`pgkit.kernels.codegen.mlp` generates their code. :func:`pgkit.nn.mlp.mlp` is what networks call: it chooses
between these passes and batched products of torch, and registers the backward pass with autograd.
"""

import ctypes
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pgkit.compiler.lazy import lazy_kernel
from pgkit.compiler.signature import address_of, address_table, flatten
from pgkit.kernels.activations import Activation
from pgkit.kernels.layout import COLUMN_PADDING, NARROW
from pgkit.kernels.signatures import Backward, Forward, Layers, NetworkGrads

_forward_kernel = lazy_kernel("pgkit.kernels.codegen.mlp:compile_forward")
_backward_kernel = lazy_kernel("pgkit.kernels.codegen.mlp:compile_backward")


class MLPSpec(NamedTuple):
    """What the code of a network's passes depends on, besides the shapes of its leaves.

    Attributes:
        activation: the function between layers.
        activated: the number of layers that it follows, counted from the first: all layers, or all but the last.
    """

    activation: Activation
    activated: int


class LayerOutputs(NamedTuple):
    """The outputs of all layers, which a forward pass stores for the backward pass.

    Attributes:
        results: for each layer its output after the activation, ``(P, B, out)``.
        preactivations: for each layer its output before the activation if the activation's derivative needs it
            (:attr:`pgkit.kernels.activations.Activation.keeps_argument`); otherwise the same tensors as ``results``.
        arguments: after a compiled pass, the addresses of these tensors and of the leaves.
        leaves: after a compiled pass, the weights and biases, which stay alive here as long as their addresses.
    """

    results: Sequence[Tensor]
    preactivations: Sequence[Tensor]
    arguments: Layers | None = None
    leaves: Sequence[Tensor] = ()


class _Sizes(NamedTuple):
    """The sizes that passes through networks of one shape need.

    Attributes:
        widths: the width of the input, then that of each layer.
        array: the same as int64, followed by the largest width.
        workspace: how many numbers the matmuls of one member need besides their results.
        scratch: how many numbers the backward pass of one member needs.
    """

    widths: list[int]
    array: Any
    workspace: int
    scratch: int


@lru_cache(maxsize=256)
def _sizes(x: torch.Size, *leaves: torch.Size) -> _Sizes:
    """Check the shapes of an input and of leaves against each other, and derive the sizes from them."""
    members, rows, *widths = x
    for weight, bias in zip(leaves[::2], leaves[1::2], strict=True):
        if len(x) != 3 or weight[:2] != (members, widths[-1]) or bias != (members, 1, weight[-1]):
            shapes = ", ".join(str(tuple(shape)) for shape in (x, *leaves))
            raise ValueError(
                "expected an input (P, B, in), then a weight (P, in, out) and a bias (P, 1, out) for each layer, "
                f"got {shapes}"
            )
        widths.append(weight[-1])
    workspace = max(
        max(
            (inner + 1) * (width + COLUMN_PADDING),  # forward
            (rows + 1) * (max(inner, width) + COLUMN_PADDING),  # gradient of the weight, transposed or not
            (width + 1) * (inner + COLUMN_PADDING),  # gradient of the input
        )
        for inner, width in pairwise(widths)
    )
    array = (ctypes.c_int64 * (len(widths) + 1))(*widths, max(widths))
    return _Sizes(widths, array, workspace, scratch=(2 * rows + NARROW) * max(widths))


def _layer_arguments(
    spec: MLPSpec, sizes: _Sizes, leaves: Sequence[Tensor], preactivations: Sequence[Tensor], results: Sequence[Tensor]
) -> Layers:
    """The layers of a network for a compiled pass."""
    tables = (address_table(tensors) for tensors in (leaves, preactivations, results))
    return Layers(len(results), spec.activated, sizes.array, *tables)


class ForwardBuffers(NamedTuple):
    """The memory that a compiled forward pass writes.

    Attributes:
        outputs: the outputs of all layers, not yet written.
        workspace: what its matmuls need besides.
    """

    outputs: LayerOutputs
    workspace: Tensor


def allocate_forward(spec: MLPSpec, shape: torch.Size, leaves: Sequence[Tensor]) -> ForwardBuffers:
    """Allocate what a forward pass of an input of ``shape`` ``(P, B, D)`` writes; the leaves must be contiguous.

    Raises:
        ValueError: shapes, dtypes or devices do not fit together.
    """
    sizes = _sizes(shape, *[leaf.shape for leaf in leaves])
    like = leaves[0]
    if any(leaf.dtype != like.dtype or not leaf.is_cpu for leaf in leaves):
        raise ValueError(f"expected weights and biases of {like.dtype} on cpu, got {[leaf.dtype for leaf in leaves]}")
    results = [like.new_empty(*shape[:2], width) for width in sizes.widths[1:]]
    kept = spec.activated if spec.activation.keeps_argument else 0
    preactivations = [torch.empty_like(tensor) for tensor in results[:kept]] + results[kept:]
    arguments = _layer_arguments(spec, sizes, leaves, preactivations, results)
    outputs = LayerOutputs(results, preactivations, arguments, leaves)
    return ForwardBuffers(outputs, like.new_empty(sizes.workspace))


def compiled_forward(spec: MLPSpec, x: Tensor, leaves: Sequence[Tensor], sizes: Tensor | None = None) -> LayerOutputs:
    """Compute all layers of the contiguous input ``x`` ``(P, B, D)``.

    With ``sizes``, int64 ``(P,)``, only the first ``sizes[k]`` rows of member k are computed; the others hold anything.
    """
    buffers = allocate_forward(spec, x.shape, leaves)
    if x.dtype != leaves[0].dtype:
        raise ValueError(f"expected an input of {leaves[0].dtype}, the dtype of the layers, got {x.dtype}")
    assert buffers.outputs.arguments is not None
    members, rows, _ = x.shape
    arguments = Forward(
        members=members,
        rows=rows,
        sizes=address_of(sizes),
        layers=buffers.outputs.arguments,
        x=x.data_ptr(),
        workspace=buffers.workspace.data_ptr(),
    )
    _forward_kernel(spec.activation, x.dtype)(*flatten(arguments))
    return buffers.outputs


class BackwardBuffers(NamedTuple):
    """The memory that a compiled backward pass writes.

    Attributes:
        x_grad: the gradient of the input, or None if nobody needs it.
        leaf_grads: the gradients of the leaves.
        arguments: the addresses of these tensors, and of the layers.
        scratch: how many numbers the pass needs besides.
        workspace: how many numbers its matmuls need.
    """

    x_grad: Tensor | None
    leaf_grads: list[Tensor]
    arguments: NetworkGrads
    scratch: int
    workspace: int


def allocate_backward(x: Tensor, outputs: LayerOutputs, needs_x_grad: bool) -> BackwardBuffers:
    """Allocate what a backward pass writes, after a compiled forward pass of ``x`` that has left ``outputs``."""
    sizes = _sizes(x.shape, *[leaf.shape for leaf in outputs.leaves])
    leaf_grads = [torch.empty_like(leaf) for leaf in outputs.leaves]
    x_grad = x.new_empty(x.shape) if needs_x_grad else None
    assert outputs.arguments is not None
    arguments = NetworkGrads(outputs.arguments, address_table(leaf_grads), address_of(x_grad))
    return BackwardBuffers(x_grad, leaf_grads, arguments, sizes.scratch, sizes.workspace)


def contiguous_rows(x: Tensor) -> Tensor:
    """An input ``(P, B, D)`` in which the rows of each member follow one another without gaps: ``x``, or a copy."""
    return x if x.stride()[1:] == (x.shape[2], 1) else x.contiguous()


def compiled_backward(
    spec: MLPSpec, x: Tensor, leaves: Sequence[Tensor], outputs: LayerOutputs, grad: Tensor, needs_x_grad: bool
) -> tuple[Tensor | None, list[Tensor]]:
    """The gradients of the input (None unless needed) and of the leaves.

    Args:
        spec: of the network.
        x: the input ``(P, B, D)``.
        leaves: weight, bias, weight, bias, ...
        outputs: what the forward pass has stored, of at least the B rows of ``x``.
        grad: the gradient of the last layer's result, ``(P, B, out)``, contiguous.
        needs_x_grad: whether the gradient of the input is computed.
    """
    members, rows, width = x.shape
    x = contiguous_rows(x)
    leaves = [leaf.contiguous() for leaf in leaves]
    sizes = _sizes(x.shape, *[leaf.shape for leaf in leaves])
    arguments = _layer_arguments(spec, sizes, leaves, outputs.preactivations, outputs.results)
    buffers = allocate_backward(x, outputs._replace(arguments=arguments, leaves=leaves), needs_x_grad)
    scratch = x.new_empty(buffers.scratch)
    workspace = x.new_empty(buffers.workspace)
    network = buffers.arguments
    backward_arguments = Backward(
        members=members,
        rows=rows,
        output_rows=outputs.results[0].stride(0) // outputs.results[0].shape[2],
        x_rows=x.stride(0) // width,
        x=x.data_ptr(),
        grad=grad.data_ptr(),
        layers=network.layers,
        leaf_grads=network.leaf_grads,
        x_grad=network.x_grad,
        scratch=scratch.data_ptr(),
        workspace=workspace.data_ptr(),
    )
    _backward_kernel(spec.activation, x.dtype)(*flatten(backward_arguments))
    return buffers.x_grad, buffers.leaf_grads
