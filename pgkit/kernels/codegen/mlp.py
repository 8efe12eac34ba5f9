"""Generate the code of :mod:`pgkit.kernels.mlp`: forward and backward passes through all layers of a network.

A pass computes one member after the other, not one layer after the other: what a layer writes is still in the cache
when the next layer reads it.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from llvmlite import ir

from pgkit.compiler import functions  # noqa: F401 # implements the functions of torch for traced scalars
from pgkit.compiler.elementwise import vector_loop
from pgkit.compiler.ir import (
    FLOAT_TYPES,
    INT,
    NULL,
    POINTER,
    Index,
    Variable,
    call,
    define_function,
    element_pointer,
    for_range,
    is_not_null,
    load,
    register_bytes,
    store,
)
from pgkit.compiler.jit import compile_function
from pgkit.compiler.tracer import TracedScalar
from pgkit.kernels.codegen.matmul import declare_matmul
from pgkit.kernels.layout import NARROW
from pgkit.kernels.signatures import Backward, Forward, Layers, MemberForward, MemberMatmul

if TYPE_CHECKING:
    from pgkit.kernels.activations import Activation


def compile_forward(activation: "Activation", dtype: torch.dtype) -> Callable[..., None]:
    """A kernel of :class:`Forward`."""
    module = ir.Module()
    real = FLOAT_TYPES[dtype]
    forward = define_member_forward(module, real, activation)
    builder, args = define_function(module, "forward", Forward, alias=True)
    rows_of = member_rows(builder, args.sizes, args.rows)
    width = table_entry(builder, args.layers.widths, 0, INT)
    with for_range(builder, args.members) as member:
        first_row = member * args.rows
        x = element_pointer(builder, args.x, real, first_row * width)
        call(builder, forward, MemberForward(member, rows_of(member), first_row, args.layers, x, args.workspace))
    builder.ret_void()
    return compile_function(builder.function)


def compile_backward(activation: "Activation", dtype: torch.dtype) -> Callable[..., None]:
    """A kernel of :class:`Backward`."""
    module = ir.Module()
    real = FLOAT_TYPES[dtype]
    backward = define_member_backward(module, real, activation)
    builder, args = define_function(module, "backward", Backward, alias=True)
    outputs = table_entry(builder, args.layers.widths, args.layers.count, INT)
    with for_range(builder, args.members) as member:
        grad = element_pointer(builder, args.grad, real, member * args.rows * outputs)
        call(builder, backward, args._replace(members=member, grad=grad))
    builder.ret_void()
    return compile_function(builder.function)


def member_rows(builder: ir.IRBuilder, sizes: ir.Value, rows: Index) -> Callable[[Index], Index]:
    """A function that gives the number of a member's rows: ``sizes[member]``, or ``rows`` if ``sizes`` is null.

    Where ``sizes`` is null, it loads from a variable instead, so that no branch is needed. Create it outside of loops.
    """
    all_rows = Variable(builder, INT)
    all_rows.set(rows)
    has_sizes = is_not_null(builder, sizes)

    def rows_of(member: Index) -> Index:
        size = element_pointer(builder, sizes, INT, member)
        return Index(builder, builder.load(builder.select(has_sizes, size, all_rows.address), typ=INT))

    return rows_of


def define_member_forward(module: ir.Module, real: ir.Type, activation: "Activation") -> ir.Function:
    """A private function of :class:`MemberForward` in a module."""
    matmul = declare_matmul(module, real)
    builder, args = define_function(module, "member_forward", MemberForward, alias=True, private=True)
    layers = args.layers
    source = Variable(builder, POINTER)
    source.set(args.x)
    with for_range(builder, layers.count) as layer:
        inner, width = _widths(builder, layers, layer)
        weight, bias = _leaves(builder, real, layers, layer, args.member)
        preactivation, result = (
            element_pointer(builder, table_entry(builder, table, layer), real, args.first_row * width)
            for table in (layers.preactivations, layers.results)
        )
        product = MemberMatmul(
            rows=args.rows,
            inner=inner,
            columns=width,
            a=source.get(),
            a_row_stride=inner,
            a_column_stride=1,
            b=weight,
            b_stride=width,
            b_transposed=0,
            bias=bias,
            sums=NULL,
            result=preactivation,
            workspace=args.workspace,
        )
        call(builder, matmul, product)
        with builder.if_then(layer < layers.activated):
            _elementwise(builder, real, args.rows * width, activation.plain, [preactivation], result)
        source.set(result)
    builder.ret_void()
    return builder.function


def define_member_backward(module: ir.Module, real: ir.Type, activation: "Activation") -> ir.Function:
    """A private function of :class:`Backward` in a module, for the member with the index ``members``.

    Its argument ``grad`` is the gradient of that member's own output; the other arguments are those for all members.
    """
    matmul = declare_matmul(module, real)
    builder, args = define_function(module, "member_backward", Backward, alias=True, private=True)
    member = args.members
    layers = args.layers
    # The gradient of a layer's preactivation stands in the first B * widest numbers of the scratch memory, that of its
    # input, which is the next layer's result, in the second; each is read before the next layer overwrites it.
    widest = table_entry(builder, layers.widths, layers.count + 1, INT)
    input_grad = element_pointer(builder, args.scratch, real, args.rows * widest)
    narrow_scratch = element_pointer(builder, args.scratch, real, args.rows * widest * 2)
    current = Variable(builder, POINTER)
    context = _Backward(builder, real, matmul, args, member, narrow_scratch, Variable(builder, real))
    current.set(args.grad)
    with for_range(builder, layers.count) as index:
        layer = layers.count - 1 - index
        inner, width = _widths(builder, layers, layer)
        with builder.if_then(layer < layers.activated):
            table = layers.preactivations if activation.keeps_argument else layers.results
            first = member * args.output_rows * width
            stored = element_pointer(builder, table_entry(builder, table, layer), real, first)
            _elementwise(builder, real, args.rows * width, activation.backward, [current.get(), stored], args.scratch)
            current.set(args.scratch)
        grad = current.get()
        _write_leaf_grads(context, layer, grad)
        is_first = layer.compare("==", 0)
        target = builder.select(is_first, args.x_grad, input_grad)
        with builder.if_then(is_not_null(builder, target)):
            x_grad = element_pointer(builder, target, real, member * args.rows * inner)
            target = builder.select(is_first, x_grad, target)
            _write_input_grad(context, layer, grad, target)
            current.set(target)
    builder.ret_void()
    return builder.function


class _Backward(NamedTuple):
    """What the parts of a backward pass need.

    Attributes:
        builder: of the function.
        real: the type of the numbers.
        matmul: a function of :class:`MemberMatmul`.
        args: of the function.
        member: the index of the member.
        narrow_scratch: where the transposed gradient of a narrow weight is computed.
        total: a variable for sums.
    """

    builder: ir.IRBuilder
    real: ir.Type
    matmul: ir.Function
    args: Backward
    member: Index
    narrow_scratch: ir.Value
    total: Variable


def _write_leaf_grads(context: _Backward, layer: Index, grad: ir.Value) -> None:
    """The gradients of a layer's weight ``input.mT @ grad`` and bias (the sum of ``grad`` over rows)."""
    builder = context.builder
    real = context.real
    args = context.args
    layers = context.args.layers
    inner, width = _widths(builder, layers, layer)
    is_first = layer.compare("==", 0)
    below = layer.where(is_first, layer - 1)
    layer_input = builder.select(is_first, args.x, table_entry(builder, layers.results, below))
    first_row = context.member * args.x_rows.where(is_first, args.output_rows)
    layer_input = element_pointer(builder, layer_input, real, first_row * inner)
    weight_grad = element_pointer(
        builder, table_entry(builder, args.leaf_grads, layer * 2), real, context.member * (inner * width)
    )
    bias_grad = element_pointer(
        builder, table_entry(builder, args.leaf_grads, layer * 2 + 1), real, context.member * width
    )
    product = MemberMatmul(
        rows=inner,
        inner=args.rows,
        columns=width,
        a=layer_input,
        a_row_stride=1,
        a_column_stride=inner,
        b=grad,
        b_stride=width,
        b_transposed=0,
        bias=NULL,
        sums=bias_grad,
        result=weight_grad,
        workspace=args.workspace,
    )
    with builder.if_else(width <= NARROW) as (narrow, wide):
        with narrow:
            _write_narrow_leaf_grads(context, product)
        with wide:
            call(builder, context.matmul, product)


