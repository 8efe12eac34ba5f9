"""The passes of :mod:`pgkit.nn.mlp` through all layers, written down for LLVM.

Each member's pass is a whole: what a layer writes is still in the cache when the next one reads it.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from llvmlite import ir

from pgkit.compiler import functions  # noqa: F401 # teaches traced values the functions of torch
from pgkit.compiler.ir import FLOAT_TYPES, INT, POINTER, function, load, loop, register_bytes, store
from pgkit.compiler.jit import compile_function
from pgkit.compiler.tracer import TracedScalar
from pgkit.kernels.codegen.matmul import product_function
from pgkit.kernels.layout import NARROW

if TYPE_CHECKING:
    from pgkit.kernels.activations import Activation

NULL = ir.Constant(POINTER, None)


class Layers(NamedTuple):
    """The layers of a network, as arguments of a function.

    Attributes:
        count: L.
        activated: how many of them an activation follows, from the first on.
        widths: address of L + 2 int64: those of the input and of every layer, and the largest of them.
        leaves: address of 2 L addresses: weights ``(P, in, out)`` and biases ``(P, 1, out)``.
        before: address of L addresses: results before the activation.
        after: address of L addresses: results ``(P, B, out)``; where ``before`` is, unless both are kept.
    """

    count: ir.Value
    activated: ir.Value
    widths: ir.Value
    leaves: ir.Value
    before: ir.Value
    after: ir.Value


LAYERS = [INT, INT, *[POINTER] * 4]
"""The types of :class:`Layers`."""

BACKWARD = [INT, INT, INT, INT, POINTER, POINTER, *LAYERS, *[POINTER] * 4]
"""Those of the arguments of a backward pass."""


def compile_forward(activation: "Activation", dtype: torch.dtype) -> Callable[..., None]:
    """``forward(P, B, sizes, *layers, x, room)``; ``room`` as for all products of one member; see :func:`own_rows`."""
    module, real = ir.Module(), FLOAT_TYPES[dtype]
    forward = forward_function(module, real, activation)
    kinds = [INT, INT, POINTER, *LAYERS, POINTER, POINTER]
    builder, (members, rows, sizes, *arguments) = function(module, "forward", kinds, alias=True)
    layers, (x, room) = Layers(*arguments[:6]), arguments[6:]
    rows_of = own_rows(builder, sizes, rows)
    width = builder.load(layers.widths, typ=INT)
    with loop(builder, members) as member:
        first = builder.mul(member, rows)
        own = builder.gep(x, [builder.mul(first, width)], source_etype=real)
        builder.call(forward, [member, rows_of(member), first, *layers, own, room])
    builder.ret_void()
    return compile_function(builder.function)


def compile_backward(activation: "Activation", dtype: torch.dtype) -> Callable[..., None]:
    """``backward(P, B, tape_rows, x_rows, x, grad, *layers, of_leaves, of_x, scratch, room)``.

    A member's first B rows are meant, of so many of its rows on the tape and in ``x``. ``grad`` is the gradient of the
    output; ``of_leaves`` 2 L addresses where those of the leaves go, ``of_x`` where that of the input goes, or null.
    ``scratch`` holds ``2 B + NARROW`` times as many numbers as the widest layer has.
    """
    module, real = ir.Module(), FLOAT_TYPES[dtype]
    one_backward = backward_function(module, real, activation)
    builder, arguments = function(module, "backward", BACKWARD, alias=True)
    members, rows, tape_rows, x_rows, x, grad, *others = arguments
    layers = Layers(*others[: len(LAYERS)])
    outputs = builder.load(builder.gep(layers.widths, [layers.count], source_etype=INT), typ=INT)
    with loop(builder, members) as member:
        own = _at(builder, real, grad, builder.mul(builder.mul(member, rows), outputs))
        builder.call(one_backward, [member, rows, tape_rows, x_rows, x, own, *others])
    builder.ret_void()
    return compile_function(builder.function)


def own_rows(builder: ir.IRBuilder, sizes: ir.Value, rows: ir.Value) -> Callable[[ir.Value], ir.Value]:
    """How many rows of a member are of use: ``sizes`` is the address of int64 ``(P,)``; null for all of its rows."""
    all_rows = builder.alloca(INT)
    builder.store(rows, all_rows)
    given = builder.icmp_unsigned("!=", sizes, NULL)

    def of(member: ir.Value) -> ir.Value:
        own = builder.gep(sizes, [member], source_etype=INT)
        return builder.load(builder.select(given, own, all_rows), typ=INT)

    return of


def forward_function(module: ir.Module, real: ir.Type, activation: "Activation") -> ir.Function:
    """``forward(member, B, first, *layers, x, room)`` of one member, in a module.

    ``first`` is its first row in what ``before`` and ``after`` lead to, ``x`` its own input.
    """
    product = product_function(module, real)
    kinds = [INT, INT, INT, *LAYERS, POINTER, POINTER]
    builder, arguments = function(module, "one_forward", kinds, alias=True, private=True)
    member, rows, first = arguments[:3]
    layers, (x, room) = Layers(*arguments[3:9]), arguments[9:]
    at = partial(_at, builder, real)
    source = builder.alloca(POINTER)
    builder.store(x, source)
    with loop(builder, layers.count) as layer:
        inner, width = _widths(builder, layers, layer)
        weight = at(_address(builder, layers.leaves, layer, 2, 0), builder.mul(member, builder.mul(inner, width)))
        bias = at(_address(builder, layers.leaves, layer, 2, 1), builder.mul(member, width))
        before, after = (
            at(_address(builder, table, layer), builder.mul(first, width)) for table in (layers.before, layers.after)
        )
        factors = builder.load(source, typ=POINTER), inner, INT(1), weight, width, INT(0)
        builder.call(product, [rows, inner, width, *factors, bias, NULL, before, room])
        with builder.if_then(builder.icmp_signed("<", layer, layers.activated)):
            _each(builder, real, builder.mul(rows, width), [before], after, activation.plain)
        builder.store(after, source)
    builder.ret_void()
    return builder.function


def backward_function(module: ir.Module, real: ir.Type, activation: "Activation") -> ir.Function:
    """``backward(member, B, tape_rows, x_rows, x, grad, *layers, of_leaves, of_x, scratch, room)`` of one member.

    ``grad`` is that of its own output; the others are as for all members.
    """
    product = product_function(module, real)
    builder, (member, *arguments) = function(module, "one_backward", BACKWARD, alias=True, private=True)
    rows, (x, grad, *others) = _Rows(*arguments[:3]), arguments[3:]
    layers, rest = Layers(*others[: len(LAYERS)]), others[len(LAYERS) :]
    _Backward(builder, real, product, rows, layers, [x, grad, *rest]).member(member, activation)
    builder.ret_void()
    return builder.function


class _Rows(NamedTuple):
    """How many rows a member has: in the gradient, on the tape and in the input."""

    meant: ir.Value
    on_tape: ir.Value
    in_x: ir.Value


class _Backward:
    """The backward pass; all methods write behind what is there already."""

    def __init__(
        self,
        builder: ir.IRBuilder,
        real: ir.Type,
        product: ir.Function,
        rows: _Rows,
        layers: Layers,
        others: Sequence[ir.Value],
    ) -> None:
        self.builder, self.real, self.product, self.layers = builder, real, product, layers
        self.rows, self.on_tape, self.in_x = rows
        self.x, self.grad, self.of_leaves, self.of_x, self.scratch, self.room = others
        self.at = partial(_at, builder, real)
        self.current, self.total = builder.alloca(POINTER), builder.alloca(real)

    def member(self, member: ir.Value, activation: "Activation") -> None:
        """All layers of a member, the last first."""
        builder, layers, rows = self.builder, self.layers, self.rows
        first = builder.mul(member, rows)
        builder.store(self.grad, self.current)
        with loop(builder, layers.count) as index:
            layer = builder.sub(builder.sub(layers.count, INT(1)), index)
            inner, width = _widths(builder, layers, layer)
            size = builder.mul(rows, width)
            place = builder.mul(builder.mul(member, self.on_tape), width)
            with builder.if_then(builder.icmp_signed("<", layer, layers.activated)):
                kept = layers.before if activation.keeps_argument else layers.after
                operands = [builder.load(self.current, typ=POINTER), self.at(_address(builder, kept, layer), place)]
                _each(builder, self.real, size, operands, self.scratch, activation.backward)
                builder.store(self.scratch, self.current)
            grad = builder.load(self.current, typ=POINTER)
            self.leaves(member, layer, grad)
            lowest = builder.icmp_signed("==", layer, INT(0))
            here = builder.select(lowest, self.of_x, self.at(self.scratch, builder.mul(rows, self.widest())))
            with builder.if_then(builder.icmp_unsigned("!=", here, NULL)):
                into = builder.select(lowest, self.at(here, builder.mul(first, inner)), here)
                self.input(member, layer, grad, into)
                builder.store(into, self.current)

    def widest(self) -> ir.Value:
        """The width of the widest layer."""
        builder, layers = self.builder, self.layers
        return builder.load(builder.gep(layers.widths, [builder.add(layers.count, INT(1))], source_etype=INT), typ=INT)

    def leaves(self, member: ir.Value, layer: ir.Value, grad: ir.Value) -> None:
        """The gradients of a layer's weight and bias."""
        builder, layers, rows = self.builder, self.layers, self.rows
        inner, width = _widths(builder, layers, layer)
        lowest = builder.icmp_signed("==", layer, INT(0))
        below = builder.select(lowest, layer, builder.sub(layer, INT(1)))
        source = builder.select(lowest, self.x, _address(builder, layers.after, below))
        first = builder.mul(member, builder.select(lowest, self.in_x, self.on_tape))
        source = self.at(source, builder.mul(first, inner))
        of_weight = self.at(
            _address(builder, self.of_leaves, layer, 2, 0), builder.mul(member, builder.mul(inner, width))
        )
        of_bias = self.at(_address(builder, self.of_leaves, layer, 2, 1), builder.mul(member, width))
        with builder.if_else(builder.icmp_signed("<=", width, INT(NARROW))) as (few, many):
            with few:  # as many rows of the transposed product, which are long
                aside = self.at(self.scratch, builder.mul(INT(2), builder.mul(rows, self.widest())))
                factors = grad, INT(1), width, source, inner, INT(0)
                builder.call(self.product, [width, rows, inner, *factors, NULL, NULL, aside, self.room])
                with loop(builder, width) as column:
                    with loop(builder, inner) as k:
                        number = load(builder, self.real, aside, builder.add(builder.mul(column, inner), k))
                        store(builder, number, of_weight, builder.add(builder.mul(k, width), column))
                    builder.store(ir.Constant(self.real, 0.0), self.total)
                    with loop(builder, rows) as row:
                        number = load(builder, self.real, grad, builder.add(builder.mul(row, width), column))
                        builder.store(builder.fadd(builder.load(self.total, typ=self.real), number), self.total)
                    store(builder, builder.load(self.total, typ=self.real), of_bias, column)
            with many:
                factors = source, INT(1), inner, grad, width, INT(0)
                builder.call(self.product, [inner, rows, width, *factors, NULL, of_bias, of_weight, self.room])

    def input(self, member: ir.Value, layer: ir.Value, grad: ir.Value, into: ir.Value) -> None:
        """The gradient of a layer's input."""
        builder, (inner, width) = self.builder, _widths(self.builder, self.layers, layer)
        weight = _address(builder, self.layers.leaves, layer, 2, 0)
        weight = self.at(weight, builder.mul(member, builder.mul(inner, width)))
        factors = grad, width, INT(1), weight, width, INT(1)
        builder.call(self.product, [self.rows, width, inner, *factors, NULL, NULL, into, self.room])


