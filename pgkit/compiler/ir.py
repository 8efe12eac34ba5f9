"""Compiling with LLVM: loops, memory and modules, for the few places where a pass over memory has to be one's own.

Nothing may be reordered or contracted, and all operations used are correctly rounded, so the bits do not depend on how
wide the registers are.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache

import torch
from llvmlite import binding, ir

FLOAT_TYPES = {torch.float32: ir.FloatType(), torch.float64: ir.DoubleType()}
"""What can be computed with."""

INT, POINTER = ir.IntType(64), ir.PointerType()


def function(
    module: ir.Module, name: str, kinds: Sequence[ir.Type], alias: bool = False, private: bool = False
) -> tuple[ir.IRBuilder, tuple[ir.Value, ...]]:
    """A function that returns nothing: builder and arguments.

    Args:
        module: that it belongs to.
        name: in the module.
        kinds: of the arguments.
        alias: what it writes may overlap with what it reads; else LLVM may take it that no two addresses do.
        private: other functions of the module call it, nobody else; LLVM leaves it one.
    """
    made = ir.Function(module, ir.FunctionType(ir.VoidType(), kinds), name)
    for argument in made.args:
        if argument.type == POINTER and not alias:
            argument.add_attribute("noalias")
    if private:
        made.linkage = "internal"
        made.attributes.add("noinline")
    return ir.IRBuilder(made.append_basic_block()), made.args


@contextmanager
def loop(builder: ir.IRBuilder, count: ir.Value) -> Iterator[ir.Value]:
    """``for index in range(count)``."""
    before, (head, body, after) = builder.block, (builder.append_basic_block() for _ in range(3))
    builder.branch(head)
    builder.position_at_end(head)
    index = builder.phi(INT)
    index.add_incoming(INT(0), before)
    builder.cbranch(builder.icmp_signed("<", index, count), body, after)
    builder.position_at_end(body)
    yield index
    index.add_incoming(builder.add(index, INT(1), flags=["nsw"]), builder.block)
    builder.branch(head)
    builder.position_at_end(after)


def load(builder: ir.IRBuilder, kind: ir.Type, base: ir.Value, index: ir.Value) -> ir.Value:
    """A number, or a vector of numbers that begins with it, ``index`` numbers behind an address."""
    number = _number(kind)
    return builder.load(builder.gep(base, [index], source_etype=number), typ=kind, align=_align(number))


def store(builder: ir.IRBuilder, value: ir.Value, base: ir.Value, index: ir.Value) -> None:
    """Put a number, or a vector, ``index`` numbers behind an address."""
    number = _number(value.type)
    builder.store(value, builder.gep(base, [index], source_etype=number), align=_align(number))


def intrinsic(builder: ir.IRBuilder, name: str, *operands: ir.Value) -> ir.Value:
    """``llvm.name`` of operands of one type, numbers or vectors of them."""
    kind, module = operands[0].type, builder.module
    many = f"v{kind.count}" if isinstance(kind, ir.VectorType) else ""
    full = f"llvm.{name}.{many}{_number(kind).intrinsic_name}"
    called = module.globals.get(full) or ir.Function(module, ir.FunctionType(kind, [kind] * len(operands)), full)
    return builder.call(called, operands)


def lane_sum(builder: ir.IRBuilder, vector: ir.Value) -> ir.Value:
    """The sum of the numbers of a vector, one half added to the other until one is left."""
    width, place = vector.type.count, ir.IntType(32)
    while width > 1:
        width //= 2
        halves = [ir.Constant(ir.VectorType(place, width), list(range(k, k + width))) for k in (0, width)]
        low, high = (builder.shuffle_vector(vector, vector, half) for half in halves)
        vector = builder.fadd(low, high)
    return builder.extract_element(vector, place(0))


def _align(number: ir.Type) -> int:
    """Bytes that an address is a multiple of, at least."""
    return 1 if number == ir.IntType(8) else 4


def _number(kind: ir.Type) -> ir.Type:
    return kind.element if isinstance(kind, ir.VectorType) else kind


@lru_cache
def register_bytes() -> int:
    """How much a vector register of this processor holds."""
    features = binding.get_host_cpu_features()
    return 64 if features.get("avx512f") else 32 if features.get("avx2") else 16
