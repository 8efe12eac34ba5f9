"""Generate the code of :mod:`pgkit.kernels.shuffle`."""

from collections.abc import Callable, Sequence

import torch
from llvmlite import ir

from pgkit.compiler.elementwise import element_address
from pgkit.compiler.ir import BYTE, INT, Index, Variable, define_function, element_pointer, for_range, load, store
from pgkit.compiler.jit import compile_function
from pgkit.compiler.statements import endless_loop
from pgkit.compiler.tracer import IR_TYPES, TracedScalar
from pgkit.kernels.row_signatures import Shuffle, TakeRows
from pgkit.kernels.shuffle import INDEX_BITS
from pgkit.seeding import sort_key

_RANDOM_BITS = 31
"""Random bits of a sort key, which stand above the index."""


def compile_shuffle() -> Callable[..., None]:
    """A kernel of :class:`Shuffle`.

    Random numbers are spread evenly, so it takes a time proportional to B to sort them: each goes to the one of B
    buckets that its size says, and what is in disorder then is in disorder within a bucket, of one number on average.
    """
    builder, args = define_function(ir.Module(), "shuffle", Shuffle, alias=True)
    place = Variable(builder, INT)
    numbers = args.scratch
    starts = element_pointer(builder, args.scratch, INT, args.samples)
    with for_range(builder, args.members) as member, for_range(builder, args.epochs) as epoch:
        order = element_pointer(builder, args.order, INT, (member * args.epochs + epoch) * args.samples)
        _write_sort_keys(builder, args, member, epoch, numbers)
        _sort_by_buckets(builder, args, (numbers, starts), order)
        _insertion_sort(builder, args.samples, order, place)
        with for_range(builder, args.samples) as row:
            index = builder.and_(load(builder, INT, order, row), INT((1 << INDEX_BITS) - 1))
            store(builder, index, order, row)
    builder.ret_void()
    return compile_function(builder.function)


def _write_sort_keys(builder: ir.IRBuilder, args: Shuffle, member: Index, epoch: Index, numbers: ir.Value) -> None:
    key = TracedScalar(builder, load(builder, INT, args.keys, member))
    counter = Index(builder, load(builder, INT, args.counters, member))
    first = counter * args.epochs + epoch * (1 << INDEX_BITS)
    with for_range(builder, args.samples) as row:
        position = TracedScalar(builder, (first + row).ir_value)
        index = TracedScalar(builder, row.ir_value)
        number: TracedScalar = sort_key(key, position, index)  # type: ignore[arg-type, assignment] # traced
        store(builder, number, numbers, row)


def _sort_by_buckets(builder: ir.IRBuilder, args: Shuffle, memory: tuple[ir.Value, ir.Value], order: ir.Value) -> None:
    """Write the numbers to ``order``, those of a bucket one behind the other, and buckets in order."""
    numbers, starts = memory

    def bucket(number: ir.Value) -> Index:
        random = Index(builder, builder.lshr(number, INT(INDEX_BITS)))
        return Index(builder, builder.lshr((random * args.samples).ir_value, INT(_RANDOM_BITS)))

    with for_range(builder, args.samples + 1) as row:
        store(builder, INT(0), starts, row)
    with for_range(builder, args.samples) as row:
        after = bucket(load(builder, INT, numbers, row)) + 1
        store(builder, Index(builder, load(builder, INT, starts, after)) + 1, starts, after)
    with for_range(builder, args.samples) as row:
        before = Index(builder, load(builder, INT, starts, row))
        store(builder, before + load(builder, INT, starts, row + 1), starts, row + 1)
    with for_range(builder, args.samples) as row:
        number = load(builder, INT, numbers, row)
        index = bucket(number)
        target = Index(builder, load(builder, INT, starts, index))
        store(builder, number, order, target)
        store(builder, target + 1, starts, index)


def _insertion_sort(builder: ir.IRBuilder, count: Index, numbers: ir.Value, place: Variable) -> None:
    with for_range(builder, count) as row:
        number = load(builder, INT, numbers, row)
        place.set(row)
        with endless_loop(builder) as loop:
            at = Index(builder, place.get())
            loop.leave_if(at <= 0)
            before = load(builder, INT, numbers, at - 1)
            loop.leave_if(builder.icmp_signed("<", before, number))
            store(builder, before, numbers, at)
            place.set(at - 1)
        store(builder, number, numbers, place.get())


def compile_take_rows(types: Sequence[tuple[torch.dtype, int]]) -> Callable[..., None]:
    """A kernel of :class:`TakeRows`, for columns of these dtypes, with so many numbers of each sample."""
    builder, args = define_function(ir.Module(), "take_rows", TakeRows, {"columns": len(types)}, alias=True)
    first = Index(builder, load(builder, INT, args.number, 0)) * args.rows
    with for_range(builder, args.members) as member, for_range(builder, args.rows) as row:
        index = load(builder, INT, args.order, member * args.order_rows + first + row)
        sample = member * args.samples + index
        target = member * args.rows + row
        for column, (dtype, width) in zip(args.columns, types, strict=True):
            element = BYTE if dtype == torch.bool else IR_TYPES[dtype]
            source_row = element_address(builder, column.source, IR_TYPES[dtype], sample * width)
            target_row = element_address(builder, column.target, IR_TYPES[dtype], target * width)
            with for_range(builder, width) as number:
                store(builder, load(builder, element, source_row, number), target_row, number)
    builder.ret_void()
    return compile_function(builder.function)