def _write_narrow_leaf_grads(context: _Backward, product: MemberMatmul) -> None:
    """The same for a layer of few outputs, by the transposed product ``grad.mT @ input``.

    Its rows are as long as the layer's input is wide and fill registers; the result is then transposed number by
    number.
    """
    builder = context.builder
    real = context.real
    inner = product.rows
    rows = product.inner
    width = product.columns
    transposed = product._replace(
        rows=width,
        columns=inner,
        a=product.b,
        a_column_stride=width,
        b=product.a,
        b_stride=inner,
        sums=NULL,
        result=context.narrow_scratch,
    )
    call(builder, context.matmul, transposed)
    with for_range(builder, width) as column:
        with for_range(builder, inner) as k:
            number = load(builder, real, context.narrow_scratch, column * inner + k)
            store(builder, number, product.result, k * width + column)
        context.total.set(real(0.0))
        with for_range(builder, rows) as row:
            number = load(builder, real, product.b, row * width + column)
            context.total.set(builder.fadd(context.total.get(), number))
        store(builder, context.total.get(), product.sums, column)


def _write_input_grad(context: _Backward, layer: Index, grad: ir.Value, target: ir.Value) -> None:
    """The gradient of a layer's input, ``grad @ weight.mT``."""
    builder = context.builder
    args = context.args
    inner, width = _widths(builder, args.layers, layer)
    weight, _ = _leaves(builder, context.real, args.layers, layer, context.member)
    product = MemberMatmul(
        rows=args.rows,
        inner=width,
        columns=inner,
        a=grad,
        a_row_stride=width,
        a_column_stride=1,
        b=weight,
        b_stride=width,
        b_transposed=1,
        bias=NULL,
        sums=NULL,
        result=target,
        workspace=args.workspace,
    )
    call(builder, context.matmul, product)