def _each(
    builder: ir.IRBuilder,
    real: ir.Type,
    count: ir.Value,
    operands: Sequence[ir.Value],
    result: ir.Value,
    function: Callable[..., Any],
) -> None:
    """``result = function(*operands)`` for so many elements; a vector of them at a time, as far as they go."""
    lanes = register_bytes() // (4 if real == ir.FloatType() else 8)
    chunks = builder.sdiv(count, INT(lanes))
    whole = builder.mul(chunks, INT(lanes))
    for kind, first, times, step in (
        (ir.VectorType(real, lanes), INT(0), chunks, INT(lanes)),
        (real, whole, builder.sub(count, whole), INT(1)),
    ):
        with loop(builder, times) as index:
            place = builder.add(first, builder.mul(index, step))
            values = [TracedScalar(builder, load(builder, kind, operand, place)) for operand in operands]
            store(builder, function(*values).ir_value, result, place)


def _at(builder: ir.IRBuilder, real: ir.Type, base: ir.Value, index: ir.Value) -> ir.Value:
    """The address of a number."""
    return builder.gep(base, [index], source_etype=real)


def _address(builder: ir.IRBuilder, table: ir.Value, layer: ir.Value, stride: int = 1, which: int = 0) -> ir.Value:
    """An entry of a table of addresses."""
    place = builder.add(builder.mul(layer, INT(stride)), INT(which))
    return builder.load(builder.gep(table, [place], source_etype=POINTER), typ=POINTER)


def _widths(builder: ir.IRBuilder, layers: Layers, layer: ir.Value) -> tuple[ir.Value, ir.Value]:
    """What goes into a layer, and what comes out."""
    places = layer, builder.add(layer, INT(1))
    first, second = (builder.load(builder.gep(layers.widths, [k], source_etype=INT), typ=INT) for k in places)
    return first, second
