"""The traced value: one element of a tensor while a function of tensors is compiled.

A function is called once with :class:`TracedScalar` in place of tensors. Each operation on a traced scalar appends an
LLVM instruction, so the call leaves behind the code of one element. The same function, called with tensors, is what
runs on GPUs.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partialmethod
from typing import Any

import torch
from llvmlite import ir

from pgkit.compiler.ir import INT, intrinsic

IR_TYPES = {torch.float32: ir.FloatType(), torch.float64: ir.DoubleType(), torch.int64: INT, torch.bool: ir.IntType(1)}
"""The LLVM type of an element of each dtype that can be compiled."""

_FLOATS = (ir.FloatType(), ir.DoubleType())

_FLOAT_INSTRUCTIONS = {"add": "fadd", "sub": "fsub", "mul": "fmul", "neg": "fneg"}
"""LLVM has separate instructions for floating-point numbers."""

TORCH_FUNCTIONS: dict[Any, Callable[..., "TracedScalar"]] = {}
"""Implementations of functions of torch for traced scalars; :mod:`pgkit.compiler.functions` fills it."""


def implements(torch_function: Any) -> Callable[[Callable[..., "TracedScalar"]], Callable[..., "TracedScalar"]]:
    """Register the decorated function as the implementation of a function of torch, as PyTorch's own examples do.

    See https://pytorch.org/docs/stable/notes/extending.html#extending-torch-python-api.
    """

    def register(function: Callable[..., "TracedScalar"]) -> Callable[..., "TracedScalar"]:
        TORCH_FUNCTIONS[torch_function] = function
        return function

    return register


class TracedScalar:
    """One element of a tensor, or a vector of consecutive elements, in a function that is being compiled.

    Supports ``+ - * /``, comparisons, ``& | ^ ~``, shifts, ``to`` and the functions of torch in ``TORCH_FUNCTIONS``.

    Attributes:
        builder: where instructions are appended.
        ir_value: the value in LLVM's terms.
    """

    def __init__(self, builder: ir.IRBuilder, ir_value: ir.Value):
        self.builder = builder
        self.ir_value = ir_value

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> "TracedScalar":
        if function not in TORCH_FUNCTIONS:
            raise TypeError(f"{getattr(function, '__name__', function)} is not among the compiled functions of torch")
        return TORCH_FUNCTIONS[function](*args, **(kwargs or {}))

    @property
    def element_type(self) -> ir.Type:
        """The LLVM type of a single element."""
        return self.ir_value.type.element if isinstance(self.ir_value.type, ir.VectorType) else self.ir_value.type

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the tensor that this is an element of."""
        return next(dtype for dtype, ir_type in IR_TYPES.items() if ir_type == self.element_type)

    @property
    def dtype_name(self) -> str:
        """The dtype in messages; integers that no tensor has are named as LLVM names them."""
        known = {ir_type: str(dtype).removeprefix("torch.") for dtype, ir_type in IR_TYPES.items()}
        return known.get(self.element_type, str(self.element_type))

    def operand(self, other: "TracedScalar | float") -> ir.Value:
        """The other operand of an operation: a traced scalar, or a Python number as a constant of this type."""
        if isinstance(other, TracedScalar):
            if other.ir_value.type != self.ir_value.type:
                both = f"{self.dtype_name} and {other.dtype_name}"
                raise TypeError(f"an operation between {both}; convert one of them, such as x.to(torch.float64)")
            return other.ir_value
        if isinstance(other, float) and self.element_type not in _FLOATS:
            raise TypeError(f"an operation between {self.dtype_name} and {other}; convert with x.to(torch.float64)")
        number = float(other) if self.element_type in _FLOATS else int(other)
        is_vector = isinstance(self.ir_value.type, ir.VectorType)
        return ir.Constant(self.ir_value.type, [number] * self.ir_value.type.count if is_vector else number)

    def unary_op(self, instruction: str) -> "TracedScalar":
        """An LLVM instruction with this as its only operand."""
        return TracedScalar(self.builder, self._instruction(instruction)(self.ir_value))

    def binary_op(self, instruction: str, other: "TracedScalar | float") -> "TracedScalar":
        """An LLVM instruction with this as its first operand; ``add`` stands for ``fadd``, too, and so on."""
        return TracedScalar(self.builder, self._instruction(instruction)(self.ir_value, self.operand(other)))

    def _instruction(self, name: str) -> Callable[..., ir.Value]:
        if self.element_type in _FLOATS:
            name = _FLOAT_INSTRUCTIONS.get(name, name)
        instruction: Callable[..., ir.Value] = getattr(self.builder, name)
        return instruction

    def intrinsic(self, name: str, *others: "TracedScalar | float") -> "TracedScalar":
        """The intrinsic ``llvm.name`` with this as its first operand."""
        return TracedScalar(self.builder, intrinsic(self.builder, name, self.ir_value, *map(self.operand, others)))

    def compare(self, sign: str, other: "TracedScalar | float") -> "TracedScalar":
        """A comparison. With NaN only ``!=`` is true, as in IEEE 754."""
        compare_floats = self.builder.fcmp_unordered if sign == "!=" else self.builder.fcmp_ordered
        instruction = compare_floats if self.element_type in _FLOATS else self.builder.icmp_signed
        return TracedScalar(self.builder, instruction(sign, self.ir_value, self.operand(other)))

    __add__ = __radd__ = partialmethod(binary_op, "add")
    __sub__ = partialmethod(binary_op, "sub")
    __mul__ = __rmul__ = partialmethod(binary_op, "mul")
    __truediv__ = partialmethod(binary_op, "fdiv")
    __neg__ = partialmethod(unary_op, "neg")
    __lt__ = partialmethod(compare, "<")
    __le__ = partialmethod(compare, "<=")
    __gt__ = partialmethod(compare, ">")
    __ge__ = partialmethod(compare, ">=")
    __eq__ = partialmethod(compare, "==")  # type: ignore[assignment] # element-wise, as torch.Tensor's
    __ne__ = partialmethod(compare, "!=")  # type: ignore[assignment] # element-wise, as torch.Tensor's
    __and__ = partialmethod(binary_op, "and_")
    __or__ = partialmethod(binary_op, "or_")
    __xor__ = partialmethod(binary_op, "xor")
    __lshift__ = partialmethod(binary_op, "shl")
    __rshift__ = partialmethod(binary_op, "ashr")
    __invert__ = partialmethod(unary_op, "not_")

    def __rsub__(self, other: float) -> "TracedScalar":
        return TracedScalar(self.builder, self.operand(other)) - self

    def __rtruediv__(self, other: float) -> "TracedScalar":
        return TracedScalar(self.builder, self.operand(other)) / self

    def __mod__(self, divisor: float) -> "TracedScalar":
        return TORCH_FUNCTIONS[torch.remainder](self, divisor)

    def __pow__(self, exponent: float) -> "TracedScalar":
        if exponent != 2:
            raise TypeError(f"x ** {exponent} is not compiled, only x ** 2; write products, or torch.exp and torch.log")
        return self * self

    def __bool__(self) -> bool:
        raise TypeError("a step cannot branch on the value of an element; use torch.where")

    def __float__(self) -> float:
        raise TypeError(
            "an element has no value while its code is compiled: float(x) and functions of math cannot take it; "
            "use those of torch, such as torch.sin"
        )

    __int__ = __index__ = __float__

    def to(self, dtype: torch.dtype) -> "TracedScalar":
        """Convert to another dtype; booleans become 0 and 1."""
        target = IR_TYPES[dtype]
        if target == self.element_type:
            return self
        is_float = self.element_type in _FLOATS
        if target in _FLOATS and is_float:
            operation = "fpext" if target == ir.DoubleType() else "fptrunc"
        elif target in _FLOATS:
            operation = "uitofp" if self.element_type == IR_TYPES[torch.bool] else "sitofp"
        else:
            operation = "fptosi" if is_float else "zext"
        return TracedScalar(self.builder, getattr(self.builder, operation)(self.ir_value, self._shaped(target)))

    def where(self, first: "TracedScalar | float", second: "TracedScalar | float") -> "TracedScalar":
        """``first`` where this boolean is true, else ``second``."""
        traced = [value for value in (first, second) if isinstance(value, TracedScalar)]
        if not traced:
            raise TypeError("torch.where between two numbers; begin with a tensor, such as 0.0 * grad")
        choices = [traced[0].operand(value) for value in (first, second)]
        return TracedScalar(self.builder, self.builder.select(self.ir_value, *choices))

    def lazy_where(
        self, compute: Callable[[], Sequence["TracedScalar"]], otherwise: Sequence["TracedScalar"]
    ) -> list["TracedScalar"]:
        """:func:`pgkit.compiler.control_flow.lazy_where` with this boolean as the condition."""
        builder = self.builder
        is_any = self.any_lane()
        before = builder.block
        with builder.if_then(is_any.ir_value, likely=False):
            chosen = [self.where(new, old) for new, old in zip(compute(), otherwise, strict=True)]
            end = builder.block
        # Control comes here from the branch or from before it; a phi node has the value of where it came from.
        results = []
        for new, old in zip(chosen, otherwise, strict=True):
            result = builder.phi(old.ir_value.type)
            result.add_incoming(old.ir_value, before)
            result.add_incoming(new.ir_value, end)
            results.append(TracedScalar(builder, result))
        return results

    def any_lane(self) -> "TracedScalar":
        """Whether this boolean is true in any lane of a vector: one boolean."""
        ir_type = self.ir_value.type
        if not isinstance(ir_type, ir.VectorType):
            return self
        lanes = ir.IntType(ir_type.count)
        bits = self.builder.bitcast(self.ir_value, lanes)
        return TracedScalar(self.builder, self.builder.icmp_unsigned("!=", bits, lanes(0)))

    def fma(self, factor: "TracedScalar | float", term: "TracedScalar | float") -> "TracedScalar":
        """``self * factor + term``, rounded once."""
        return self.intrinsic("fma", factor, term)

    def abs(self) -> "TracedScalar":
        """The absolute value of a floating-point number."""
        return self.intrinsic("fabs")

    def copysign(self, other: "TracedScalar") -> "TracedScalar":
        """This magnitude with the sign of ``other``."""
        return self.intrinsic("copysign", other)

    def clamp(self, low: float, high: float) -> "TracedScalar":
        """The nearest number in ``[low, high]``; NaN stays NaN."""
        return (self < low).where(low, self).minimum(high)

    def minimum(self, high: float) -> "TracedScalar":
        """The smaller of this and ``high``; NaN stays NaN."""
        return (self > high).where(high, self)

    def splat(self, number: ir.Value) -> "TracedScalar":
        """``number`` in every lane, with as many lanes as this has."""
        if not isinstance(self.ir_value.type, ir.VectorType):
            return TracedScalar(self.builder, number)
        # LLVM has no splat instruction: it recognizes an insertion into lane 0 that is shuffled to all lanes.
        lane_index = ir.IntType(32)
        undefined = ir.Constant(self._shaped(number.type), ir.Undefined)
        first_lane = self.builder.insert_element(undefined, number, lane_index(0))
        all_zero = ir.Constant(self._shaped(lane_index), None)
        return TracedScalar(self.builder, self.builder.shuffle_vector(first_lane, first_lane, all_zero))

    def bits(self) -> "TracedScalar":
        """The bits of a floating-point number, as an integer of the same size."""
        size = ir.IntType(32 if self.element_type == ir.FloatType() else 64)
        return TracedScalar(self.builder, self.builder.bitcast(self.ir_value, self._shaped(size)))

    def from_bits(self, like: "TracedScalar") -> "TracedScalar":
        """The floating-point number of the type of ``like`` that has these bits."""
        return TracedScalar(self.builder, self.builder.bitcast(self.ir_value, like.ir_value.type))

    def to_float(self, like: "TracedScalar") -> "TracedScalar":
        """An integer as a floating-point number of the type of ``like``."""
        return TracedScalar(self.builder, self.builder.sitofp(self.ir_value, like.ir_value.type))

    def _shaped(self, element_type: ir.Type) -> ir.Type:
        """The type of as many elements as this has."""
        is_vector = isinstance(self.ir_value.type, ir.VectorType)
        return ir.VectorType(element_type, self.ir_value.type.count) if is_vector else element_type
