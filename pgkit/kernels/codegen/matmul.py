"""Generate the code of :mod:`pgkit.kernels.matmul`.

A wide product is computed in panels, each a register or some registers of columns, and a panel in tiles of a few rows.
The accumulators of a tile stay in registers while the code walks along the inner axis: one row of ``b`` is loaded per
step and used for all rows of the tile, so arithmetic, not memory, is the limit. A product with few columns would leave
most lanes of a register empty; there the lanes hold partial sums along the inner axis instead.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import torch
from llvmlite import ir

from pgkit.compiler.ir import (
    FLOAT_TYPES,
    INT,
    Index,
    Variable,
    call,
    declare_function,
    define_function,
    element_pointer,
    for_range,
    intrinsic,
    is_not_null,
    lane_sum,
    load,
    register_bytes,
    store,
)
from pgkit.compiler.jit import compile_function, compile_shared
from pgkit.kernels.codegen.transpose import transpose
from pgkit.kernels.layout import NARROW
from pgkit.kernels.signatures import Matmul, MemberMatmul

TILE_ROWS = (5, 4, 1)
"""Heights of tiles: as many of five rows as leave a multiple of four, then of four, then single rows. Five rows of
accumulators, one row of ``b`` and one factor of ``a`` are what the registers of every processor hold."""

PARTIAL_SUMS = 16
"""Partial sums along the inner axis in narrow products: as many as the widest register has lanes, on every processor,
because their number is part of the result's bits."""


def declare_matmul(module: ir.Module, real: ir.Type) -> ir.Function:
    """A function of :class:`MemberMatmul` for a module; its machine code is shared by all modules."""
    name = f"pgkit_matmul_{real.intrinsic_name}_{register_bytes()}"
    _compile_member(name, real)
    return declare_function(module, name, MemberMatmul)


@lru_cache
def _compile_member(name: str, real: ir.Type) -> Callable[..., None]:
    builder, arguments = define_function(ir.Module(), name, MemberMatmul)
    _write_matmul(_context(builder, real, arguments))
    builder.ret_void()
    return compile_shared(builder.function)


def compile_matmul(dtype: torch.dtype) -> Callable[..., None]:
    """A kernel of :class:`Matmul`."""
    module = ir.Module()
    real = FLOAT_TYPES[dtype]
    matmul = declare_matmul(module, real)
    builder, arguments = define_function(module, "matmuls", Matmul)
    first = arguments.first

    def advance(base: ir.Value, numbers: Index) -> ir.Value:
        return element_pointer(builder, base, real, numbers)

    def advance_unless_null(base: ir.Value, numbers: Index) -> ir.Value:
        return builder.select(is_not_null(builder, base), advance(base, numbers), base)

    with for_range(builder, arguments.members) as member:
        member_arguments = first._replace(
            a=advance(first.a, member * arguments.a_member_stride),
            b=advance(first.b, member * arguments.b_member_stride),
            bias=advance_unless_null(first.bias, member * first.columns),
            sums=advance_unless_null(first.sums, member * first.columns),
            result=advance(first.result, member * (first.rows * first.columns)),
        )
        call(builder, matmul, member_arguments)
    builder.ret_void()
    return compile_function(builder.function)


class _Context(NamedTuple):
    """What all parts of the code need.

    Attributes:
        builder: of the function.
        real: the type of the numbers.
        args: of the function.
        narrow: the vector type of a narrow panel: one register.
        wide: the vector type of a wide panel: as many registers as leave enough for the accumulators.
        accumulators: variables of either type, one for each row of the tallest tile.
        padded: in the workspace, behind a transposed ``b``: ``(K, width of narrow)``.
        partial: behind ``padded``: one vector.
    """

    builder: ir.IRBuilder
    real: ir.Type
    args: MemberMatmul
    narrow: ir.VectorType
    wide: ir.VectorType
    accumulators: dict[ir.VectorType, list[Variable]]
    padded: ir.Value
    partial: ir.Value

    def pointer(self, base: ir.Value, index: Index) -> ir.Value:
        """The address of ``base[index]``."""
        return element_pointer(self.builder, base, self.real, index)