def _elementwise(
    builder: ir.IRBuilder,
    real: ir.Type,
    count: Index,
    function: Callable[..., Any],
    operands: Sequence[ir.Value],
    result: ir.Value,
) -> None:
    """``result = function(*operands)`` for ``count`` contiguous numbers, a register at a time as far as they go."""

    def body(first: Index, width: int) -> None:
        number = real if width == 1 else ir.VectorType(real, width)
        values = [TracedScalar(builder, load(builder, number, operand, first)) for operand in operands]
        store(builder, function(*values), result, first)

    vector_loop(builder, count, body, register_bytes() // (4 if real == ir.FloatType() else 8))


def table_entry(builder: ir.IRBuilder, table: ir.Value, index: Any, ir_type: ir.Type = POINTER) -> Any:
    """Entry ``index`` of a table of addresses, or with ``INT`` of integers."""
    entry = builder.load(element_pointer(builder, table, ir_type, index), typ=ir_type)
    return Index(builder, entry) if ir_type == INT else entry


def _widths(builder: ir.IRBuilder, layers: Layers, layer: Index) -> tuple[Index, Index]:
    """The widths of a layer's input and output."""
    return table_entry(builder, layers.widths, layer, INT), table_entry(builder, layers.widths, layer + 1, INT)


def _leaves(
    builder: ir.IRBuilder, real: ir.Type, layers: Layers, layer: Index, member: Index
) -> tuple[ir.Value, ir.Value]:
    """The addresses of a member's weight and bias of a layer."""
    inner, width = _widths(builder, layers, layer)
    weights = table_entry(builder, layers.leaves, layer * 2)
    biases = table_entry(builder, layers.leaves, layer * 2 + 1)
    weight = element_pointer(builder, weights, real, member * (inner * width))
    return weight, element_pointer(builder, biases, real, member * width)
