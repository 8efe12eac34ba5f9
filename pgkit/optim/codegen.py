"""Generate kernels that run the element-wise steps of a chain, or a sum over parameters, as one loop over memory.

A step is a function of tensors. It is traced for one element (:mod:`pgkit.compiler.tracer`), and LLVM turns the loop
over elements into vector code for this processor.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from llvmlite import ir

from pgkit.compiler import functions  # noqa: F401 # implements the functions of torch for traced scalars
from pgkit.compiler.elementwise import vector_loop
from pgkit.compiler.ir import (
    FLOAT_TYPES,
    INT,
    POINTER,
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
from pgkit.compiler.signature import Address, Int64
from pgkit.compiler.tracer import TORCH_FUNCTIONS, TracedScalar
from pgkit.errors import PgkitError
from pgkit.optim.base import Leaf, Step

Kernel = Callable[..., None]
"""A compiled function of :class:`KernelArguments`."""

Fold = Callable[..., Any]
"""``fold(total, *fields) -> total`` adds one more element to a total."""

PARTIAL_SUMS = 32
"""A sum over elements has so many partial sums, which are added at the end: the same bits whatever a register holds."""


class KernelArguments(NamedTuple):
    """L leaves of P members, each with F tensors (fields) ``(P, ...)``.

    Attributes:
        leaves: L.
        members: P.
        sizes: int64 ``(L,)``, the number of elements of one member in each leaf.
        fields: ``(L, F)``, the addresses of the fields of each leaf.
        table: numbers of each member, ``(C, P)``; of a sum ``(P,)``, which is updated.
    """

    leaves: Int64
    members: Int64
    sizes: Address
    fields: Address
    table: Address


class _LeafArguments(NamedTuple):
    """One leaf in :class:`KernelArguments`: ``size`` elements of each member."""

    members: Int64
    size: Int64
    table: Address
    fields: tuple[Address, ...]


def compile_steps(
    steps: Sequence[Step], scalars: Sequence[Sequence[str]], state: Sequence[str], dtype: torch.dtype, add: bool
) -> Kernel:
    """A kernel that runs steps, one after the other, in one loop over elements, in place.

    The fields of a leaf are gradient, parameter and state. With ``add`` the parameter is added to the result of the
    last step, and there is one more field ``(P,)``: the largest magnitude of each member's sums, where NaN is largest.

    Args:
        steps: of transforms.
        scalars: for each step the names of its scalars; the rows of the table are the scalars of all steps in order.
        state: the names of the state, in the order of the fields.
        dtype: of all fields and of the table, one of ``FLOAT_TYPES``.
        add: see above.

    Raises:
        PgkitError: a step cannot be traced.
    """
    module = ir.Module()
    real = FLOAT_TYPES[dtype]
    num_fields = 2 + len(state)
    builder, args = define_function(module, "leaf", _LeafArguments, {"fields": num_fields + add}, private=True)
    fields = args.fields[:num_fields]
    largest = _LargestMagnitude(builder, dtype)
    with for_range(builder, args.members) as member:
        columns = _scalar_columns(builder, real, args, scalars, member)
        first = member * args.size
        largest.reset()
        with for_range(builder, args.size) as element:
            place = first + element
            before = [_read(builder, real, field, place) for field in fields]
            after = _trace_steps(steps, columns, state, before)
            if add:
                after[0] = after[0] + before[1]
                largest.update(after[0])
            _write_changed(builder, fields, place, before, after)
        if add:
            store(builder, builder.bitcast(largest.bits.get(), real), args.fields[-1], member)
    builder.ret_void()
    return _compile_walk(module, len(args.fields))


class _LargestMagnitude:
    """The largest magnitude so far, as the bits of a non-negative number.

    Read as integers, bits of non-negative numbers have the order of the numbers, and NaN comes behind infinity. So one
    comparison of integers finds NaN, too, which comparisons of floating-point numbers would lose.
    """

    def __init__(self, builder: ir.IRBuilder, dtype: torch.dtype) -> None:
        self.builder = builder
        self.bits = Variable(builder, ir.IntType(32 if dtype == torch.float32 else 64))

    def reset(self) -> None:
        self.bits.set(self.bits.ir_type(0))

    def update(self, number: TracedScalar) -> None:
        bits = number.abs().bits().ir_value
        largest = self.bits.get()
        self.bits.set(self.builder.select(self.builder.icmp_signed(">", bits, largest), bits, largest))


def compile_fold(fold: Fold, fields: int, dtype: torch.dtype) -> Kernel:
    """A kernel that adds a sum over the elements of each member to the member's number in the table.

    Args:
        fold: of plain arithmetic.
        fields: how many tensors of each leaf ``fold`` takes.
        dtype: of all fields and of the table, one of ``FLOAT_TYPES``.
    """
    module = ir.Module()
    real = FLOAT_TYPES[dtype]
    vector = ir.VectorType(real, PARTIAL_SUMS)
    builder, args = define_function(module, "leaf", _LeafArguments, {"fields": fields}, private=True)
    totals = {PARTIAL_SUMS: Variable(builder, vector), 1: Variable(builder, real)}
    with for_range(builder, args.members) as member:
        for total in totals.values():
            total.set(ir.Constant(total.ir_type, None))
        first = member * args.size

        def add(element: Index, width: int) -> None:
            total = totals[width]
            numbers = [_read(builder, total.ir_type, field, first + element) for field in args.fields]
            total.set(fold(TracedScalar(builder, total.get()), *numbers))

        vector_loop(builder, args.size, add, PARTIAL_SUMS)
        leaf_sum = builder.fadd(lane_sum(builder, totals[PARTIAL_SUMS].get()), totals[1].get())
        store(builder, builder.fadd(load(builder, real, args.table, member), leaf_sum), args.table, member)
    builder.ret_void()
    return _compile_walk(module, fields)


def _scalar_columns(
    builder: ir.IRBuilder, real: ir.Type, args: _LeafArguments, names: Sequence[Sequence[str]], member: Index
) -> list[dict[str, TracedScalar]]:
    """A member's scalars for each step, from consecutive rows of the table."""
    rows = iter(range(sum(map(len, names))))
    return [
        {name: _read(builder, real, args.table, args.members * next(rows) + member) for name in names_of_step}
        for names_of_step in names
    ]


