"""Element-wise steps, compiled: one loop over memory for all of them, by LLVM.

A step is a function of tensors, written down for one element (:mod:`pgkit.compiler.tracer`); LLVM turns that into
vector code
for this processor.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from llvmlite import ir

from pgkit.compiler import functions  # noqa: F401 # teaches traced values the functions of torch
from pgkit.compiler.ir import FLOAT_TYPES, INT, POINTER, function, lane_sum, load, loop, store
from pgkit.compiler.jit import compile_function
from pgkit.compiler.tracer import TORCH_FUNCTIONS, TracedScalar
from pgkit.errors import PgkitError
from pgkit.optim.base import Leaf, Step

Kernel = Callable[..., None]
"""``kernel(L, P, sizes, fields, table)`` works on L leaves of P members in place.

``sizes`` are the elements of a member in each leaf, int64 ``(L,)``; ``fields`` the addresses of the F tensors of each
leaf, ``(L, F)``; ``table`` is the address of numbers per member.
"""

Fold = Callable[..., Any]
"""``fold(total, *fields) -> total`` with one more element added to the total."""

LANES = 32
"""A sum is made of so many, which are added up at the end: the same bits however many of them a register takes."""

_KINDS = [INT, INT, POINTER, POINTER, POINTER]


def compile_steps(
    steps: Sequence[Step], numbers: Sequence[Sequence[str]], slots: Sequence[str], dtype: torch.dtype, moves: bool
) -> Kernel:
    """The steps, one after the other, in one loop.

    The fields are gradient, parameter and slots. With ``moves`` the parameter is added to what the steps make of the
    gradient, and one more field is where the largest magnitude of each member's sums goes, ``(P,)``; NaN is largest.

    Args:
        steps: of transforms.
        numbers: for each step the names of its numbers, in the order of the table's rows.
        slots: the names of all slots, in the order of the fields.
        dtype: of all fields and of the table, one of ``FLOAT_TYPES``.
        moves: see above.

    Raises:
        PgkitError: a step does what cannot be written down.
    """
    module, real, count = ir.Module(), FLOAT_TYPES[dtype], 2 + len(slots)
    builder, members, size, table, own = _leaf(module, count + moves)
    fields, bits = own[:count], ir.IntType(32 if dtype == torch.float32 else 64)
    largest = builder.alloca(bits)
    with loop(builder, members) as member:
        rows = iter(range(sum(map(len, numbers))))
        columns = [
            {
                name: _read(builder, real, table, builder.add(builder.mul(members, INT(next(rows))), member))
                for name in own
            }
            for own in numbers
        ]
        first = builder.mul(member, size)
        builder.store(bits(0), largest)
        with loop(builder, size) as element:
            place = builder.add(first, element)
            before = [_read(builder, real, field, place) for field in fields]
            after = _after(steps, columns, slots, before)
            if moves:
                after[0] = after[0] + before[1]
                found, sofar = after[0].abs().bits().ir_value, builder.load(largest, typ=bits)  # in order, as integers
                builder.store(builder.select(builder.icmp_signed(">", found, sofar), found, sofar), largest)
            _write(builder, fields, place, before, after)
        if moves:
            store(builder, builder.bitcast(builder.load(largest, typ=bits), real), own[-1], member)
    builder.ret_void()
    return _kernel(module, len(own))


def compile_fold(fold: Fold, fields: int, dtype: torch.dtype) -> Kernel:
    """A pass over leaves that adds up something of each member: to the number that stands in its row of the table.

    Args:
        fold: of plain arithmetic.
        fields: how many tensors of each leaf it sees.
        dtype: of all of them and of the table, one of ``FLOAT_TYPES``.
    """
    module, real = ir.Module(), FLOAT_TYPES[dtype]
    lanes = ir.VectorType(real, LANES)
    builder, members, size, table, own = _leaf(module, fields)
    many, rest = builder.alloca(lanes), builder.alloca(real)
    chunks = builder.udiv(size, INT(LANES))
    whole = builder.mul(chunks, INT(LANES))

    def add(place: ir.Value, kind: ir.Type, total: ir.Value) -> None:
        before = [_read(builder, kind, field, place) for field in own]
        builder.store(fold(TracedScalar(builder, builder.load(total, typ=kind)), *before).ir_value, total)

    with loop(builder, members) as member:
        builder.store(ir.Constant(lanes, None), many)
        builder.store(ir.Constant(real, 0.0), rest)
        first = builder.mul(member, size)
        with loop(builder, chunks) as chunk:
            add(builder.add(first, builder.mul(chunk, INT(LANES))), lanes, many)
        with loop(builder, builder.sub(size, whole)) as element:
            add(builder.add(builder.add(first, whole), element), real, rest)
        total = builder.fadd(lane_sum(builder, builder.load(many, typ=lanes)), builder.load(rest, typ=real))
        store(builder, builder.fadd(load(builder, real, table, member), total), table, member)
    builder.ret_void()
    return _kernel(module, fields)


def _leaf(module: ir.Module, fields: int) -> tuple[ir.IRBuilder, ir.Value, ir.Value, ir.Value, Sequence[ir.Value]]:
    """The function ``leaf(P, size, table, *fields)``, which is to work on one leaf: its builder and arguments."""
    kinds = [INT, INT, *[POINTER] * (1 + fields)]
    builder, (members, size, table, *own) = function(module, "leaf", kinds, private=True)
    return builder, members, size, table, own


def _read(builder: ir.IRBuilder, kind: ir.Type, base: ir.Value, index: ir.Value) -> TracedScalar:
    return TracedScalar(builder, load(builder, kind, base, index))


def _write(
    builder: ir.IRBuilder,
    fields: Sequence[ir.Value],
    place: ir.Value,
    before: Sequence[TracedScalar],
    after: Sequence[TracedScalar | float],
) -> None:
    """Put what has changed back."""
    for field, old, new in zip(fields, before, after, strict=True):
        if new is not old:
            store(builder, old.operand(new), field, place)


def _after(
    steps: Sequence[Step],
    columns: Sequence[Mapping[str, TracedScalar]],
    slots: Sequence[str],
    before: Sequence[TracedScalar],
) -> list[TracedScalar]:
    """The fields of an element after all steps."""
    result: Any = before[0]
    leaf: Any = Leaf(before[1], dict(zip(slots, before[2:], strict=True)))  # type: ignore[arg-type] # they act as tensors
    for step, c in zip(steps, columns, strict=True):
        try:
            result = step(result, leaf, c)  # type: ignore[arg-type] # numbers, too
        except (AttributeError, TypeError) as error:
            raise PgkitError(
                f"a step of the chain cannot be compiled ({error}); it may use + - * / and comparisons, torch's "
                f"{', '.join(function.__name__ for function in TORCH_FUNCTIONS)}, and nothing in place; give any other "
                "Transform elementwise=False"
            ) from error
    return [result, before[1], *(leaf.state[name] for name in slots)]


def _kernel(module: ir.Module, fields: int) -> Kernel:
    """The kernel itself: ``leaf`` for each leaf."""
    builder, (leaves, members, sizes, addresses, table) = function(module, "walk", _KINDS)
    with loop(builder, leaves) as index:
        size = builder.load(builder.gep(sizes, [index], source_etype=INT), typ=INT)
        first = builder.gep(addresses, [builder.mul(index, INT(fields))], source_etype=POINTER)
        places = [builder.gep(first, [INT(field)], source_etype=POINTER) for field in range(fields)]
        pointers = [builder.load(place, typ=POINTER) for place in places]
        builder.call(module.get_global("leaf"), [members, size, table, *pointers])
    builder.ret_void()
    return compile_function(builder.function, vectorize=True)
