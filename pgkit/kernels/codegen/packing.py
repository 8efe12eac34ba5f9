"""Generate the code of :mod:`pgkit.kernels.packing`."""

from collections.abc import Callable

import torch
from llvmlite import ir

from pgkit.compiler.ir import BYTE, INT, Index, Variable, define_function, element_pointer, for_range, load, store
from pgkit.compiler.jit import compile_function
from pgkit.compiler.tracer import IR_TYPES
from pgkit.kernels.layout import ROW_MULTIPLE
from pgkit.kernels.row_signatures import Gather, Pack, Scatter


def compile_pack(dtype: torch.dtype) -> Callable[..., None]:
    """A kernel of :class:`Pack`."""
    builder, args = define_function(ir.Module(), "pack", Pack, alias=True)
    counter = Variable(builder, INT)
    with for_range(builder, args.members) as member:
        valid = element_pointer(builder, args.valid, BYTE, member * (args.steps * args.count))
        indices = element_pointer(builder, args.indices, INT, member * (args.max_rows + args.count))
        samples = _write_sample_indices(builder, args, counter, valid, indices)
        _write_last_indices(builder, args, counter, samples, (valid, indices))
        size = (samples + (ROW_MULTIPLE - 1)) // ROW_MULTIPLE * ROW_MULTIPLE
        length = samples + args.count
        store(builder, size, args.sizes, member)
        store(builder, length, args.lengths, member)
        with for_range(builder, args.max_rows) as row:
            flag = builder.zext(row < samples, BYTE)
            store(builder, flag, args.is_sample, member * args.max_rows + row)
        with for_range(builder, size.where(size > length, length)) as row:
            index = Index(builder, load(builder, INT, indices, row))
            source = member * (args.steps * args.count + args.count) + index
            target = member * (args.max_rows + args.count) + row
            with for_range(builder, args.features) as feature:
                number = load(builder, IR_TYPES[dtype], args.all_obs, source * args.features + feature)
                store(builder, number, args.packed_obs, target * args.features + feature)
    builder.ret_void()
    return compile_function(builder.function)


def _write_sample_indices(
    builder: ir.IRBuilder, args: Pack, counter: Variable, valid: ir.Value, indices: ir.Value
) -> Index:
    """Write the positions of a member's samples, in order; returns how many there are.

    Every position is written to the next free row, and the row is kept only if the position is a sample. So the loop
    has no branch; the index behind the last sample is overwritten afterwards.
    """
    counter.set(0)
    with for_range(builder, args.steps * args.count) as position:
        row = Index(builder, counter.get())
        store(builder, position, indices, row)
        counter.set(row + _flag(builder, valid, position))
    return Index(builder, counter.get())


def _write_last_indices(
    builder: ir.IRBuilder, args: Pack, counter: Variable, samples: Index, memory: tuple[ir.Value, ir.Value]
) -> None:
    """Behind the samples, write for each environment the position of the observation after its last sample."""
    valid, indices = memory
    with for_range(builder, args.count) as env:
        counter.set(0)
        with for_range(builder, args.steps) as step:
            counter.set(Index(builder, counter.get()) + _flag(builder, valid, step * args.count + env))
        length = Index(builder, counter.get())
        store(builder, length * args.count + env, indices, samples + env)


def _flag(builder: ir.IRBuilder, flags: ir.Value, index: Index) -> Index:
    """A boolean of a tensor as 0 or 1."""
    return Index(builder, builder.zext(load(builder, BYTE, flags, index), INT))


def compile_gather(dtype: torch.dtype, width: int) -> Callable[..., None]:
    """A kernel of :class:`Gather`, for samples of ``width`` numbers."""
    element = BYTE if dtype == torch.bool else IR_TYPES[dtype]
    builder, args = define_function(ir.Module(), "gather", Gather, alias=True)
    with (
        for_range(builder, args.members) as member,
        for_range(builder, load(builder, INT, args.sizes, member)) as row,
    ):
        index = Index(builder, load(builder, INT, args.indices, member * args.index_rows + row))
        source = (member * args.samples_per_member + index) * width
        target = (member * args.max_rows + row) * width
        with for_range(builder, width) as place:
            number = load(builder, element, args.samples, source + place)
            store(builder, number, args.packed, target + place)
    builder.ret_void()
    return compile_function(builder.function)


def compile_scatter(dtype: torch.dtype) -> Callable[..., None]:
    """A kernel of :class:`Scatter`."""
    element = IR_TYPES[dtype]
    builder, args = define_function(ir.Module(), "scatter", Scatter, alias=True)
    with (
        for_range(builder, args.members) as member,
        for_range(builder, load(builder, INT, args.lengths, member)) as row,
    ):
        source = member * args.index_rows + row
        index = Index(builder, load(builder, INT, args.indices, source))
        store(builder, load(builder, element, args.packed, source), args.unpacked, member * args.size + index)
    builder.ret_void()
    return compile_function(builder.function)
