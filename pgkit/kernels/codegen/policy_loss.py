"""The losses of a categorical policy and its critic, and their gradient through all layers, written down for LLVM."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from llvmlite import ir

from pgkit.compiler.elementwise import VECTOR_WIDTH, Column, element_address, elementwise_loop, vector_loop
from pgkit.compiler.ir import FLOAT_TYPES, INT, POINTER, function, lane_sum, load, loop, store
from pgkit.compiler.jit import compile_function
from pgkit.compiler.tracer import IR_TYPES, TracedScalar
from pgkit.kernels.categorical import gradients, terms
from pgkit.kernels.codegen.mlp import LAYERS, backward_function, own_rows

if TYPE_CHECKING:
    from pgkit.kernels.activations import Activation

SAMPLES = [POINTER, INT, POINTER, INT, *[POINTER] * 4]
"""The types of ``samples``: address of outputs ``(P, R, L)``, R; of values ``(P, R)``, their R; of actions, advantages,
targets and what is valid, ``(P, B)``. The first B of R rows are meant."""

MEANS = 4
"""What is kept of each member: the three means, and of how many samples they are, at least 1."""


def compile_means(choices: int, dtype: torch.dtype) -> Callable[..., None]:
    """``means(P, B, sizes, *samples, means)``: policy loss, value loss, entropy and number of samples, ``(4, P)``."""
    module, real = ir.Module(), FLOAT_TYPES[dtype]
    own_kinds = [INT, INT, POINTER, *SAMPLES, POINTER]
    builder, (members, rows, sizes, *samples, means) = function(module, "means", own_kinds, alias=True)
    rows_of = own_rows(builder, sizes, rows)
    kinds = {1: real, VECTOR_WIDTH: ir.VectorType(real, VECTOR_WIDTH)}
    rooms = {lanes: [builder.alloca(kind) for _ in range(MEANS)] for lanes, kind in kinds.items()}
    with loop(builder, members) as member:
        columns = _columns(builder, member, rows, samples, choices, real)
        for lanes, kind in kinds.items():
            for room in rooms[lanes]:
                builder.store(ir.Constant(kind, None), room)

        def add(row: ir.Value, lanes: int) -> None:
            numbers = [column.read(builder, row, lanes) for column in columns]
            added = [*terms(numbers[:choices], *numbers[choices:]), numbers[-1].to(dtype)]
            for room, term in zip(rooms[lanes], added, strict=True):
                builder.store(builder.fadd(builder.load(room, typ=kinds[lanes]), term.ir_value), room)

        vector_loop(builder, rows_of(member), add)
        rest, many = ([builder.load(room, typ=kind) for room in rooms[lanes]] for lanes, kind in kinds.items())
        sums = [TracedScalar(builder, builder.fadd(lane_sum(builder, a), b)) for a, b in zip(many, rest, strict=True)]
        count = torch.clamp(sums[-1], min=1.0)  # type: ignore[call-overload] # of one element
        for place, number in enumerate([-(sums[0] / count), sums[1] / count, sums[2] / count, count]):
            store(builder, number.ir_value, means, builder.add(builder.mul(members, INT(place)), member))
    builder.ret_void()
    return compile_function(builder.function)


def compile_gradients(activation: "Activation", choices: int, networks: int, dtype: torch.dtype) -> Callable[..., None]:
    """``gradients(P, B, sizes, *samples, grads, means, x, x_rows, scratch, room, *networks)``, of one network or two.

    ``grads`` are those of the three means, ``(3, P)``; ``x`` is what the networks see, ``x_rows`` of a member.
    Of each network, policy and maybe critic: :class:`pgkit.kernels.codegen.mlp.Layers`, 2 L addresses where the
    gradients of
    its leaves go, and the address where that of ``x`` goes, or null, as it is where members have ``sizes``, see
    :func:`own_rows`. ``scratch`` holds ``B (L + 1)`` numbers, and what a backward pass needs.
    """
    module, real = ir.Module(), FLOAT_TYPES[dtype]
    backward = backward_function(module, real, activation)
    kinds, of_network = [INT, INT, POINTER, *SAMPLES, *[POINTER] * 3, INT, *[POINTER] * 2], [*LAYERS, *[POINTER] * 2]
    builder, arguments = function(module, "gradients", [*kinds, *of_network * networks], alias=True)
    members, rows, sizes, *samples = arguments[: 3 + len(SAMPLES)]
    grads, means, x, x_rows, scratch, room = arguments[3 + len(SAMPLES) : len(kinds)]
    rows_of = own_rows(builder, sizes, rows)
    of_value = element_address(builder, scratch, real, builder.mul(rows, INT(choices)))
    free = element_address(builder, of_value, real, rows)
    results = [Column(element_address(builder, scratch, real, INT(k)), real, choices) for k in range(choices)]
    results += [Column(of_value, real)] * (networks - 1)
    with loop(builder, members) as member:
        columns = _columns(builder, member, rows, samples, choices, real)
        count = load(builder, real, means, builder.add(builder.mul(members, INT(MEANS - 1)), member))
        places = [builder.add(builder.mul(members, INT(k)), member) for k in range(MEANS - 1)]
        weights = [builder.fdiv(load(builder, real, grads, place), count) for place in places]

        def of_sample(
            row: TracedScalar, *numbers: TracedScalar, weights: Sequence[ir.Value] = weights
        ) -> list[TracedScalar]:
            found = gradients(numbers[:choices], *numbers[choices:], *map(row.splat, weights))
            return found[: len(results)]

        elementwise_loop(builder, rows_of(member), columns, results, of_sample)
        for network, (grad, tape_rows) in enumerate([(scratch, samples[1]), (of_value, samples[3])][:networks]):
            *layers, of_leaves, of_x = arguments[len(kinds) + network * len(of_network) :][: len(of_network)]
            own = [member, rows_of(member), tape_rows, x_rows, x, grad, *layers, of_leaves, of_x, free, room]
            builder.call(backward, own)
    builder.ret_void()
    return compile_function(builder.function)


def _columns(
    builder: ir.IRBuilder,
    member: ir.Value,
    rows: ir.Value,
    samples: Sequence[ir.Value],
    choices: int,
    real: ir.Type,
) -> list[Column]:
    """The numbers of a member's samples."""
    outputs, outputs_rows, value, value_rows, *others = samples

    def first(base: ir.Value, kind: ir.Type, count: ir.Value) -> ir.Value:
        return element_address(builder, base, kind, builder.mul(member, count))

    own = first(outputs, real, builder.mul(outputs_rows, INT(choices)))
    columns = [Column(element_address(builder, own, real, INT(k)), real, choices) for k in range(choices)]
    columns.append(Column(first(value, real, value_rows), real))
    kinds = IR_TYPES[torch.int64], real, real, IR_TYPES[torch.bool]
    return columns + [Column(first(base, kind, rows), kind) for base, kind in zip(others, kinds, strict=True)]
