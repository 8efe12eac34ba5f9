"""Recursions over time, written down for LLVM."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from llvmlite import ir

from pgkit.compiler.elementwise import VECTOR_WIDTH, Column, ColumnType, element_address, vector_loop
from pgkit.compiler.ir import INT, POINTER, function, loop
from pgkit.compiler.jit import compile_function
from pgkit.compiler.tracer import IR_TYPES, TracedScalar


def compile_scan(
    step: Callable[..., Sequence[Any]],
    carried: Sequence[torch.dtype],
    inputs: Sequence[ColumnType],
    outputs: Sequence[torch.dtype],
    reverse: bool,
) -> Callable[..., None]:
    """``scan(T, P, N, *carried, *inputs, *outputs)``, see :func:`pgkit.kernels.scan.scan`.

    Of what is carried, addresses of ``(P, N)``; of each input and output, the address of ``(T, P, N)`` and its strides
    along T and P in numbers. That of an input along N is known here: 1, or 0 of one number for all environments.
    """
    module = ir.Module()
    kinds = [INT, INT, INT, *[POINTER] * len(carried), *[POINTER, INT, INT] * (len(inputs) + len(outputs))]
    builder, (steps, members, count, *others) = function(module, "scan", kinds, alias=True)
    states, others = list(zip(others, carried, strict=False)), others[len(carried) :]
    memories = [*inputs, *((dtype, 1) for dtype in outputs)]
    arrays = [(*others[3 * k : 3 * k + 3], *memory) for k, memory in enumerate(memories)]
    rooms = {lanes: [builder.alloca(_shape(dtype, lanes)) for dtype in carried] for lanes in (1, VECTOR_WIDTH)}

    def rows_of(member: ir.Value, row: ir.Value, lanes: int) -> None:
        kept = [
            Column(element_address(builder, base, IR_TYPES[dtype], builder.mul(member, count)), IR_TYPES[dtype])
            for base, dtype in states
        ]
        for column, room in zip(kept, rooms[lanes], strict=True):
            builder.store(column.read(builder, row, lanes).ir_value, room)
        with loop(builder, steps) as index:
            time = builder.sub(builder.sub(steps, INT(1)), index) if reverse else index
            columns = []
            for base, along, across, dtype, stride in arrays:
                place = builder.add(builder.mul(time, along), builder.mul(member, across))
                columns.append(Column(element_address(builder, base, IR_TYPES[dtype], place), IR_TYPES[dtype], stride))
            now = [
                TracedScalar(builder, builder.load(room, typ=_shape(dtype, lanes)))
                for room, dtype in zip(rooms[lanes], carried, strict=True)
            ]
            results = step(*now, *(column.read(builder, row, lanes) for column in columns[: len(inputs)]))
            for room, value in zip(rooms[lanes], results, strict=False):
                builder.store(value.ir_value, room)
            for column, value in zip(columns[len(inputs) :], results[len(carried) :], strict=True):
                column.write(value, row, lanes)
        for column, room, dtype in zip(kept, rooms[lanes], carried, strict=True):
            column.write(TracedScalar(builder, builder.load(room, typ=_shape(dtype, lanes))), row, lanes)

    with loop(builder, members) as member:
        vector_loop(builder, count, lambda row, lanes: rows_of(member, row, lanes))
    builder.ret_void()
    return compile_function(builder.function)


def _shape(dtype: torch.dtype, lanes: int) -> ir.Type:
    return IR_TYPES[dtype] if lanes == 1 else ir.VectorType(IR_TYPES[dtype], lanes)
