"""Statements of compiled functions that work on single numbers: variables, branches, loops that are left early.

largest = Local(first)
with when(second > largest.get()):
    largest.set(second)

with endless_loop(builder) as loop:
    number.set(number.get() * 0.5)
    loop.leave_if(number.get() < 1.0)
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from llvmlite import ir

from pgkit.compiler.ir import INT, POINTER, Index, ir_value
from pgkit.compiler.tracer import TracedScalar


class Local:
    """A local variable of a traced scalar's type, which LLVM keeps in registers. It can be created anywhere.

    Args:
        value: what it holds first.
    """

    def __init__(self, value: TracedScalar) -> None:
        self.builder = value.builder
        self.ir_type = value.ir_value.type
        with self.builder.goto_entry_block():
            self.address = self.builder.alloca(self.ir_type)
        self.set(value)

    def get(self) -> TracedScalar:
        return TracedScalar(self.builder, self.builder.load(self.address, typ=self.ir_type))

    def set(self, value: TracedScalar) -> None:
        self.builder.store(value.ir_value, self.address)


class Loop:
    """A loop that :func:`endless_loop` has begun."""

    def __init__(self, builder: ir.IRBuilder, after: ir.Block) -> None:
        self._builder = builder
        self._after = after

    def leave(self) -> None:
        """Go on behind the loop; the last statement of a branch."""
        self._builder.branch(self._after)

    def leave_if(self, condition: TracedScalar | ir.Value) -> None:
        """Go on behind the loop if the condition is true."""
        stay = self._builder.append_basic_block()
        self._builder.cbranch(ir_value(condition), self._after, stay)
        self._builder.position_at_end(stay)


@contextmanager
def endless_loop(builder: ir.IRBuilder) -> Iterator[Loop]:
    """``while True``: what is written inside is the body of the loop, which :class:`Loop` can leave."""
    body, after = (builder.append_basic_block() for _ in range(2))
    builder.branch(body)
    builder.position_at_end(body)
    yield Loop(builder, after)
    builder.branch(body)
    builder.position_at_end(after)


@contextmanager
def block(builder: ir.IRBuilder) -> Iterator[Loop]:
    """Statements that run once, and that :class:`Loop` can leave early."""
    after = builder.append_basic_block()
    yield Loop(builder, after)
    builder.branch(after)
    builder.position_at_end(after)


def when(condition: TracedScalar) -> AbstractContextManager[Any]:
    """``if condition``: what is written inside is executed where a single boolean is true."""
    manager: AbstractContextManager[Any] = condition.builder.if_then(condition.ir_value)
    return manager


def number(builder: ir.IRBuilder, ir_type: ir.Type, value: float) -> TracedScalar:
    """A constant; with a vector type, the same number in every lane."""
    is_vector = isinstance(ir_type, ir.VectorType)
    return TracedScalar(builder, ir.Constant(ir_type, [value] * ir_type.count if is_vector else value))


def integer(builder: ir.IRBuilder, value: Index | ir.Value | int) -> TracedScalar:
    """An int64 as a traced scalar."""
    return TracedScalar(builder, INT(value) if isinstance(value, int) else ir_value(value))


def entry_alloca(builder: ir.IRBuilder, ir_type: ir.Type, count: int = 1, align: int = 0) -> ir.Value:
    """Memory for as long as the function runs.

    It is taken where the function begins, so that a loop does not take more in every round.
    """
    with builder.goto_entry_block():
        memory = builder.alloca(ir.ArrayType(ir_type, count) if count > 1 else ir_type)
        memory.align = align or None
    memory.type = POINTER  # llvmlite gives a typed pointer, which takes nothing but that type
    return memory
