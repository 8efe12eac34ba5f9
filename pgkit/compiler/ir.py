"""Write functions for LLVM: signatures, loops, integers with operators, memory.

No instruction may be reordered or contracted (LLVM's fast-math flags are never set), and every operation used is
correctly rounded, so the bits of a result do not depend on how wide the registers of a processor are.

A function that adds 1 to every row of a matrix:

    class AddOne(NamedTuple):
        rows: Int64
        columns: Int64
        matrix: Address

    builder, arguments = define_function(ir.Module(), "add_one", AddOne)
    with for_range(builder, arguments.rows) as row, for_range(builder, arguments.columns) as column:
        index = row * arguments.columns + column
        number = load(builder, REAL, arguments.matrix, index)
        store(builder, builder.fadd(number, REAL(1.0)), arguments.matrix, index)
    builder.ret_void()
    kernel = compile_function(builder.function)
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import torch
from llvmlite import binding, ir

from pgkit.compiler.signature import Address, Int64, flatten

FLOAT_TYPES = {torch.float32: ir.FloatType(), torch.float64: ir.DoubleType()}
"""The LLVM types of the floating-point dtypes that can be compiled."""

INT = ir.IntType(64)
POINTER = ir.PointerType()
BYTE = ir.IntType(8)
NULL = ir.Constant(POINTER, None)

S = TypeVar("S")
"""A signature, see :mod:`pgkit.compiler.signature`."""


class Index:
    """A non-negative int64 in a function that is being compiled: a position in memory, a count, a stride.

    Index arithmetic reads as in Python: ``(member * steps + step) * count + env``. The other operand is an ``Index``, a
    Python integer or a value of LLVM. Comparisons give a value of LLVM, for ``builder.if_then`` and ``builder.select``.

    Attributes:
        builder: where instructions are appended.
        ir_value: the value in LLVM's terms, for ``builder``'s methods.
    """

    def __init__(self, builder: ir.IRBuilder, value: "Index | ir.Value | int") -> None:
        self.builder = builder
        self.ir_value = ir_value(value)

    def __add__(self, other: "Index | ir.Value | int") -> "Index":
        return Index(self.builder, self.builder.add(self.ir_value, ir_value(other)))

    def __sub__(self, other: "Index | ir.Value | int") -> "Index":
        return Index(self.builder, self.builder.sub(self.ir_value, ir_value(other)))

    def __mul__(self, other: "Index | ir.Value | int") -> "Index":
        return Index(self.builder, self.builder.mul(self.ir_value, ir_value(other)))

    def __floordiv__(self, other: "Index | ir.Value | int") -> "Index":
        return Index(self.builder, self.builder.udiv(self.ir_value, ir_value(other)))

    def __mod__(self, other: "Index | ir.Value | int") -> "Index":
        return Index(self.builder, self.builder.urem(self.ir_value, ir_value(other)))

    def __radd__(self, other: int) -> "Index":
        return self + other

    def __rmul__(self, other: int) -> "Index":
        return self * other

    def __rsub__(self, other: int) -> "Index":
        return Index(self.builder, other) - self

    def __lt__(self, other: "Index | ir.Value | int") -> ir.Value:
        return self.compare("<", other)

    def __le__(self, other: "Index | ir.Value | int") -> ir.Value:
        return self.compare("<=", other)

    def __gt__(self, other: "Index | ir.Value | int") -> ir.Value:
        return self.compare(">", other)

    def __ge__(self, other: "Index | ir.Value | int") -> ir.Value:
        return self.compare(">=", other)

    def compare(self, sign: str, other: "Index | ir.Value | int") -> ir.Value:
        """``self sign other``, also for ``==`` and ``!=``."""
        return self.builder.icmp_signed(sign, self.ir_value, ir_value(other))

    def where(self, condition: ir.Value, other: "Index | ir.Value | int") -> "Index":
        """This if ``condition`` is true, else ``other``."""
        return Index(self.builder, self.builder.select(condition, self.ir_value, ir_value(other)))


def ir_value(value: Any) -> ir.Value:
    """The LLVM value of an ``Index``, a traced scalar or a Python integer; LLVM's values stay as they are."""
    return INT(value) if isinstance(value, int) else getattr(value, "ir_value", value)


