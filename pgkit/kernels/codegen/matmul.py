"""The loops of :mod:`pgkit.kernels.matmul`, written down for LLVM."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from llvmlite import ir

from pgkit.compiler.ir import (
    FLOAT_TYPES,
    INT,
    POINTER,
    function,
    intrinsic,
    lane_sum,
    load,
    loop,
    register_bytes,
    store,
)
from pgkit.compiler.jit import compile_function, compile_shared
from pgkit.kernels.layout import NARROW

ROWS = (5, 4, 1)
"""Rows of the tiles: of five so many that fours cover the rest, where that can be, then of four, then single ones."""

LANES = 16
"""A sum along the inner axis has so many parts, where there are few columns."""

SQUARE = 8
"""Matrices are turned in squares of so many rows and columns."""

_OWN = [INT] * 3 + [POINTER, INT, INT] + [POINTER, INT, INT] + [POINTER] * 4


def product_function(module: ir.Module, real: ir.Type) -> ir.Function:
    """``product(M, K, N, a, row, column, b, row, turned, bias, sums, result, room)`` of one member, for a module.

    ``a`` is followed by its strides in numbers; if ``turned``, ``row`` of ``b`` is the stride from one column to the
    next, and those along K are 1. ``bias`` and ``sums`` may be null. ``room`` holds ``(K + 1)(N + 16)`` numbers.
    """
    name = f"pgkit_product_{real.intrinsic_name}_{register_bytes()}"
    _compile_once(name, real)
    return ir.Function(module, ir.FunctionType(ir.VoidType(), _OWN), name)


@lru_cache
def _compile_once(name: str, real: ir.Type) -> Callable[..., None]:
    builder, arguments = function(ir.Module(), name, _OWN)
    _Writer(builder, real, arguments).product()
    builder.ret_void()
    return compile_shared(builder.function)


def compile_product(dtype: torch.dtype) -> Callable[..., None]:
    """``products(P, M, K, N, a, member, row, column, b, member, row, turned, bias, sums, result, room)``.

    ``member`` are strides, too; the rest is as in :func:`product_function`.
    """
    module, real = ir.Module(), FLOAT_TYPES[dtype]
    product = product_function(module, real)
    kinds = [INT] * 4 + [POINTER, INT, INT, INT] + [POINTER, INT, INT, INT] + [POINTER] * 4
    builder, arguments = function(module, "products", kinds)
    members, *sizes = arguments[:4]
    (a, a_member, *a_strides), (b, b_member, *b_strides) = arguments[4:8], arguments[8:12]
    bias, sums, result, room = arguments[12:]

    def of(base: ir.Value, member: ir.Value, size: ir.Value) -> ir.Value:
        place = builder.gep(base, [builder.mul(member, size)], source_etype=real)
        given = builder.icmp_unsigned("!=", base, ir.Constant(POINTER, None))
        return builder.select(given, place, base)

    with loop(builder, members) as member:
        own = [of(b_or_s, member, sizes[2]) for b_or_s in (bias, sums)]
        here = of(result, member, builder.mul(sizes[0], sizes[2]))
        factors = of(a, member, a_member), *a_strides, of(b, member, b_member), *b_strides
        builder.call(product, [*sizes, *factors, *own, here, room])
    builder.ret_void()
    return compile_function(builder.function)


class _Panel(NamedTuple):
    """Some columns of the second matrix and of the product.

    Attributes:
        kind: vector of as many numbers as there are columns.
        source: address of the second matrix from there on.
        stride: from one of its rows to the next.
        column: the first.
        filled: how many columns there really are, if not all.
    """

    kind: ir.VectorType
    source: ir.Value
    stride: ir.Value
    column: ir.Value
    filled: ir.Value | None


class _Writer:
    """All methods write behind what is there already; addresses and strides count in numbers."""

    def __init__(self, builder: ir.IRBuilder, real: ir.Type, arguments: Sequence[ir.Value]) -> None:
        self.builder, self.real = builder, real
        self.rows, self.inner, self.columns = arguments[:3]
        self.a, self.b = arguments[3:6], arguments[6:9]
        self.bias, self.sums, self.result, self.room = arguments[9:]
        lanes = register_bytes() // (4 if real == ir.FloatType() else 8)
        registers = 4 if register_bytes() == 64 else 2  # processors with the widest registers have twice as many
        self.narrow, self.wide = (ir.VectorType(real, width) for width in (lanes, registers * lanes))
        self.totals = {kind: [builder.alloca(kind) for _ in range(max(ROWS))] for kind in (self.narrow, self.wide)}
        self.lanes = ir.VectorType(real, LANES)
        self.many, self.rest, self.start = (builder.alloca(kind) for kind in (self.lanes, real, real))
        self.aside = self.at(self.room, builder.mul(self.inner, self.columns))
        self.few = self.at(self.aside, builder.mul(self.inner, INT(lanes)))

    def at(self, base: ir.Value, index: ir.Value) -> ir.Value:
        """An address."""
        return self.builder.gep(base, [index], source_etype=self.real)

    def product(self) -> None:
        """All of it."""
        builder = self.builder
        turned = builder.icmp_signed("!=", self.b[2], INT(0))
        with builder.if_then(turned):
            self.turn()
        source = builder.select(turned, self.room, self.b[0])
        stride = builder.select(turned, self.columns, self.b[1])
        few = builder.icmp_signed("<=", self.columns, INT(NARROW))
        along = builder.icmp_signed("==", self.a[2], INT(1))
        with builder.if_else(builder.and_(few, along)) as (one_by_one, in_panels):
            with one_by_one:
                self.few_columns(source, stride)
            with in_panels:
                self.panels(source, stride)

    def few_columns(self, source: ir.Value, stride: ir.Value) -> None:
        """Each column of the second matrix, put aside, times the rows of the first; no sums."""
        builder, kind = self.builder, self.lanes
        whole = builder.mul(builder.udiv(self.inner, INT(LANES)), INT(LANES))
        with loop(builder, self.columns) as column:
            with loop(builder, self.inner) as k:
                number = load(builder, self.real, source, builder.add(builder.mul(k, stride), column))
                store(builder, number, self.aside, k)
            builder.store(ir.Constant(self.real, 0.0), self.start)
            with builder.if_then(self.is_given(self.bias)):
                builder.store(load(builder, self.real, self.bias, column), self.start)
            with loop(builder, self.rows) as row:
                own = self.at(self.a[0], builder.mul(row, self.a[1]))
                builder.store(ir.Constant(kind, None), self.many)
                with loop(builder, builder.udiv(whole, INT(LANES))) as chunk:
                    x, y = (load(builder, kind, base, builder.mul(chunk, INT(LANES))) for base in (own, self.aside))
                    builder.store(self.fused(x, y, builder.load(self.many, typ=kind)), self.many)
                builder.store(builder.load(self.start, typ=self.real), self.rest)
                with loop(builder, builder.sub(self.inner, whole)) as beyond:
                    k = builder.add(whole, beyond)
                    term = builder.fmul(*(load(builder, self.real, base, k) for base in (own, self.aside)))
                    builder.store(builder.fadd(builder.load(self.rest, typ=self.real), term), self.rest)
                lanes = lane_sum(builder, builder.load(self.many, typ=kind))
                total = builder.fadd(lanes, builder.load(self.rest, typ=self.real))
                store(builder, total, self.result, builder.add(builder.mul(row, self.columns), column))

    def panels(self, source: ir.Value, stride: ir.Value) -> None:
        """Wide panels as far as they go, then narrow ones."""
        builder, wide, narrow = self.builder, INT(self.wide.count), INT(self.narrow.count)
        many = builder.udiv(self.columns, wide)
        with loop(builder, many) as index:
            column = builder.mul(index, wide)
            self.panel(_Panel(self.wide, self.at(source, column), stride, column, None))
        done = builder.mul(many, wide)
        left = builder.sub(self.columns, done)
        with loop(builder, builder.udiv(builder.add(left, INT(self.narrow.count - 1)), narrow)) as index:
            column = builder.add(done, builder.mul(index, narrow))
            rest = builder.sub(self.columns, column)
            full = builder.icmp_signed(">=", rest, narrow)
            count, here = builder.select(full, narrow, rest), self.at(source, column)
            with builder.if_then(builder.not_(full)), loop(builder, self.inner) as k:
                row = self.gathered(self.at(here, builder.mul(k, stride)), count)
                store(builder, row, self.aside, builder.mul(k, narrow))
            there, step = builder.select(full, here, self.aside), builder.select(full, stride, narrow)
            self.panel(_Panel(self.narrow, there, step, column, count))

    def gathered(self, base: ir.Value, count: ir.Value) -> ir.Value:
        """A narrow vector of so many numbers, then zeros."""
        builder = self.builder
        store(builder, ir.Constant(self.narrow, None), self.few, INT(0))
        with loop(builder, count) as index:
            store(builder, load(builder, self.real, base, index), self.few, index)
        return load(builder, self.narrow, self.few, INT(0))

    def put(self, panel: _Panel, vector: ir.Value, base: ir.Value) -> None:
        """Store what belongs to the columns of a panel."""
        builder, base = self.builder, self.at(base, panel.column)
        if panel.filled is None:
            store(builder, vector, base, INT(0))
            return
        full = builder.icmp_signed("==", panel.filled, INT(panel.kind.count))
        with builder.if_else(full) as (whole, part):
            with whole:
                store(builder, vector, base, INT(0))
            with part:
                store(builder, vector, self.few, INT(0))
                with loop(builder, panel.filled) as index:
                    store(builder, load(builder, self.real, self.few, index), base, index)

    def panel(self, panel: _Panel) -> None:
        """These columns of the product, and the sums of those of the second matrix."""
        builder, total = self.builder, self.totals[panel.kind][0]
        zero = ir.Constant(panel.kind, None)
        builder.store(zero, total)
        with builder.if_then(self.is_given(self.bias)):
            own = self.at(self.bias, panel.column)
            whole = panel.filled is None
            builder.store(load(builder, panel.kind, own, INT(0)) if whole else self.gathered(own, panel.filled), total)
        first, done = builder.load(total, typ=panel.kind), INT(0)
        for rows, count in zip(ROWS, self.tiles(), strict=True):
            with loop(builder, count) as index:
                self.tile(panel, rows, builder.add(done, builder.mul(index, INT(rows))), first)
            done = builder.add(done, builder.mul(count, INT(rows)))
        with builder.if_then(self.is_given(self.sums)):
            builder.store(zero, total)
            with loop(builder, self.inner) as k:
                row = load(builder, panel.kind, panel.source, builder.mul(k, panel.stride))
                builder.store(builder.fadd(builder.load(total, typ=panel.kind), row), total)
            self.put(panel, builder.load(total, typ=panel.kind), self.sums)

    def is_given(self, address: ir.Value) -> ir.Value:
        return self.builder.icmp_unsigned("!=", address, ir.Constant(POINTER, None))

    def tiles(self) -> list[ir.Value]:
        """How many tiles there are of each height."""
        builder = self.builder
        most = builder.udiv(self.rows, INT(5))
        fives = builder.sub(most, builder.and_(builder.sub(most, self.rows), INT(3)))  # as 5 n = n modulo 4
        fives = builder.select(builder.icmp_signed("<", fives, INT(0)), INT(0), fives)
        left = builder.sub(self.rows, builder.mul(fives, INT(5)))
        return [fives, builder.udiv(left, INT(4)), builder.urem(left, INT(4))]

    def tile(self, panel: _Panel, rows: int, first: ir.Value, start: ir.Value) -> None:
        """These rows of a panel, held in registers while the inner axis is gone along."""
        builder, kind, totals = self.builder, panel.kind, self.totals[panel.kind][:rows]
        places = [builder.add(first, INT(row)) for row in range(rows)]
        bases = [self.at(self.a[0], builder.mul(place, self.a[1])) for place in places]
        for total in totals:
            builder.store(start, total)
        with loop(builder, self.inner) as k:
            row = load(builder, kind, panel.source, builder.mul(k, panel.stride))
            for base, total in zip(bases, totals, strict=True):
                factor = self.splat(load(builder, self.real, base, builder.mul(k, self.a[2])), kind)
                builder.store(self.fused(factor, row, builder.load(total, typ=kind)), total)
        for place, total in zip(places, totals, strict=True):
            self.put(panel, builder.load(total, typ=kind), self.at(self.result, builder.mul(place, self.columns)))

    def splat(self, number: ir.Value, kind: ir.VectorType) -> ir.Value:
        """A vector of equal numbers."""
        nothing, place = ir.Constant(kind, ir.Undefined), ir.VectorType(ir.IntType(32), kind.count)
        one = self.builder.insert_element(nothing, number, ir.IntType(32)(0))
        return self.builder.shuffle_vector(one, nothing, ir.Constant(place, None))

    def fused(self, x: ir.Value, y: ir.Value, z: ir.Value) -> ir.Value:
        """``x y + z``, rounded once."""
        return intrinsic(self.builder, "fma", x, y, z)

    def turn(self) -> None:
        """Put the second matrix into the room, row by row, where it stands column by column."""
        builder, edge, (b, stride, _) = self.builder, INT(SQUARE), self.b
        squares = [builder.udiv(length, edge) for length in (self.columns, self.inner)]
        whole_columns, whole_inner = (builder.mul(count, edge) for count in squares)
        with loop(builder, squares[0]) as across, loop(builder, squares[1]) as along:
            column, k = builder.mul(across, edge), builder.mul(along, edge)
            kind, steps = ir.VectorType(self.real, SQUARE), [INT(step) for step in range(SQUARE)]
            from_column = [builder.mul(builder.add(column, step), stride) for step in steps]
            square = [load(builder, kind, b, builder.add(start, k)) for start in from_column]
            for step, row in zip(steps, self.turned(square), strict=True):
                store(builder, row, self.room, builder.add(builder.mul(builder.add(k, step), self.columns), column))
        self.turn_rest(whole_columns, INT(0), self.columns)
        self.turn_rest(INT(0), whole_inner, whole_columns)

    def turn_rest(self, column: ir.Value, k: ir.Value, last_column: ir.Value) -> None:
        """The same number by number, from a column and a place on the inner axis on."""
        builder, (b, stride, _) = self.builder, self.b
        with (
            loop(builder, builder.sub(last_column, column)) as across,
            loop(builder, builder.sub(self.inner, k)) as along,
        ):
            from_column, from_k = builder.add(column, across), builder.add(k, along)
            number = load(builder, self.real, b, builder.add(builder.mul(from_column, stride), from_k))
            store(builder, number, self.room, builder.add(builder.mul(from_k, self.columns), from_column))

    def turned(self, rows: list[ir.Value]) -> list[ir.Value]:
        """Columns of a square as rows: pairs of rows change every second number, then pairs of numbers, and so on."""
        reach = 1
        while reach < SQUARE:
            low = [i if not i & reach else SQUARE + i - reach for i in range(SQUARE)]
            high = [i + reach if not i & reach else SQUARE + i for i in range(SQUARE)]
            changed = list(rows)
            for i in range(SQUARE):
                if not i & reach:
                    pair = rows[i], rows[i + reach]
                    changed[i], changed[i + reach] = (self.shuffled(*pair, lanes) for lanes in (low, high))
            rows, reach = changed, 2 * reach
        return rows

    def shuffled(self, first: ir.Value, second: ir.Value, lanes: list[int]) -> ir.Value:
        return self.builder.shuffle_vector(first, second, ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), lanes))