def _read(builder: ir.IRBuilder, ir_type: ir.Type, base: ir.Value, index: Index) -> TracedScalar:
    return TracedScalar(builder, load(builder, ir_type, base, index))


def _write_changed(
    builder: ir.IRBuilder,
    fields: Sequence[ir.Value],
    place: Index,
    before: Sequence[TracedScalar],
    after: Sequence[TracedScalar | float],
) -> None:
    """Store the fields that a step has replaced."""
    for field, old, new in zip(fields, before, after, strict=True):
        if new is not old:
            store(builder, old.operand(new), field, place)


def _trace_steps(
    steps: Sequence[Step],
    columns: Sequence[Mapping[str, TracedScalar]],
    state: Sequence[str],
    before: Sequence[TracedScalar],
) -> list[TracedScalar]:
    """The fields of one element after all steps."""
    result: Any = before[0]
    leaf: Any = Leaf(before[1], dict(zip(state, before[2:], strict=True)))  # type: ignore[arg-type] # they act as tensors
    for step, scalars in zip(steps, columns, strict=True):
        try:
            result = step(result, leaf, scalars)  # type: ignore[arg-type] # these, too
        except (AttributeError, TypeError) as error:
            raise PgkitError(
                f"a step of the chain cannot be compiled ({error}); it may use + - * / and comparisons, torch's "
                f"{', '.join(function.__name__ for function in TORCH_FUNCTIONS)}, and nothing in place; give any other "
                "Transform elementwise=False"
            ) from error
    return [result, before[1], *(leaf.state[name] for name in state)]


def _compile_walk(module: ir.Module, fields: int) -> Kernel:
    """The kernel itself, which calls the module's function ``leaf`` for each leaf.

    ``leaf`` is a function of its own because its parameters can promise LLVM that no two fields overlap; addresses that
    are loaded from a table cannot.
    """
    builder, args = define_function(module, "walk", KernelArguments)
    with for_range(builder, args.leaves) as leaf:
        size = Index(builder, load(builder, INT, args.sizes, leaf))
        addresses = (element_pointer(builder, args.fields, POINTER, leaf * fields + field) for field in range(fields))
        pointers = tuple(builder.load(address, typ=POINTER) for address in addresses)
        call(builder, module.get_global("leaf"), _LeafArguments(args.members, size, args.table, pointers))
    builder.ret_void()
    return compile_function(builder.function, vectorize=True)
