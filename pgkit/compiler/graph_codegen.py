"""Programs of :mod:`pgkit.compiler.graph_ops`, written down for LLVM."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from llvmlite import ir

from pgkit.compiler.elementwise import Column, elementwise_loop
from pgkit.compiler.graph_ops import OPERATIONS, Rows
from pgkit.compiler.ir import INT, POINTER, function, loop
from pgkit.compiler.jit import compile_function
from pgkit.compiler.tracer import IR_TYPES, TracedScalar

BYTE, FLAG = ir.IntType(8), ir.IntType(1)
WORDS = 5
"""Of a tensor that moves: where it comes from, where it goes, where it is in the program, bytes of a row, places."""


def compile_graph(forms: Sequence[Rows | tuple[bool, ...]]) -> Callable[..., None]:
    """``program(M, times, words, moves, count, aside, count, *flags, done)``, see
    :class:`pgkit.compiler.graph.Graph`."""
    module = ir.Module()
    kinds = [INT, INT, POINTER, POINTER, INT, POINTER, INT, *[POINTER] * 4]
    builder, arguments = function(module, "program", kinds, alias=True)
    members, times, words, moves, move_count, aside, aside_count, *flags, done = arguments
    going = builder.alloca(FLAG)
    with loop(builder, members) as member:
        _move(builder, moves, move_count, member, inward=True)
        builder.store(FLAG(1), going)
        with loop(builder, times) as time, builder.if_then(builder.load(going, typ=FLAG)):
            given = _words(builder, words)
            for form in forms:
                _rows(builder, form, given) if isinstance(form, Rows) else _call(builder, form, given)
            fine, due, more = (builder.trunc(builder.load(flag, typ=BYTE), FLAG) for flag in flags)
            builder.store(builder.and_(fine, more), going)
            result = builder.select(fine, builder.add(time, INT(1)), builder.sub(INT(-1), time))
            builder.store(result, builder.gep(done, [member], source_etype=INT))
            with builder.if_then(builder.and_(fine, due)):
                _move(builder, aside, aside_count, member, inward=False)
        _move(builder, moves, move_count, member, inward=False)
    builder.ret_void()
    return compile_function(builder.function)


def _words(builder: ir.IRBuilder, words: ir.Value) -> Iterator[Callable[[ir.Type], ir.Value]]:
    """One word after the other, as the type that is asked for."""
    place = 0
    while True:
        yield partial(_word, builder, words, INT(place))
        place += 1


def _word(builder: ir.IRBuilder, words: ir.Value, place: ir.Value, kind: ir.Type) -> ir.Value:
    return builder.load(builder.gep(words, [place], source_etype=INT), typ=kind)


def _rows(builder: ir.IRBuilder, form: Rows, given: Iterator[Callable[[ir.Type], ir.Value]]) -> None:
    """An operation element by element."""
    inputs = [Column(next(given)(POINTER), IR_TYPES[dtype], stride) for dtype, stride in form.inputs]
    output = Column(next(given)(POINTER), IR_TYPES[form.output])

    def operate(row: TracedScalar, *values: TracedScalar) -> list[TracedScalar]:
        tensors = iter(values)
        whole = [next(tensors) if other is ... else other for other in form.others]
        turned = [
            value.to(form.kind)
            if isinstance(value, TracedScalar) and not (form.name == "where" and place == 0)
            else value
            for place, value in enumerate(whole)
        ]
        return [OPERATIONS[form.name](*turned)]

    elementwise_loop(builder, INT(form.size), inputs, [output], operate)


def _call(builder: ir.IRBuilder, pointers: Sequence[bool], given: Iterator[Callable[[ir.Type], ir.Value]]) -> None:
    """A call of a compiled function."""
    kinds: list[Any] = [POINTER if pointer else INT for pointer in pointers]
    called = next(given)(ir.FunctionType(ir.VoidType(), kinds).as_pointer())
    builder.call(called, [next(given)(kind) for kind in kinds])


def _move(builder: ir.IRBuilder, table: ir.Value, count: ir.Value, member: ir.Value, inward: bool) -> None:
    """A member's rows of all tensors into the program's memory, or out of it."""
    with loop(builder, count) as index:
        first = builder.mul(index, INT(WORDS))
        source, target, here, size, places = (
            _word(builder, table, builder.add(first, INT(k)), INT if k == WORDS - 2 else POINTER) for k in range(WORDS)
        )
        row = builder.load(builder.gep(places, [member], source_etype=INT), typ=INT)
        there = builder.gep(source if inward else target, [builder.mul(row, size)], source_etype=BYTE)
        _copy(builder, *((here, there) if inward else (there, here)), size)


def _copy(builder: ir.IRBuilder, target: ir.Value, source: ir.Value, size: ir.Value) -> None:
    name, module = "llvm.memcpy.p0.p0.i64", builder.module
    kinds = [POINTER, POINTER, INT, FLAG]
    copy = module.globals.get(name) or ir.Function(module, ir.FunctionType(ir.VoidType(), kinds), name)
    builder.call(copy, [target, source, size, FLAG(0)])
