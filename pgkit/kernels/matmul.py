"""Products of small matrices, one for each member, on CPU by code compiled for this processor.

Each element of a product is the sum of its terms in their order, each added by one fused multiply-add (in narrow
products in sixteen partial sums). So its bits depend neither on the other members nor on the processor. As in BLIS (Van
Zee and van de Geijn 2015, doi 10.1145/2764454), a few rows times some registers of columns are accumulated in registers
along the inner axis. Small matrices fit in the cache, so no further blocking is needed, and no copy but that of a
second matrix whose columns are contiguous.
"""

import torch
from torch import Tensor

from pgkit.compiler.lazy import lazy_kernel
from pgkit.compiler.signature import address_of, flatten
from pgkit.kernels.layout import COLUMN_PADDING, NARROW
from pgkit.kernels.signatures import Matmul, MemberMatmul
from pgkit.system.cpu import use_compiled

_kernel = lazy_kernel("pgkit.kernels.codegen.matmul:compile_matmul")


def multiply(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """``bias + a @ b`` of each member, ``(P, M, N)``; autograd does not see it.

    Args:
        a: ``(P, M, K)``, any strides.
        b: ``(P, K, N)``; fastest if rows or columns are contiguous.
        bias: ``(P, 1, N)``.

    Raises:
        ValueError: shapes, dtypes or devices do not fit together.
    """
    a = a.detach()
    b = b.detach()
    if use_compiled(a.dtype, a.device):
        return _multiply(a, b, bias, None)
    return torch.bmm(a, b) if bias is None else torch.baddbmm(bias.detach(), a, b)


def multiply_and_sum(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """``a @ b`` of each member, and the sums of the columns of ``b``, ``(P, 1, N)``.

    A layer's backward pass needs both: its weight's gradient is ``x.mT @ grad``, its bias's the sum of the rows of
    ``grad``. Arguments and errors are those of :func:`multiply`.
    """
    a = a.detach()
    b = b.detach()
    if not use_compiled(a.dtype, a.device):
        return torch.bmm(a, b), b.sum(1, keepdim=True)
    if b.shape[2] <= NARROW:  # the rows of the transposed product are long, so they fill registers
        return _multiply(b.mT, a.mT, None, None).mT.contiguous(), b.sum(1, keepdim=True)
    sums = b.new_empty(len(b), 1, b.shape[2])
    return _multiply(a, b, None, sums), sums


def _multiply(a: Tensor, b: Tensor, bias: Tensor | None, sums: Tensor | None) -> Tensor:
    """The compiled product; ``sums`` is written."""
    _check(a, b, bias)
    members, rows, inner = a.shape
    columns = b.shape[2]
    bias = None if bias is None else bias.detach().contiguous()
    b_member_stride, b_row_stride, b_column_stride = b.stride()
    transposed = b_column_stride != 1 and b_row_stride == 1
    if b_column_stride != 1 and not transposed:
        b = b.contiguous()
        b_member_stride, b_row_stride, b_column_stride = b.stride()
    a_member_stride, a_row_stride, a_column_stride = a.stride()
    result = a.new_empty(members, rows, columns)
    workspace = a.new_empty(inner + 1, columns + COLUMN_PADDING)
    first = MemberMatmul(
        rows=rows,
        inner=inner,
        columns=columns,
        a=a.data_ptr(),
        a_row_stride=a_row_stride,
        a_column_stride=a_column_stride,
        b=b.data_ptr(),
        b_stride=b_column_stride if transposed else b_row_stride,
        b_transposed=transposed,
        bias=address_of(bias),
        sums=address_of(sums),
        result=result.data_ptr(),
        workspace=workspace.data_ptr(),
    )
    _kernel(a.dtype)(*flatten(Matmul(members, a_member_stride, b_member_stride, first)))
    return result


def _check(a: Tensor, b: Tensor, bias: Tensor | None) -> None:
    """Raise ValueError unless shapes, dtypes and devices fit together."""
    members, _, inner = a.shape
    columns = b.shape[2]
    if b.shape != (members, inner, columns) or b.dtype != a.dtype or not b.is_cpu:
        raise ValueError(f"cannot multiply {a.dtype} {tuple(a.shape)} and {b.dtype} {tuple(b.shape)} on {b.device}")
    if bias is not None and (bias.shape != (members, 1, columns) or bias.dtype != a.dtype or not bias.is_cpu):
        actual = f"{bias.dtype} {tuple(bias.shape)} on {bias.device}"
        raise ValueError(f"expected a bias {a.dtype} {(members, 1, columns)} on cpu, got {actual}")
