"""Sums over all parameters of a member, with the same bits whatever its neighbours."""

import ctypes
import math
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from pgkit.compiler.lazy import lazy_kernel
from pgkit.system.cpu import use_compiled
from pgkit.types import Params

_compile_fold = lazy_kernel("pgkit.optim.codegen:compile_fold")


def launch(kernel: Callable[..., None], leaves: Sequence[Tensor], addresses: Sequence[int], table: Tensor) -> None:
    """Run a compiled kernel over all leaves of all members.

    Args:
        kernel: see :data:`pgkit.optim.codegen.Kernel`.
        leaves: ``(P, ...)`` each.
        addresses: of the fields of each leaf, contiguous ``(P, ...)`` of the kernel's dtype.
        table: ``(C, P)`` or, for a sum, ``(P,)``, contiguous, of that dtype.
    """
    members = table.shape[-1]
    if members:
        sizes = [leaf.numel() // members for leaf in leaves]
        arrays = [(ctypes.c_int64 * len(numbers))(*numbers) for numbers in (sizes, addresses)]
        kernel(len(sizes), members, *arrays, table.data_ptr())


def row_sum(leaf: Tensor) -> Tensor:
    """Sum over all but axis 0, ``(P, ...) -> (P,)``.

    Summed in blocks that are too small for PyTorch to split between threads, so that their number changes no bit.
    """
    matrix = leaf.reshape(leaf.shape[0], math.prod(leaf.shape[1:]))
    total = matrix[:, : 2**14].sum(1)
    for first in range(2**14, matrix.shape[1], 2**14):
        total += matrix[:, first : first + 2**14].sum(1)
    return total


def inner(first: Params, second: Params) -> Tensor:
    """Compute the inner product of two Params for each member, ``(P,)``, summed leaf by leaf in their order."""
    sides = [list(first.values())]
    if first is not second:
        sides.append([second[name] for name in first])
    like = sides[0][0]
    same_dtype = all(leaf.dtype == like.dtype and leaf.is_cpu for side in sides for leaf in side)
    same_shapes = first is second or all(a.shape == b.shape for a, b in zip(*sides, strict=True))
    if not same_dtype or not same_shapes or not use_compiled(like.dtype, like.device):
        products = [row_sum(leaf * other) for leaf, other in zip(sides[0], sides[-1], strict=True)]
        return sum(products[1:], products[0])
    sides = [[leaf.contiguous() for leaf in side] for side in sides]
    addresses = [leaf.data_ptr() for pair in zip(*sides, strict=True) for leaf in pair]
    total = like.new_zeros(like.shape[0])
    launch(_compile_fold(_add_product, len(sides), like.dtype), sides[0], addresses, total)
    return total


def _add_product(total: Any, *factors: Any) -> Any:
    """Add the product of two numbers, or the square of one."""
    return total + factors[0] * factors[-1]
