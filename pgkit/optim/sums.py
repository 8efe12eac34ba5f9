"""Sums over all parameters of a member, the same bits whatever its neighbours; and the addition of updates."""

import ctypes
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pgkit.machine import compiles
from pgkit.optim.core import freeze
from pgkit.types import Params

if TYPE_CHECKING:
    from pgkit.optim.kernels import Fold, Kernel


def launch(kernel: "Kernel", leaves: Sequence[Sequence[Tensor]], table: Tensor, stride: int = 0) -> None:
    """Run a kernel.

    Args:
        kernel: see :data:`pgkit.optim.kernels.Kernel`.
        leaves: the tensors of each leaf, ``(P, ...)``, contiguous, of the kernel's dtype.
        table: ``(C, P)`` or, for a sum, ``(P,)`` or ``(L, P)``, contiguous, of that dtype.
        stride: from the numbers of one leaf to those of the next.
    """
    members = table.shape[-1]
    if members:
        sizes = [own[0].numel() // members for own in leaves]
        places = [tensor.data_ptr() for own in leaves for tensor in own]
        arrays = [(ctypes.c_int64 * len(numbers))(*numbers) for numbers in (sizes, places)]
        kernel(len(sizes), members, *arrays, table.data_ptr(), stride)


def row_sum(leaf: Tensor) -> Tensor:
    """Sum over all but axis 0, ``(P, ...) -> (P,)``, also with several threads."""
    matrix = leaf.reshape(leaf.shape[0], math.prod(leaf.shape[1:]))
    total = matrix[:, : 2**14].sum(1)
    for first in range(2**14, matrix.shape[1], 2**14):
        total += matrix[:, first : first + 2**14].sum(1)
    return total


def inner(first: Params, second: Params) -> Tensor:
    """Inner product of two Params per member, ``(P,)``, summed leaf by leaf in their order."""
    leaves = [(leaf, second[name]) for name, leaf in first.items()]
    like = leaves[0][0]
    if not _alike(leaves):
        total = row_sum(leaves[0][0] * leaves[0][1])
        for own, other in leaves[1:]:
            total = total + row_sum(own * other)
        return total
    total = like.new_zeros(len(like))
    launch(
        _fold_kernel(_add_product, 2, like.dtype),
        [(first.contiguous(), second.contiguous()) for first, second in leaves],
        total,
    )
    return total


@torch.no_grad()
def apply_updates(params: Params, updates: Params, alive: Tensor | None = None) -> Params:
    """``param + update`` in the buffers of the updates; members where ``alive`` ``(P,)`` is False keep ``param``."""
    moved = add_updates(params, updates)[0]
    return moved if alive is None else freeze(moved, params, alive)


@torch.no_grad()
def add_updates(params: Params, updates: Params) -> tuple[Params, Tensor]:
    """``param + update`` in the buffers of the updates, and the sum of the elements of each leaf, ``(L, P)``."""
    leaves = [(updates[name].contiguous(), param.contiguous()) for name, param in params.items()]
    like = leaves[0][0]
    if _alike(leaves):
        sums = like.new_zeros(len(leaves), len(like))
        launch(_fold_kernel(_add_moved, 2, like.dtype), leaves, sums, len(like))
    else:
        sums = torch.stack([row_sum(update.add_(param)) for update, param in leaves])
    moved = {name: leaf for name, (leaf, _) in zip(params, leaves, strict=True)}
    for name, param in params.items():
        if param.requires_grad:
            moved[name].requires_grad_()
    return moved, sums


def _alike(leaves: Sequence[tuple[Tensor, Tensor]]) -> bool:
    """Whether one compiled loop can go over all these pairs."""
    kinds = {(tensor.dtype, tensor.device) for pair in leaves for tensor in pair}
    return len(kinds) == 1 and compiles(*kinds.pop()) and all(first.shape == second.shape for first, second in leaves)


def _add_product(total: Any, first: Any, second: Any) -> tuple[Any, ...]:
    return total + first * second, first, second


def _add_moved(total: Any, update: Any, param: Any) -> tuple[Any, ...]:
    moved = update + param
    return total + moved, moved, param


@lru_cache
def _fold_kernel(fold: "Fold", fields: int, dtype: torch.dtype) -> "Kernel":
    from pgkit.optim.kernels import compile_fold  # LLVM is loaded where something is compiled

    return compile_fold(fold, fields, dtype)
