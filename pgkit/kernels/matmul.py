"""Matrix products of small matrices, one for each member, on CPU compiled for this processor.

Each element of a product adds up its terms in their order, each by one fused multiply-add (with few columns in sixteen
lanes). So its bits depend neither on the other members nor on the processor. A few rows times some registers full of
columns are held in registers while the inner axis is gone along, as in BLIS (Van Zee and van de Geijn 2015, doi
10.1145/2764454). Small matrices need no further blocks, and of the copies that large ones are given only the one that
turns a matrix whose columns are contiguous.
"""

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from pgkit.kernels.layout import COLUMN_PADDING, NARROW
from pgkit.system.cpu import use_compiled

Kernel = Callable[..., None]


def multiply(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """``bias + a @ b`` of each member; autograd does not see it.

    Args:
        a: ``(P, M, K)``, any strides.
        b: ``(P, K, N)``; fastest if a row or a column is contiguous.
        bias: ``(P, 1, N)``.

    Raises:
        ValueError: shapes, dtypes or devices do not fit together.
    """
    a, b = a.detach(), b.detach()
    if use_compiled(a.dtype, a.device):
        return _multiply(a, b, bias, None)
    return torch.bmm(a, b) if bias is None else torch.baddbmm(bias.detach(), a, b)


def multiply_and_sum(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """``a @ b`` of each member, and the sum of the rows of ``b``, ``(P, 1, N)``; arguments as :func:`multiply`."""
    a, b = a.detach(), b.detach()
    if not use_compiled(a.dtype, a.device):
        return torch.bmm(a, b), b.sum(1, keepdim=True)
    if b.shape[2] <= NARROW:  # as many rows of the transposed product, which are long
        return _multiply(b.mT, a.mT, None, None).mT.contiguous(), b.sum(1, keepdim=True)
    sums = b.new_empty(len(b), 1, b.shape[2])
    return _multiply(a, b, None, sums), sums


def _multiply(a: Tensor, b: Tensor, bias: Tensor | None, sums: Tensor | None) -> Tensor:
    """The compiled product; ``sums`` are written."""
    (members, rows, inner), columns = a.shape, b.shape[2]
    if b.shape != (members, inner, columns) or b.dtype != a.dtype or not b.is_cpu:
        raise ValueError(f"cannot multiply {a.dtype} {tuple(a.shape)} and {b.dtype} {tuple(b.shape)} on {b.device}")
    if bias is not None:
        if bias.shape != (members, 1, columns) or bias.dtype != a.dtype or not bias.is_cpu:
            given = f"{bias.dtype} {tuple(bias.shape)} on {bias.device}"
            raise ValueError(f"expected a bias {a.dtype} {(members, 1, columns)} on cpu, got {given}")
        bias = bias.detach().contiguous()
    member, along, across = b.stride()
    turned = across != 1 and along == 1
    if across != 1 and not turned:
        b = b.contiguous()
        member, along, across = b.stride()
    result, room = a.new_empty(members, rows, columns), a.new_empty(inner + 1, columns + COLUMN_PADDING)
    _kernel(a.dtype)(
        *(members, rows, inner, columns),
        *(a.data_ptr(), *a.stride()),
        *(b.data_ptr(), member, across if turned else along, turned),
        *(0 if tensor is None else tensor.data_ptr() for tensor in (bias, sums, result, room)),
    )
    return result


@lru_cache
def _kernel(dtype: torch.dtype) -> Kernel:
    from pgkit.kernels.codegen.matmul import compile_product  # LLVM is loaded where something is compiled

    return compile_product(dtype)
