"""Passes through all layers of a network in one call, on CPU: what the code of :mod:`pgkit.kernels.codegen.mlp` works
on."""

import ctypes
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pgkit.kernels.activations import Activation
from pgkit.kernels.layout import FEW, PAD

Form = tuple[Activation, int]
"""The activation, and how many layers it follows."""


class Activations(NamedTuple):
    """What a forward pass leaves behind.

    Attributes:
        after: the result of each layer, ``(P, B, out)``.
        before: of layers with an activation that keeps its argument, that; of others the same as ``after``.
        layers: of a compiled pass, the arguments :class:`pgkit.kernels.codegen.mlp.Layers`.
        leaves: weights and biases that these lead to.
    """

    after: Sequence[Tensor]
    before: Sequence[Tensor]
    layers: tuple[Any, ...] = ()
    leaves: Sequence[Tensor] = ()


class _Plan(NamedTuple):
    """What the compiled passes through networks of one shape need beside tensors.

    Attributes:
        widths: of the input and of all layers, and the largest of them.
        array: the same as int64.
        room: numbers that the products of one member need beside their results.
        scratch: numbers that its backward pass needs.
    """

    widths: list[int]
    array: Any
    room: int
    scratch: int


@lru_cache(maxsize=256)
def _plan(x: torch.Size, *leaves: torch.Size) -> _Plan:
    members, rows, *widths = x
    for weight, bias in zip(leaves[::2], leaves[1::2], strict=True):
        if len(x) != 3 or weight[:2] != (members, widths[-1]) or bias != (members, 1, weight[-1]):
            given = ", ".join(str(tuple(shape)) for shape in (x, *leaves))
            raise ValueError(
                f"these are no layers of a network: expected (P, B, in), (P, in, out), (P, 1, out), got {given}"
            )
        widths.append(weight[-1])
    room = max(
        max((inner + 1) * (width + PAD), (rows + 1) * (max(inner, width) + PAD), (width + 1) * (inner + PAD))
        for inner, width in pairwise(widths)
    )
    array = (ctypes.c_int64 * (len(widths) + 1))(*widths, max(widths))
    return _Plan(widths, array, room, (2 * rows + FEW) * max(widths))


def _layers(
    form: Form, plan: _Plan, leaves: Sequence[Tensor], before: Sequence[Tensor], after: Sequence[Tensor]
) -> tuple[Any, ...]:
    """The arguments :class:`pgkit.kernels.codegen.mlp.Layers`."""
    return len(after), form[1], plan.array, *(_addresses(tensors) for tensors in (leaves, before, after))


def address_of(tensor: Tensor | None) -> int | None:
    """Null of none."""
    return None if tensor is None else tensor.data_ptr()


def _addresses(tensors: Sequence[Tensor]) -> Any:
    """A table of where tensors are."""
    return (ctypes.c_void_p * len(tensors))(*[tensor.data_ptr() for tensor in tensors])


class Buffers(NamedTuple):
    """A tape to be written by a compiled forward pass.

    Attributes:
        tape: its tensors.
        room: what the pass needs beside it.
    """

    tape: Activations
    room: Tensor


def blank_tape(form: Form, shape: torch.Size, leaves: Sequence[Tensor]) -> Buffers:
    """For an input of that shape ``(P, B, D)``; the leaves are contiguous.

    Raises:
        ValueError: shapes, dtypes or devices do not fit together.
    """
    plan, like = _plan(shape, *[leaf.shape for leaf in leaves]), leaves[0]
    if any(leaf.dtype != like.dtype or not leaf.is_cpu for leaf in leaves):
        raise ValueError(f"expected layers of {like.dtype} on cpu, got {[leaf.dtype for leaf in leaves]}")
    after = [like.new_empty(*shape[:2], width) for width in plan.widths[1:]]
    kept = form[1] if form[0].keeps_argument else 0
    before = [torch.empty_like(tensor) for tensor in after[:kept]] + after[kept:]
    tape = Activations(after, before, _layers(form, plan, leaves, before, after), leaves)
    return Buffers(tape, like.new_empty(plan.room))


def compiled_forward(form: Form, x: Tensor, leaves: Sequence[Tensor], sizes: Tensor | None = None) -> Activations:
    """Of ``x`` ``(P, B, D)``, or of the first ``sizes`` rows of each member, int64 ``(P,)``."""
    blank = blank_tape(form, x.shape, leaves)
    if x.dtype != leaves[0].dtype:
        raise ValueError(f"expected an input {leaves[0].dtype}, as the layers are, got {x.dtype}")
    forward, _ = _kernels(form[0], x.dtype)
    forward(*x.shape[:2], address_of(sizes), *blank.tape.layers, x.data_ptr(), blank.room.data_ptr())
    return blank.tape


class Gradients(NamedTuple):
    """Where a compiled backward pass is to write.

    Attributes:
        of_x: the gradient of the input, if it is wanted.
        of_leaves: those of the leaves.
        arguments: those of :class:`pgkit.kernels.codegen.mlp.Layers`, and addresses of these.
        scratch: numbers that the pass needs beside them.
        room: numbers that its products need.
    """

    of_x: Tensor | None
    of_leaves: list[Tensor]
    arguments: tuple[Any, ...]
    scratch: int
    room: int


def blank_gradients(x: Tensor, tape: Activations, wants_input: bool) -> Gradients:
    """For a compiled pass that has left this tape of ``x``."""
    plan = _plan(x.shape, *[leaf.shape for leaf in tape.leaves])
    of_leaves, of_x = [torch.empty_like(leaf) for leaf in tape.leaves], x.new_empty(x.shape) if wants_input else None
    places = _addresses(of_leaves), address_of(of_x)
    return Gradients(of_x, of_leaves, (*tape.layers, *places), plan.scratch, plan.room)


def rows_contiguous(x: Tensor) -> Tensor:
    """An input ``(P, B, D)`` whose rows are one behind the other in each member; itself if they are."""
    return x if x.stride()[1:] == (x.shape[2], 1) else x.contiguous()


def compiled_backward(
    form: Form, x: Tensor, leaves: Sequence[Tensor], tape: Activations, grad: Tensor, wants_input: bool
) -> tuple[Tensor | None, list[Tensor]]:
    (members, rows, width), x = x.shape, rows_contiguous(x)
    leaves = [leaf.contiguous() for leaf in leaves]
    layers = _layers(form, _plan(x.shape, *[leaf.shape for leaf in leaves]), leaves, tape.before, tape.after)
    blank = blank_gradients(x, tape._replace(layers=layers, leaves=leaves), wants_input)
    scratch, room = x.new_empty(blank.scratch), x.new_empty(blank.room)
    _, backward = _kernels(form[0], x.dtype)
    tape_rows = tape.after[0].stride(0) // tape.after[0].shape[2]
    backward(
        *(members, rows, tape_rows, x.stride(0) // width, x.data_ptr(), grad.data_ptr()),
        *(*blank.arguments, scratch.data_ptr(), room.data_ptr()),
    )
    return blank.of_x, blank.of_leaves


@lru_cache
def _kernels(activation: Activation, dtype: torch.dtype) -> tuple[Callable[..., None], Callable[..., None]]:
    from pgkit.kernels.codegen import mlp  # LLVM is loaded where something is compiled

    return mlp.compile_forward(activation, dtype), mlp.compile_backward(activation, dtype)
