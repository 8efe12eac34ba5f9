"""Sums over all parameters of a member, the same bits whatever its neighbours."""

import ctypes
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pgkit.machine import compiles
from pgkit.types import Params

if TYPE_CHECKING:
    from pgkit.optim.kernels import Fold, Kernel


def launch(kernel: "Kernel", sizes: Sequence[int], places: Sequence[int], table: Tensor) -> None:
    """Run a kernel.

    Args:
        kernel: see :data:`pgkit.optim.kernels.Kernel`.
        sizes: the elements of a member in each leaf.
        places: the addresses of the fields of each leaf, contiguous ``(P, ...)`` of the kernel's dtype.
        table: ``(C, P)`` or, for a sum, ``(P,)``, contiguous, of that dtype.
    """
    members = table.shape[-1]
    if members:
        arrays = [(ctypes.c_int64 * len(numbers))(*numbers) for numbers in (sizes, places)]
        kernel(len(sizes), members, *arrays, table.data_ptr())


def row_sum(leaf: Tensor) -> Tensor:
    """Sum over all but axis 0, ``(P, ...) -> (P,)``, also with several threads."""
    matrix = leaf.reshape(leaf.shape[0], math.prod(leaf.shape[1:]))
    total = matrix[:, : 2**14].sum(1)
    for first in range(2**14, matrix.shape[1], 2**14):
        total += matrix[:, first : first + 2**14].sum(1)
    return total


def inner(first: Params, second: Params) -> Tensor:
    """Inner product of two Params per member, ``(P,)``, summed leaf by leaf in their order."""
    leaves = [leaf for name, own in first.items() for leaf in (own, second[name])]
    like = leaves[0]
    alike = all(leaf.dtype == like.dtype and leaf.device == like.device for leaf in leaves)
    alike = alike and (first is second or all(a.shape == b.shape for a, b in zip(*[iter(leaves)] * 2, strict=True)))
    if not alike or not compiles(like.dtype, like.device):
        total = row_sum(leaves[0] * leaves[1])
        for own, other in zip(leaves[2::2], leaves[3::2], strict=True):
            total = total + row_sum(own * other)
        return total
    total, fields = like.new_zeros(len(like)), [leaf.contiguous() for leaf in leaves]
    sizes = [leaf.numel() // max(1, len(like)) for leaf in leaves[::2]]
    launch(_fold_kernel(_add_product, 2, like.dtype), sizes, [field.data_ptr() for field in fields], total)
    return total


def _add_product(total: Any, first: Any, second: Any) -> Any:
    return total + first * second


@lru_cache
def _fold_kernel(fold: "Fold", fields: int, dtype: torch.dtype) -> "Kernel":
    from pgkit.optim.kernels import compile_fold  # LLVM is loaded where something is compiled

    return compile_fold(fold, fields, dtype)