def _context(builder: ir.IRBuilder, real: ir.Type, args: MemberMatmul) -> _Context:
    lanes = register_bytes() // (4 if real == ir.FloatType() else 8)
    registers = 4 if register_bytes() == 64 else 2  # processors with the widest registers have 32 of them, others 16
    narrow = ir.VectorType(real, lanes)
    wide = ir.VectorType(real, registers * lanes)
    accumulators = {vector: [Variable(builder, vector) for _ in range(max(TILE_ROWS))] for vector in (narrow, wide)}
    padded = element_pointer(builder, args.workspace, real, args.inner * args.columns)
    partial = element_pointer(builder, padded, real, args.inner * lanes)
    return _Context(builder, real, args, narrow, wide, accumulators, padded, partial)


def _write_matmul(context: _Context) -> None:
    """The whole product."""
    builder = context.builder
    args = context.args
    transposed = args.b_transposed.compare("!=", 0)
    with builder.if_then(transposed):
        transpose(builder, context.real, args.b, args.b_stride, (args.inner, args.columns), args.workspace)
    source = builder.select(transposed, args.workspace, args.b)
    stride = args.columns.where(transposed, args.b_stride)
    is_narrow = args.columns <= NARROW
    contiguous = args.a_column_stride.compare("==", 1)
    with builder.if_else(builder.and_(is_narrow, contiguous)) as (narrow, wide):
        with narrow:
            _write_narrow(context, source, stride)
        with wide:
            _write_panels(context, source, stride)


def _write_narrow(context: _Context, source: ir.Value, stride: Index) -> None:
    """Each column of ``b``, copied to where it is contiguous, times each row of ``a``; no column sums.

    The terms of one element go to PARTIAL_SUMS accumulators in turn, by fused multiply-adds; the terms that do not fill
    a vector are added to the bias one by one.
    """
    builder = context.builder
    real = context.real
    args = context.args
    vector = ir.VectorType(real, PARTIAL_SUMS)
    sums = Variable(builder, vector)
    rest = Variable(builder, real)
    bias = Variable(builder, real)
    chunks = args.inner // PARTIAL_SUMS
    vectorized = chunks * PARTIAL_SUMS
    with for_range(builder, args.columns) as column:
        with for_range(builder, args.inner) as k:
            store(builder, load(builder, real, source, k * stride + column), context.padded, k)
        bias.set(real(0.0))
        with builder.if_then(is_not_null(builder, args.bias)):
            bias.set(load(builder, real, args.bias, column))
        with for_range(builder, args.rows) as row:
            a_row = context.pointer(args.a, row * args.a_row_stride)
            sums.set(ir.Constant(vector, None))
            with for_range(builder, chunks) as chunk:
                x, y = (load(builder, vector, base, chunk * PARTIAL_SUMS) for base in (a_row, context.padded))
                sums.set(intrinsic(builder, "fma", x, y, sums.get()))
            rest.set(bias.get())
            with for_range(builder, args.inner - vectorized) as beyond:
                x, y = (load(builder, real, base, vectorized + beyond) for base in (a_row, context.padded))
                rest.set(builder.fadd(rest.get(), builder.fmul(x, y)))
            total = builder.fadd(lane_sum(builder, sums.get()), rest.get())
            store(builder, total, args.result, row * args.columns + column)


class _Panel(NamedTuple):
    """Some columns of ``b`` and of the result.

    Attributes:
        vector: the vector type that holds one row of the panel.
        source: the address of its first row in ``b``, or in a padded copy.
        stride: from one row to the next.
        column: the index of its first column.
        filled: how many of its columns there are, if that is not known to be all.
    """

    vector: ir.VectorType
    source: ir.Value
    stride: Index
    column: Index
    filled: Index | None