class Variable:
    """A local variable, which LLVM keeps in a register. Create it outside of loops.

    Args:
        builder: of the function.
        ir_type: of its values.
    """

    def __init__(self, builder: ir.IRBuilder, ir_type: ir.Type) -> None:
        self.builder = builder
        self.ir_type = ir_type
        self.address = builder.alloca(ir_type)

    def get(self) -> ir.Value:
        return self.builder.load(self.address, typ=self.ir_type)

    def set(self, value: Any) -> None:
        self.builder.store(ir_value(value), self.address)


def define_function(
    module: ir.Module,
    name: str,
    signature: type[S],
    lengths: Mapping[str, int] | None = None,
    alias: bool = False,
    private: bool = False,
) -> tuple[ir.IRBuilder, S]:
    """Begin a function that returns nothing: its builder, and its arguments as an instance of the signature.

    Args:
        module: that gets the function.
        name: of the function.
        signature: see :mod:`pgkit.compiler.signature`.
        lengths: of fields ``tuple[..., ...]``, by name.
        alias: memory that it writes may overlap with memory that it reads; otherwise LLVM assumes that no two
            addresses overlap.
        private: only other functions of the module call it; LLVM does not inline it.
    """
    builder, values = function(module, name, parameter_types(signature, lengths), alias, private)
    remaining = iter([Index(builder, value) if value.type == INT else value for value in values])
    return builder, _filled(signature, lengths or {}, remaining)


def declare_function(
    module: ir.Module, name: str, signature: type[Any], lengths: Mapping[str, int] | None = None
) -> ir.Function:
    """Declare a function that another module defines."""
    return ir.Function(module, ir.FunctionType(ir.VoidType(), parameter_types(signature, lengths)), name)


def call(builder: ir.IRBuilder, called: ir.Function, arguments: Sequence[Any]) -> None:
    """Call a function with an instance of its signature; integers may be ``Index`` or Python's."""
    builder.call(called, [ir_value(argument) for argument in flatten(arguments)])


def parameter_types(signature: type[Any], lengths: Mapping[str, int] | None = None) -> list[ir.Type]:
    """The LLVM types of all parameters of a signature, in order."""
    types: list[ir.Type] = []
    for name, hint in get_type_hints(signature, include_extras=True).items():
        repeated, count = _repetition(name, hint, lengths or {})
        one = [INT] if repeated == Int64 else [POINTER] if repeated == Address else parameter_types(repeated, lengths)
        types += one * count
    return types


def _filled(signature: type[S], lengths: Mapping[str, int], values: Iterator[Any]) -> S:
    """An instance of the signature with the next values, as many as it needs."""

    def next_of(hint: Any) -> Any:
        return next(values) if hint in (Int64, Address) else _filled(hint, lengths, values)

    fields = []
    for name, hint in get_type_hints(signature, include_extras=True).items():
        repeated, count = _repetition(name, hint, lengths)
        is_tuple = get_origin(hint) is tuple
        fields.append(tuple(next_of(repeated) for _ in range(count)) if is_tuple else next_of(repeated))
    construct: Any = signature
    instance: S = construct(*fields)
    return instance


def _repetition(name: str, hint: Any, lengths: Mapping[str, int]) -> tuple[Any, int]:
    """The type of a field's elements and how many there are: one, unless the field is a tuple."""
    return (get_args(hint)[0], lengths[name]) if get_origin(hint) is tuple else (hint, 1)


def function(
    module: ir.Module, name: str, types: Sequence[ir.Type], alias: bool = False, private: bool = False
) -> tuple[ir.IRBuilder, tuple[ir.Value, ...]]:
    """:func:`define_function` by types instead of a signature: builder and arguments."""
    defined = ir.Function(module, ir.FunctionType(ir.VoidType(), types), name)
    for argument in defined.args:
        if argument.type == POINTER and not alias:
            argument.add_attribute("noalias")
    if private:
        defined.linkage = "internal"
        defined.attributes.add("noinline")
    return ir.IRBuilder(defined.append_basic_block()), defined.args


