"""Functions of tensors, written down for one element: the way from a line of torch to a compiled loop.

A function is called once with :class:`TracedScalar` in place of tensors, and leaves behind what becomes of one element.
The same function, called with tensors, is what runs on GPUs.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partialmethod
from typing import Any

import torch
from llvmlite import ir

from pgkit.compiler.ir import INT, intrinsic

KINDS = {torch.float32: ir.FloatType(), torch.float64: ir.DoubleType(), torch.int64: INT, torch.bool: ir.IntType(1)}
"""What an element can be."""

_REAL = (ir.FloatType(), ir.DoubleType())

FUNCTIONS: dict[Any, Callable[..., "TracedScalar"]] = {}
"""What stands for the functions of torch, see :mod:`pgkit.compiler.functions`."""


class TracedScalar:
    """One element of a tensor, or a vector of elements, while a function is written down.

    It knows ``+ - * /``, comparisons, ``& | ^ ~``, shifts, ``to`` and the functions of torch in ``FUNCTIONS``.
    """

    def __init__(self, builder: ir.IRBuilder, it: ir.Value):
        self.builder, self.it = builder, it

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> "TracedScalar":
        if function not in FUNCTIONS:
            raise TypeError(f"{getattr(function, '__name__', function)} is not among the compiled functions of torch")
        return FUNCTIONS[function](*args, **(kwargs or {}))

    @property
    def kind(self) -> ir.Type:
        """Of a single element."""
        return self.it.type.element if isinstance(self.it.type, ir.VectorType) else self.it.type

    def number(self, other: "TracedScalar | float") -> ir.Value:
        """The other operand of an operation with this one."""
        if isinstance(other, TracedScalar):
            return other.it
        number = float(other) if self.kind in _REAL else int(other)
        many = isinstance(self.it.type, ir.VectorType)
        return ir.Constant(self.it.type, [number] * self.it.type.count if many else number)

    def of(self, operation: str, *others: "TracedScalar | float") -> "TracedScalar":
        """``operation`` of LLVM with this as its first operand."""
        return TracedScalar(self.builder, getattr(self.builder, operation)(self.it, *map(self.number, others)))

    def arithmetic(self, operation: str, *others: "TracedScalar | float") -> "TracedScalar":
        """The same, by the operation for real numbers or that for integers."""
        return self.of(f"f{operation}" if self.kind in _REAL else operation, *others)

    def intrinsic(self, name: str, *others: "TracedScalar | float") -> "TracedScalar":
        """The intrinsic ``llvm.name`` with this as its first operand."""
        return TracedScalar(self.builder, intrinsic(self.builder, name, self.it, *map(self.number, others)))

    def compare(self, sign: str, other: "TracedScalar | float") -> "TracedScalar":
        """A comparison, of which NaN fails all but ``!=``."""
        real = self.builder.fcmp_unordered if sign == "!=" else self.builder.fcmp_ordered
        test = real if self.kind in _REAL else self.builder.icmp_signed
        return TracedScalar(self.builder, test(sign, self.it, self.number(other)))

    __add__ = __radd__ = partialmethod(arithmetic, "add")
    __sub__ = partialmethod(arithmetic, "sub")
    __mul__ = __rmul__ = partialmethod(arithmetic, "mul")
    __truediv__ = partialmethod(of, "fdiv")
    __neg__ = partialmethod(arithmetic, "neg")
    __lt__, __le__ = partialmethod(compare, "<"), partialmethod(compare, "<=")
    __gt__, __ge__ = partialmethod(compare, ">"), partialmethod(compare, ">=")
    __eq__, __ne__ = partialmethod(compare, "=="), partialmethod(compare, "!=")  # type: ignore[assignment] # as Tensor
    __and__, __or__, __xor__ = partialmethod(of, "and_"), partialmethod(of, "or_"), partialmethod(of, "xor")
    __lshift__, __rshift__, __invert__ = partialmethod(of, "shl"), partialmethod(of, "ashr"), partialmethod(of, "not_")

    def __rsub__(self, other: float) -> "TracedScalar":
        return TracedScalar(self.builder, self.number(other)) - self

    def __rtruediv__(self, other: float) -> "TracedScalar":
        return TracedScalar(self.builder, self.number(other)) / self

    def __bool__(self) -> bool:
        raise TypeError("a step cannot branch on the value of an element; use torch.where")

    def to(self, dtype: torch.dtype) -> "TracedScalar":
        """Another kind of number; ones and zeros of what is true or not."""
        kind = KINDS[dtype]
        if kind == self.kind:
            return self
        if kind in _REAL and self.kind in _REAL:
            operation = "fpext" if kind == ir.DoubleType() else "fptrunc"
        elif kind in _REAL:
            operation = "uitofp" if self.kind == KINDS[torch.bool] else "sitofp"
        else:
            operation = "fptosi" if self.kind in _REAL else "zext"
        return TracedScalar(self.builder, getattr(self.builder, operation)(self.it, self._shaped(kind)))

    def choose(self, first: "TracedScalar | float", second: "TracedScalar | float") -> "TracedScalar":
        """The first where this is true, else the second."""
        values = [value for value in (first, second) if isinstance(value, TracedScalar)]
        if not values:
            raise TypeError("torch.where between two numbers; begin with a tensor, such as 0.0 * grad")
        chosen = [values[0].number(value) for value in (first, second)]
        return TracedScalar(self.builder, self.builder.select(self.it, *chosen))

    def fma(self, factor: "TracedScalar | float", term: "TracedScalar | float") -> "TracedScalar":
        """``self * factor + term``, rounded once."""
        return self.intrinsic("fma", factor, term)

    def abs(self) -> "TracedScalar":
        """Without its sign."""
        return self.intrinsic("fabs")

    def copysign(self, other: "TracedScalar") -> "TracedScalar":
        """This magnitude with the other's sign."""
        return self.intrinsic("copysign", other)

    def between(self, low: float, high: float) -> "TracedScalar":
        """The nearest number in an interval; NaN stays."""
        high_enough = (self < low).choose(low, self)
        return high_enough.at_most(high)

    def at_most(self, high: float) -> "TracedScalar":
        """The smaller of two numbers; NaN stays."""
        return (self > high).choose(high, self)

    def splat(self, number: ir.Value) -> "TracedScalar":
        """A number, in as many lanes as this has."""
        if not isinstance(self.it.type, ir.VectorType):
            return TracedScalar(self.builder, number)
        kind, place = self._shaped(number.type), ir.IntType(32)
        one = self.builder.insert_element(ir.Constant(kind, ir.Undefined), number, place(0))
        lanes = ir.Constant(self._shaped(place), None)
        return TracedScalar(self.builder, self.builder.shuffle_vector(one, one, lanes))

    def bits(self) -> "TracedScalar":
        """The bits of a real number, as an integer of its size."""
        size = ir.IntType(32 if self.kind == ir.FloatType() else 64)
        return TracedScalar(self.builder, self.builder.bitcast(self.it, self._shaped(size)))

    def from_bits(self, like: "TracedScalar") -> "TracedScalar":
        """The real number that has these bits."""
        return TracedScalar(self.builder, self.builder.bitcast(self.it, like.it.type))

    def to_real(self, like: "TracedScalar") -> "TracedScalar":
        """An integer as a real number of the other's kind."""
        return TracedScalar(self.builder, self.builder.sitofp(self.it, like.it.type))

    def _shaped(self, kind: ir.Type) -> ir.Type:
        return ir.VectorType(kind, self.it.type.count) if isinstance(self.it.type, ir.VectorType) else kind
