"""Generate the code of :func:`pgkit.kernels.scan.scan`."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from llvmlite import ir

from pgkit.compiler.elementwise import VECTOR_WIDTH, Column, ColumnType, element_address, vector_loop
from pgkit.compiler.ir import Index, Variable, define_function, for_range
from pgkit.compiler.jit import compile_function
from pgkit.compiler.tracer import IR_TYPES, TracedScalar
from pgkit.kernels.signatures import Scan

Step = Callable[..., Sequence[Any]]


def compile_scan(
    step: Step,
    carried: Sequence[torch.dtype],
    inputs: Sequence[ColumnType],
    outputs: Sequence[torch.dtype],
    reverse: bool,
) -> Callable[..., None]:
    """A kernel of :class:`Scan`.

    Args:
        step: ``step(*carried, *inputs) -> [*carried, *outputs]`` of one environment.
        carried: the dtypes of what is carried.
        inputs: the dtype of each input and its stride along N: 1, or 0 for one number for all environments.
        outputs: the dtypes of the outputs.
        reverse: begin with the last time.
    """
    array_types = [*inputs, *((dtype, 1) for dtype in outputs)]
    lengths = {"carried": len(carried), "arrays": len(array_types)}
    builder, args = define_function(ir.Module(), "scan", Scan, lengths, alias=True)
    variables = {
        width: [Variable(builder, _vector_type(dtype, width)) for dtype in carried] for width in (VECTOR_WIDTH, 1)
    }

    # All times of some environments, then the next environments: what is carried stays in registers between times.
    def all_times(member: Index, env: Index, width: int) -> None:
        columns = _carried_columns(builder, args, carried, member)
        for column, variable in zip(columns, variables[width], strict=True):
            variable.set(column.read(builder, env, width))
        with for_range(builder, args.steps) as index:
            time = args.steps - 1 - index if reverse else index
            arrays = _columns_at(builder, args, array_types, time, member)
            state = [TracedScalar(builder, variable.get()) for variable in variables[width]]
            results = step(*state, *(column.read(builder, env, width) for column in arrays[: len(inputs)]))
            for variable, value in zip(variables[width], results, strict=False):
                variable.set(value)
            for column, value in zip(arrays[len(inputs) :], results[len(carried) :], strict=True):
                column.write(value, env, width)
        for column, variable in zip(columns, variables[width], strict=True):
            column.write(TracedScalar(builder, variable.get()), env, width)

    with for_range(builder, args.members) as member:
        vector_loop(builder, args.count, lambda env, width: all_times(member, env, width))
    builder.ret_void()
    return compile_function(builder.function)


def _carried_columns(builder: ir.IRBuilder, args: Scan, dtypes: Sequence[torch.dtype], member: Index) -> list[Column]:
    """What is carried in a member's environments, in memory."""
    types = [IR_TYPES[dtype] for dtype in dtypes]
    first = member * args.count
    return [
        Column(element_address(builder, base, element, first), element)
        for base, element in zip(args.carried, types, strict=True)
    ]


def _columns_at(
    builder: ir.IRBuilder, args: Scan, types: Sequence[ColumnType], time: Index, member: Index
) -> list[Column]:
    """The inputs and outputs of a member's environments at one time."""
    columns = []
    for array, (dtype, stride) in zip(args.arrays, types, strict=True):
        first = time * array.time_stride + member * array.member_stride
        columns.append(Column(element_address(builder, array.base, IR_TYPES[dtype], first), IR_TYPES[dtype], stride))
    return columns


def _vector_type(dtype: torch.dtype, width: int) -> ir.Type:
    return IR_TYPES[dtype] if width == 1 else ir.VectorType(IR_TYPES[dtype], width)