@contextmanager
def for_range(builder: ir.IRBuilder, count: Index | ir.Value | int) -> Iterator[Index]:
    """``for index in range(count)``: what is written inside is the body of the loop."""
    before = builder.block
    head, body, after = (builder.append_basic_block() for _ in range(3))
    builder.branch(head)
    builder.position_at_end(head)
    # LLVM's values are assigned once, so the counter is a phi node: 0 when control comes from before the loop,
    # its successor when control comes from the end of the body.
    index = builder.phi(INT)
    index.add_incoming(INT(0), before)
    builder.cbranch(builder.icmp_signed("<", index, ir_value(count)), body, after)
    builder.position_at_end(body)
    yield Index(builder, index)
    index.add_incoming(builder.add(index, INT(1), flags=["nsw"]), builder.block)
    builder.branch(head)
    builder.position_at_end(after)


def load(builder: ir.IRBuilder, ir_type: ir.Type, base: ir.Value, index: Any) -> ir.Value:
    """The number at ``base[index]``; with a vector type, that number and those behind it."""
    number = _element_type(ir_type)
    return builder.load(element_pointer(builder, base, number, index), typ=ir_type, align=_align(number))


def store(builder: ir.IRBuilder, value: Any, base: ir.Value, index: Any) -> None:
    """Write a number, or a vector of numbers, to ``base[index]`` and on."""
    number = _element_type(ir_value(value).type)
    builder.store(ir_value(value), element_pointer(builder, base, number, index), align=_align(number))


def element_pointer(builder: ir.IRBuilder, base: ir.Value, element_type: ir.Type, index: Any) -> ir.Value:
    """The address of ``base[index]``."""
    return builder.gep(base, [ir_value(index)], source_etype=element_type)


def is_not_null(builder: ir.IRBuilder, pointer: ir.Value) -> ir.Value:
    """Whether a pointer leads anywhere."""
    return builder.icmp_unsigned("!=", pointer, NULL)


def intrinsic(builder: ir.IRBuilder, name: str, *operands: ir.Value) -> ir.Value:
    """``llvm.name`` of operands of one type, numbers or vectors of numbers."""
    ir_type = operands[0].type
    width = f"v{ir_type.count}" if isinstance(ir_type, ir.VectorType) else ""
    full = f"llvm.{name}.{width}{_element_type(ir_type).intrinsic_name}"
    module = builder.module
    called = module.globals.get(full) or ir.Function(module, ir.FunctionType(ir_type, [ir_type] * len(operands)), full)
    return builder.call(called, operands)


def lane_sum(builder: ir.IRBuilder, vector: ir.Value) -> ir.Value:
    """The sum of the numbers of a vector: one half is added to the other until one number is left.

    The order is part of the result's bits, so it is written down instead of left to LLVM's ``reduce``.
    """
    width = vector.type.count
    lane_index = ir.IntType(32)
    while width > 1:
        width //= 2
        halves = [ir.Constant(ir.VectorType(lane_index, width), list(range(k, k + width))) for k in (0, width)]
        low, high = (builder.shuffle_vector(vector, vector, half) for half in halves)
        vector = builder.fadd(low, high)
    return builder.extract_element(vector, lane_index(0))


def _align(number: ir.Type) -> int:
    """The alignment in bytes that every tensor's elements have; vectors begin at any element."""
    return 1 if number == BYTE else 4


def _element_type(ir_type: ir.Type) -> ir.Type:
    return ir_type.element if isinstance(ir_type, ir.VectorType) else ir_type


@lru_cache
def register_bytes() -> int:
    """The size of a vector register of this processor: 64 with AVX-512, 32 with AVX2, else 16."""
    features = binding.get_host_cpu_features()
    return 64 if features.get("avx512f") else 32 if features.get("avx2") else 16
