"""Signatures of compiled functions: one NamedTuple that the caller and the code generator share. Imports no LLVM.

A signature is a NamedTuple whose fields are ``Int64`` or ``Address``, another signature, or ``tuple[..., ...]`` of
these, whose length is known when the function is compiled:

    class RowSums(NamedTuple):
        rows: Int64
        columns: Int64
        matrix: Address  # float32 (rows, columns)
        sums: Address  # float32 (rows,)

The caller passes integers and addresses:

    kernel(*RowSums(rows=len(x), columns=x.shape[1], matrix=x.data_ptr(), sums=sums.data_ptr()))

The code generator gets the same NamedTuple from :func:`pgkit.compiler.ir.define_function`, with each ``Int64`` as a
:class:`pgkit.compiler.ir.Index` and each ``Address`` as a pointer of LLVM. Where signatures are nested, the caller
passes ``*flatten(arguments)``.
"""

import ctypes
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

from torch import Tensor

Int64 = Annotated[Any, "int64"]
"""An integer: a count, a stride, a flag. Typed ``Any``: callers have an int, code generators an ``Index``."""

Address = Annotated[Any, "address"]
"""The address of numbers in memory; 0 or None stands for no memory."""


def flatten(arguments: Iterable[Any]) -> list[Any]:
    """The arguments of a function from an instance of its signature: nested tuples, one after the other."""
    flat: list[Any] = []
    for argument in arguments:
        if isinstance(argument, tuple):
            flat += flatten(argument)
        else:
            flat.append(argument)
    return flat


def address_of(tensor: Tensor | None) -> int:
    """The address of a tensor's first element; 0 for None."""
    return 0 if tensor is None else tensor.data_ptr()


def column_addresses(matrix: Tensor) -> Sequence[int]:
    """The addresses of the first row's numbers of a contiguous ``(..., L)``, which are those of its columns."""
    size = matrix.element_size()
    width = matrix.shape[-1]
    return range(matrix.data_ptr(), matrix.data_ptr() + width * size, size) if matrix.numel() else [0] * width


def address_table(tensors: Sequence[Tensor]) -> Any:
    """An array of the addresses of tensors, which a compiled function takes as an ``Address``."""
    return (ctypes.c_void_p * len(tensors))(*[tensor.data_ptr() for tensor in tensors])
