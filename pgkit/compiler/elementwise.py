"""Compile a function of one element into loops over the rows of columns."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from llvmlite import ir

from pgkit.compiler import functions  # noqa: F401 # implements the functions of torch for traced scalars
from pgkit.compiler.ir import BYTE, INT, POINTER, Index, element_pointer, for_range, ir_value, load, store
from pgkit.compiler.ir import function as define
from pgkit.compiler.jit import compile_function
from pgkit.compiler.tracer import IR_TYPES, TracedScalar

VECTOR_WIDTH = 8
"""Rows that a loop takes at once, unless it says otherwise; on every processor, whatever its registers hold."""

ColumnType = tuple[torch.dtype, int]
"""A column of numbers: their dtype, and the stride in numbers from one row to the next; 0 for one number for all."""


class Column(NamedTuple):
    """One number of each row.

    Attributes:
        base: address of the first row's number.
        element_type: one of the values of ``IR_TYPES``.
        stride: from one row to the next, in numbers; 0 for one number for all rows.
    """

    base: ir.Value
    element_type: ir.Type
    stride: int = 1

    def read(self, builder: ir.IRBuilder, row: Index | ir.Value, width: int) -> TracedScalar:
        """The numbers of ``width`` rows from ``row`` on: a vector, or a scalar if the width is 1."""
        memory_type = _memory_type(self.element_type)
        place = Index(builder, row) * self.stride
        if width == 1 or self.stride == 1:
            value = load(builder, _vector_type(memory_type, width), self.base, place)
        else:
            value = ir.Constant(_vector_type(memory_type, width), ir.Undefined)
            for lane in range(width):
                number = load(builder, memory_type, self.base, place + lane * self.stride)
                value = builder.insert_element(value, number, ir.IntType(32)(lane))
        if memory_type is BYTE:
            value = builder.trunc(value, _vector_type(self.element_type, width))
        return TracedScalar(builder, value)

    def write(self, value: TracedScalar, row: Index | ir.Value, width: int) -> None:
        """Write the numbers of ``width`` rows to where :meth:`read` reads them."""
        builder = value.builder
        memory_type = _memory_type(self.element_type)
        numbers = value.ir_value
        if memory_type is BYTE:
            numbers = builder.zext(numbers, _vector_type(memory_type, width))
        place = Index(builder, row) * self.stride
        if width == 1 or self.stride == 1:
            store(builder, numbers, self.base, place)
            return
        for lane in range(width):
            number = builder.extract_element(numbers, ir.IntType(32)(lane))
            store(builder, number, self.base, place + lane * self.stride)


def element_address(builder: ir.IRBuilder, base: ir.Value, element_type: ir.Type, index: Any) -> ir.Value:
    """The address of ``base[index]``, where a boolean takes a byte, as in tensors."""
    return element_pointer(builder, base, _memory_type(element_type), index)


def elementwise_loop(
    builder: ir.IRBuilder,
    count: Any,
    inputs: Sequence[Column],
    outputs: Sequence[Column],
    function: Callable[..., Sequence[TracedScalar]],
    width: int = VECTOR_WIDTH,
) -> None:
    """Write ``outputs = function(row, *inputs)`` for ``count`` rows; ``row`` is the row's number, int64 from 0 on."""

    def body(row: Index, width: int) -> None:
        values = [column.read(builder, row, width) for column in inputs]
        for column, value in zip(outputs, function(_row_numbers(builder, row, width), *values), strict=True):
            column.write(value, row, width)

    vector_loop(builder, count, body, width)


def vector_loop(
    builder: ir.IRBuilder, count: Any, body: Callable[[Index, int], None], width: int = VECTOR_WIDTH
) -> None:
    """Write ``body(first, width)`` for vectors of ``width`` elements as far as they go, ``body(element, 1)`` beyond.

    Args:
        builder: of the function.
        count: of elements.
        body: appends the code of ``width`` elements from an index on.
        width: of a vector.
    """
    count = Index(builder, count)
    # A signed division: after an unsigned one LLVM compares the counter without sign, and then loads the constants of
    # the body in every round instead of keeping them in registers, which makes tanh a quarter slower.
    chunks = Index(builder, builder.sdiv(ir_value(count), INT(width)))
    with for_range(builder, chunks) as chunk:
        body(chunk * width, width)
    vectorized = chunks * width
    with for_range(builder, count - vectorized) as rest:
        body(vectorized + rest, 1)


def compile_elementwise(
    function: Callable[..., Any], inputs: Sequence[ColumnType], outputs: Sequence[ColumnType]
) -> Callable[..., None]:
    """Compile ``kernel(count, *inputs, *outputs)``: ``outputs = function(*inputs)`` for each of ``count`` rows.

    An output may be written to the memory of an input, but not to memory that overlaps with one: a row is read before
    it is written.

    Args:
        function: of one number of each input, traced scalars; returns a list with one of each output, or the only one.
        inputs: columns, which the kernel takes as addresses.
        outputs: likewise.
    """
    types = [INT, *[POINTER] * (len(inputs) + len(outputs))]
    builder, (count, *bases) = define(ir.Module(), "rows", types, alias=True)
    columns = [
        Column(base, IR_TYPES[dtype], stride) for base, (dtype, stride) in zip(bases, [*inputs, *outputs], strict=True)
    ]

    def of_row(row: TracedScalar, *values: TracedScalar) -> Sequence[TracedScalar]:
        results = function(*values)
        return [results] if isinstance(results, TracedScalar) else results

    elementwise_loop(builder, count, columns[: len(inputs)], columns[len(inputs) :], of_row)
    builder.ret_void()
    return compile_function(builder.function)


def scratch_scalars() -> Callable[[torch.dtype], TracedScalar]:
    """A function that gives traced scalars of a dtype, for calls whose code is thrown away.

    So it is tried whether a function can be compiled.
    """
    dtypes = list(IR_TYPES)
    builder, arguments = define(ir.Module(), "scratch", [IR_TYPES[dtype] for dtype in dtypes])
    return lambda dtype: TracedScalar(builder, arguments[dtypes.index(dtype)])


def _memory_type(element_type: ir.Type) -> ir.Type:
    """The type of an element in memory, where a boolean takes a byte."""
    return BYTE if element_type == IR_TYPES[torch.bool] else element_type


def _vector_type(element_type: ir.Type, width: int) -> ir.Type:
    return element_type if width == 1 else ir.VectorType(element_type, width)


def _row_numbers(builder: ir.IRBuilder, row: Index, width: int) -> TracedScalar:
    """The numbers of ``width`` rows from ``row`` on."""
    if width == 1:
        return TracedScalar(builder, row.ir_value)
    numbers = TracedScalar(builder, ir.Constant(_vector_type(INT, width), list(range(width))))
    return numbers + numbers.splat(ir_value(row))
