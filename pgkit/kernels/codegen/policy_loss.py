"""Generate the code of :mod:`pgkit.nn.policy_loss`: the losses of a categorical policy and its critic, and their
gradients through all layers."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from llvmlite import ir

from pgkit.compiler.elementwise import VECTOR_WIDTH, Column, element_address, elementwise_loop, vector_loop
from pgkit.compiler.ir import (
    FLOAT_TYPES,
    Index,
    Variable,
    call,
    define_function,
    element_pointer,
    for_range,
    lane_sum,
    load,
    store,
)
from pgkit.compiler.jit import compile_function
from pgkit.compiler.tracer import IR_TYPES, TracedScalar
from pgkit.kernels.categorical import loss_gradients, loss_terms
from pgkit.kernels.codegen.mlp import define_member_backward, member_rows
from pgkit.kernels.signatures import Backward, LossGradients, LossMeans, NetworkGrads, Samples

if TYPE_CHECKING:
    from pgkit.kernels.activations import Activation

NUM_MEANS = 4
"""Rows of ``means``: policy loss, value loss, entropy, and the number of samples."""


def compile_means(choices: int, dtype: torch.dtype) -> Callable[..., None]:
    """A kernel of :class:`LossMeans`, for a distribution over ``choices`` actions."""
    real = FLOAT_TYPES[dtype]
    builder, args = define_function(ir.Module(), "means", LossMeans, alias=True)
    rows_of = member_rows(builder, args.sizes, args.rows)
    # Sums over samples: a vector of partial sums for vectors of samples, and scalars for the samples that are left.
    vector = ir.VectorType(real, VECTOR_WIDTH)
    sums = {
        width: [Variable(builder, number) for _ in range(NUM_MEANS)]
        for width, number in ((1, real), (VECTOR_WIDTH, vector))
    }
    with for_range(builder, args.members) as member:
        columns = _sample_columns(builder, args.samples, member, args.rows, choices, real)
        for variable in (*sums[1], *sums[VECTOR_WIDTH]):
            variable.set(ir.Constant(variable.ir_type, None))

        def add(row: Index, width: int) -> None:
            numbers = [column.read(builder, row, width) for column in columns]
            terms = [*loss_terms(numbers[:choices], *numbers[choices:]), numbers[-1].to(dtype)]
            for variable, term in zip(sums[width], terms, strict=True):
                variable.set(builder.fadd(variable.get(), term.ir_value))

        vector_loop(builder, rows_of(member), add)
        totals: list[Any] = [
            TracedScalar(builder, builder.fadd(lane_sum(builder, partial.get()), rest.get()))
            for partial, rest in zip(sums[VECTOR_WIDTH], sums[1], strict=True)
        ]
        count = torch.clamp(totals[-1], min=1.0)
        means = [-(totals[0] / count), totals[1] / count, totals[2] / count, count]
        for row, mean in enumerate(means):
            store(builder, mean, args.means, args.members * row + member)
    builder.ret_void()
    return compile_function(builder.function)


def compile_gradients(activation: "Activation", choices: int, networks: int, dtype: torch.dtype) -> Callable[..., None]:
    """A kernel of :class:`LossGradients`, for a policy (1 network) or a policy and a critic (2 networks).

    Each member's samples are turned into gradients of outputs and values, which go back through the layers at once.
    """
    module = ir.Module()
    real = FLOAT_TYPES[dtype]
    backward = define_member_backward(module, real, activation)
    builder, args = define_function(module, "gradients", LossGradients, {"networks": networks}, alias=True)
    rows_of = member_rows(builder, args.sizes, args.rows)
    # Scratch memory: gradients of outputs (B, choices), of values (B,), then what backward passes need.
    output_grad = args.scratch
    value_grad = element_pointer(builder, output_grad, real, args.rows * choices)
    scratch = element_pointer(builder, value_grad, real, args.rows)
    results = [Column(element_pointer(builder, output_grad, real, k), real, choices) for k in range(choices)]
    results += [Column(value_grad, real)] * (networks - 1)
    with for_range(builder, args.members) as member:
        columns = _sample_columns(builder, args.samples, member, args.rows, choices, real)
        count = load(builder, real, args.means, args.members * (NUM_MEANS - 1) + member)
        weights = [
            builder.fdiv(load(builder, real, args.grads, args.members * k + member), count)
            for k in range(NUM_MEANS - 1)
        ]

        def sample_gradients(row: TracedScalar, *numbers: TracedScalar) -> list[TracedScalar]:
            gradients = loss_gradients(numbers[:choices], *numbers[choices:], *map(row.splat, weights))
            return gradients[: len(results)]

        elementwise_loop(builder, rows_of(member), columns, results, sample_gradients)
        grads = (output_grad, args.samples.output_rows), (value_grad, args.samples.value_rows)
        for network, (grad, output_rows) in zip(args.networks, grads, strict=False):
            rows = rows_of(member)
            call(builder, backward, _backward_arguments(args, network, (member, rows, output_rows), grad, scratch))
    builder.ret_void()
    return compile_function(builder.function)


def _backward_arguments(
    args: LossGradients, network: NetworkGrads, counts: tuple[Index, Index, Index], grad: ir.Value, scratch: ir.Value
) -> Backward:
    """The backward pass of one member through one network."""
    member, rows, output_rows = counts
    return Backward(
        members=member,
        rows=rows,
        output_rows=output_rows,
        x_rows=args.x_rows,
        x=args.x,
        grad=grad,
        layers=network.layers,
        leaf_grads=network.leaf_grads,
        x_grad=network.x_grad,
        scratch=scratch,
        workspace=args.workspace,
    )


def _sample_columns(
    builder: ir.IRBuilder, samples: Samples, member: Index, rows: Index, choices: int, real: ir.Type
) -> list[Column]:
    """A member's samples: its outputs by choice, then value, action, advantage, target, valid."""
    outputs = element_pointer(builder, samples.outputs, real, member * (samples.output_rows * choices))
    columns = [Column(element_pointer(builder, outputs, real, k), real, choices) for k in range(choices)]
    columns.append(Column(element_pointer(builder, samples.value, real, member * samples.value_rows), real))
    for base, element in (
        (samples.action, IR_TYPES[torch.int64]),
        (samples.advantage, real),
        (samples.target, real),
        (samples.valid, IR_TYPES[torch.bool]),
    ):
        columns.append(Column(element_address(builder, base, element, member * rows), element))
    return columns
