"""Compile a function of one element into loops over the rows of columns."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from llvmlite import ir

from pgkit.compiler import functions  # noqa: F401 # teaches traced values the functions of torch  # noqa: F401 # teaches traced values the functions of torch
from pgkit.compiler.ir import INT, POINTER, load, loop, store
from pgkit.compiler.ir import function as declare
from pgkit.compiler.jit import compile_function
from pgkit.compiler.tracer import IR_TYPES, TracedScalar

VECTOR_WIDTH = 8
"""So many rows are taken at once."""

_BYTE = ir.IntType(8)


def element_address(builder: ir.IRBuilder, base: ir.Value, kind: ir.Type, index: ir.Value) -> ir.Value:
    """Of a number; what is true or not takes a byte."""
    return builder.gep(base, [index], source_etype=_memory(kind))


class Column(NamedTuple):
    """One number of each row.

    Attributes:
        base: address of the first row's.
        kind: of the numbers, one of the values of ``IR_TYPES``.
        stride: from one row's to the next, in numbers; 0 of one number for all rows.
    """

    base: ir.Value
    kind: ir.Type
    stride: int = 1

    def read(self, builder: ir.IRBuilder, row: ir.Value, lanes: int) -> TracedScalar:
        """Those of so many rows from this one on; of a single row if 1."""
        memory, shape = _memory(self.kind), _lanes(self.kind, lanes)
        place = builder.mul(row, INT(self.stride))
        if lanes == 1 or self.stride == 1:
            found = load(builder, _lanes(memory, lanes), self.base, place)
        else:
            found = ir.Constant(_lanes(memory, lanes), ir.Undefined)
            for lane in range(lanes):
                one = load(builder, memory, self.base, builder.add(place, INT(lane * self.stride)))
                found = builder.insert_element(found, one, ir.IntType(32)(lane))
        return TracedScalar(builder, builder.trunc(found, shape) if memory is _BYTE else found)

    def write(self, value: TracedScalar, row: ir.Value, lanes: int) -> None:
        """Put a value where :meth:`read` takes it from."""
        builder, memory = value.builder, _memory(self.kind)
        it = builder.zext(value.ir_value, _lanes(memory, lanes)) if memory is _BYTE else value.ir_value
        place = builder.mul(row, INT(self.stride))
        if lanes == 1 or self.stride == 1:
            store(builder, it, self.base, place)
            return
        for lane in range(lanes):
            one = builder.extract_element(it, ir.IntType(32)(lane))
            store(builder, one, self.base, builder.add(place, INT(lane * self.stride)))


def elementwise_loop(
    builder: ir.IRBuilder,
    count: ir.Value,
    inputs: Sequence[Column],
    outputs: Sequence[Column],
    function: Callable[..., Sequence[TracedScalar]],
) -> None:
    """Write ``outputs = function(row, *inputs)`` for ``count`` rows, ``row`` their numbers, int64 from 0 on."""

    def some(row: ir.Value, lanes: int) -> None:
        before = [column.read(builder, row, lanes) for column in inputs]
        for column, value in zip(outputs, function(_rows(builder, row, lanes), *before), strict=True):
            column.write(value, row, lanes)

    vector_loop(builder, count, some)


def vector_loop(builder: ir.IRBuilder, count: ir.Value, some: Callable[[ir.Value, int], None]) -> None:
    """Write ``some(row, lanes)`` for all of ``count`` rows: a vector of them at a time, and the rest one by one."""
    chunks = builder.sdiv(count, INT(VECTOR_WIDTH))
    with loop(builder, chunks) as chunk:
        some(builder.mul(chunk, INT(VECTOR_WIDTH)), VECTOR_WIDTH)
    done = builder.mul(chunks, INT(VECTOR_WIDTH))
    with loop(builder, builder.sub(count, done)) as rest:
        some(builder.add(done, rest), 1)


ColumnType = tuple[torch.dtype, int]
"""Of a column: what its numbers are, and their stride."""


def compile_elementwise(
    function: Callable[..., Sequence[TracedScalar]], inputs: Sequence[ColumnType], outputs: Sequence[ColumnType]
) -> Callable[..., None]:
    """``kernel(count, *inputs, *outputs)``, by addresses: ``outputs = function(row, *inputs)`` for each row.

    An output may be where an input is, not beside it: a row is read before it is written.
    """
    module = ir.Module()
    builder, (count, *bases) = declare(module, "rows", [INT, *[POINTER] * (len(inputs) + len(outputs))], alias=True)
    columns = [
        Column(base, IR_TYPES[dtype], stride) for base, (dtype, stride) in zip(bases, [*inputs, *outputs], strict=True)
    ]
    elementwise_loop(builder, count, columns[: len(inputs)], columns[len(inputs) :], function)
    builder.ret_void()
    return compile_function(builder.function)


def _memory(kind: ir.Type) -> ir.Type:
    return _BYTE if kind == IR_TYPES[torch.bool] else kind


def _lanes(kind: ir.Type, lanes: int) -> ir.Type:
    return kind if lanes == 1 else ir.VectorType(kind, lanes)


def _rows(builder: ir.IRBuilder, row: ir.Value, lanes: int) -> TracedScalar:
    """The numbers of so many rows."""
    if lanes == 1:
        return TracedScalar(builder, row)
    count = TracedScalar(builder, ir.Constant(_lanes(INT, lanes), list(range(lanes))))
    return count + count.splat(row)
