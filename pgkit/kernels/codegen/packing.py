"""The loops of :mod:`pgkit.kernels.packing`, written down for LLVM."""

from collections.abc import Callable

import torch
from llvmlite import ir

from pgkit.compiler.ir import INT, POINTER, function, load, loop, store
from pgkit.compiler.jit import compile_function
from pgkit.compiler.tracer import IR_TYPES
from pgkit.kernels.layout import ROW_MULTIPLE

BYTE = ir.IntType(8)


def compile_pack(real: torch.dtype) -> Callable[..., None]:
    """``pack(P, T, N, D, B, valid, whole, rows, known, sizes, is_sample, seen)``, see
    :class:`pgkit.kernels.packing.Packing`.

    ``valid`` is bool ``(P, T, N)``; ``rows`` are 0.
    """
    kinds = [INT] * 5 + [POINTER] * 7
    builder, arguments = function(ir.Module(), "pack", kinds, alias=True)
    members, steps, count, features, most, valid, whole, rows, known, sizes, is_sample, seen = arguments
    found, length = builder.alloca(INT), builder.alloca(INT)
    places = builder.mul(steps, count)
    with loop(builder, members) as member:
        own_valid = builder.gep(valid, [builder.mul(member, places)], source_etype=BYTE)
        own_rows = builder.gep(rows, [builder.mul(member, builder.add(most, count))], source_etype=INT)

        def is_valid(place: ir.Value, base: ir.Value = own_valid) -> ir.Value:
            return builder.zext(builder.load(builder.gep(base, [place], source_etype=BYTE), typ=BYTE), INT)

        builder.store(INT(0), found)
        with loop(builder, places) as place:  # the last one written is none, unless the next one is
            rank = builder.load(found, typ=INT)
            store(builder, place, own_rows, rank)
            builder.store(builder.add(rank, is_valid(place)), found)
        samples = builder.load(found, typ=INT)
        with loop(builder, count) as environment:
            builder.store(INT(0), length)
            with loop(builder, steps) as step:
                flag = is_valid(builder.add(builder.mul(step, count), environment))
                builder.store(builder.add(builder.load(length, typ=INT), flag), length)
            behind = builder.add(builder.mul(builder.load(length, typ=INT), count), environment)
            store(builder, behind, own_rows, builder.add(samples, environment))
        blocks = builder.udiv(builder.add(samples, INT(ROW_MULTIPLE - 1)), INT(ROW_MULTIPLE))
        size, all_known = builder.mul(blocks, INT(ROW_MULTIPLE)), builder.add(samples, count)
        store(builder, size, sizes, member)
        store(builder, all_known, known, member)
        with loop(builder, most) as row:
            flag = builder.zext(builder.icmp_signed("<", row, samples), BYTE)
            here = builder.add(builder.mul(member, most), row)
            builder.store(flag, builder.gep(is_sample, [here], source_etype=BYTE))
        read = builder.select(builder.icmp_signed(">", size, all_known), size, all_known)
        with loop(builder, read) as row:
            there = builder.add(builder.mul(member, builder.add(places, count)), load(builder, INT, own_rows, row))
            here = builder.add(builder.mul(member, builder.add(most, count)), row)
            with loop(builder, features) as feature:
                number = load(builder, IR_TYPES[real], whole, builder.add(builder.mul(there, features), feature))
                store(builder, number, seen, builder.add(builder.mul(here, features), feature))
    builder.ret_void()
    return compile_function(builder.function)


def compile_gather(dtype: torch.dtype) -> Callable[..., None]:
    """``gather(P, S, R, B, rows, sizes, source, target)``: ``sizes`` places of ``(P, S)``, as ``(P, B)``."""
    kind = BYTE if dtype == torch.bool else IR_TYPES[dtype]
    builder, arguments = function(ir.Module(), "gather", [INT] * 4 + [POINTER] * 4, alias=True)
    members, size, stride, most, rows, sizes, source, target = arguments
    with loop(builder, members) as member, loop(builder, load(builder, INT, sizes, member)) as row:
        place = load(builder, INT, rows, builder.add(builder.mul(member, stride), row))
        there = builder.gep(source, [builder.add(builder.mul(member, size), place)], source_etype=kind)
        here = builder.gep(target, [builder.add(builder.mul(member, most), row)], source_etype=kind)
        builder.store(builder.load(there, typ=kind), here)
    builder.ret_void()
    return compile_function(builder.function)


def compile_scatter(dtype: torch.dtype) -> Callable[..., None]:
    """``scatter(P, S, R, rows, known, source, target)``: the first ``known`` of ``(P, R)``, in ``(P, S)``."""
    kind = IR_TYPES[dtype]
    builder, arguments = function(ir.Module(), "scatter", [INT] * 3 + [POINTER] * 4, alias=True)
    members, size, stride, rows, known, source, target = arguments
    with loop(builder, members) as member, loop(builder, load(builder, INT, known, member)) as row:
        here = builder.add(builder.mul(member, stride), row)
        place = builder.add(builder.mul(member, size), load(builder, INT, rows, here))
        store(builder, load(builder, kind, source, here), target, place)
    builder.ret_void()
    return compile_function(builder.function)