def _write_panels(context: _Context, source: ir.Value, stride: Index) -> None:
    """Wide panels as far as they go, then narrow ones.

    The last narrow panel may have fewer columns than a register. Loading whole registers there would read beyond the
    end of ``b``, so its rows are first copied, padded with zeros, and the code goes on with the copy.
    """
    builder = context.builder
    columns = context.args.columns
    wide = context.wide.count
    narrow = context.narrow.count
    wide_panels = columns // wide
    with for_range(builder, wide_panels) as index:
        column = index * wide
        _write_panel(context, _Panel(context.wide, context.pointer(source, column), stride, column, None))
    first = wide_panels * wide
    with for_range(builder, (columns - first + (narrow - 1)) // narrow) as index:
        column = first + index * narrow
        remaining = columns - column
        full = remaining >= narrow
        filled = Index(builder, narrow).where(full, remaining)
        panel_source = context.pointer(source, column)
        with builder.if_then(builder.not_(full)), for_range(builder, context.args.inner) as k:
            row = _load_partial(context, context.pointer(panel_source, k * stride), filled)
            store(builder, row, context.padded, k * narrow)
        padded_or_not = builder.select(full, panel_source, context.padded)
        padded_stride = stride.where(full, narrow)
        _write_panel(context, _Panel(context.narrow, padded_or_not, padded_stride, column, filled))


def _write_panel(context: _Context, panel: _Panel) -> None:
    """The columns of the result, tile by tile, and the sums of these columns of ``b``."""
    builder = context.builder
    args = context.args
    total = context.accumulators[panel.vector][0]
    zero = ir.Constant(panel.vector, None)
    total.set(zero)
    with builder.if_then(is_not_null(builder, args.bias)):
        bias = context.pointer(args.bias, panel.column)
        if panel.filled is None:
            total.set(load(builder, panel.vector, bias, 0))
        else:
            total.set(_load_partial(context, bias, panel.filled))
    start = total.get()
    first_row = Index(builder, 0)
    for rows, count in zip(TILE_ROWS, _tile_counts(args.rows), strict=True):
        with for_range(builder, count) as index:
            _write_tile(context, panel, rows, first_row + index * rows, start)
        first_row = first_row + count * rows
    with builder.if_then(is_not_null(builder, args.sums)):
        total.set(zero)
        with for_range(builder, args.inner) as k:
            total.set(builder.fadd(total.get(), load(builder, panel.vector, panel.source, k * panel.stride)))
        _store_row(context, panel, total.get(), args.sums)


def _tile_counts(rows: Index) -> list[Index]:
    """How many tiles of each height cover these rows.

    Of five rows the largest number n <= rows / 5 for which the remaining rows are a multiple of four: rows - 5 n is
    divisible by 4 just if rows - n is. Without such an n, there are none.
    """
    builder = rows.builder
    most = rows // 5
    excess = Index(builder, builder.and_((most - rows).ir_value, INT(3)))
    fives = most - excess
    fives = Index(builder, 0).where(fives < 0, fives)
    remaining = rows - fives * 5
    return [fives, remaining // 4, remaining % 4]


def _write_tile(context: _Context, panel: _Panel, rows: int, first_row: Index, start: ir.Value) -> None:
    """Rows of a panel: each element is ``start`` plus its terms in order, each added by one fused multiply-add."""
    builder = context.builder
    args = context.args
    accumulators = context.accumulators[panel.vector][:rows]
    row_indices = [first_row + row for row in range(rows)]
    a_rows = [context.pointer(args.a, row * args.a_row_stride) for row in row_indices]
    for accumulator in accumulators:
        accumulator.set(start)
    with for_range(builder, args.inner) as k:
        b_row = load(builder, panel.vector, panel.source, k * panel.stride)
        for a_row, accumulator in zip(a_rows, accumulators, strict=True):
            factor = _splat(builder, load(builder, context.real, a_row, k * args.a_column_stride), panel.vector)
            accumulator.set(intrinsic(builder, "fma", factor, b_row, accumulator.get()))
    for row, accumulator in zip(row_indices, accumulators, strict=True):
        _store_row(context, panel, accumulator.get(), context.pointer(args.result, row * args.columns))


def _load_partial(context: _Context, base: ir.Value, count: Index) -> ir.Value:
    """A narrow vector of ``count`` numbers, then zeros; reads nothing behind these numbers."""
    builder = context.builder
    store(builder, ir.Constant(context.narrow, None), context.partial, 0)
    with for_range(builder, count) as index:
        store(builder, load(builder, context.real, base, index), context.partial, index)
    return load(builder, context.narrow, context.partial, 0)


def _store_row(context: _Context, panel: _Panel, vector: ir.Value, base: ir.Value) -> None:
    """Store the columns of a panel in a row that begins at ``base``; writes nothing behind the last column."""
    builder = context.builder
    base = context.pointer(base, panel.column)
    if panel.filled is None:
        store(builder, vector, base, 0)
        return
    with builder.if_else(panel.filled.compare("==", panel.vector.count)) as (full, partial):
        with full:
            store(builder, vector, base, 0)
        with partial:
            store(builder, vector, context.partial, 0)
            with for_range(builder, panel.filled) as index:
                store(builder, load(builder, context.real, context.partial, index), base, index)


def _splat(builder: ir.IRBuilder, number: ir.Value, vector: ir.VectorType) -> ir.Value:
    """A vector whose lanes all hold ``number``."""
    undefined = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(undefined, number, ir.IntType(32)(0))
    lanes = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), None)
    return builder.shuffle_vector(first, undefined, lanes)
