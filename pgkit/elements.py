"""Functions of tensors, written down for one element: the way from a line of torch to a compiled loop.

A function is called once with :class:`Value` in place of tensors, and leaves behind what becomes of one element. The
same function, called with tensors, is what runs on GPUs.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partialmethod
from typing import Any, NamedTuple

import torch
from llvmlite import ir
from torch.nn import functional

from pgkit import elementary
from pgkit.llvm import INT, POINTER, compiled_function, intrinsic, load, loop, store
from pgkit.llvm import function as declare

KINDS = {torch.float32: ir.FloatType(), torch.float64: ir.DoubleType(), torch.int64: INT, torch.bool: ir.IntType(1)}
"""What an element can be."""

LANES = 8
"""So many rows are taken at once."""

_REAL = (ir.FloatType(), ir.DoubleType())
_BYTE = ir.IntType(8)


class Value:
    """One element of a tensor, or a vector of elements, while a function is written down.

    It knows ``+ - * /``, comparisons, ``& | ^ ~``, shifts, ``to`` and the functions of torch in ``FUNCTIONS``.
    """

    def __init__(self, builder: ir.IRBuilder, it: ir.Value):
        self.builder, self.it = builder, it

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> "Value":
        if function not in FUNCTIONS:
            raise TypeError(f"{getattr(function, '__name__', function)} is not among the compiled functions of torch")
        return FUNCTIONS[function](*args, **(kwargs or {}))

    @property
    def kind(self) -> ir.Type:
        """Of a single element."""
        return self.it.type.element if isinstance(self.it.type, ir.VectorType) else self.it.type

    def number(self, other: "Value | float") -> ir.Value:
        """The other operand of an operation with this one."""
        if isinstance(other, Value):
            return other.it
        number = float(other) if self.kind in _REAL else int(other)
        many = isinstance(self.it.type, ir.VectorType)
        return ir.Constant(self.it.type, [number] * self.it.type.count if many else number)

    def of(self, operation: str, *others: "Value | float") -> "Value":
        """``operation`` of LLVM with this as its first operand."""
        return Value(self.builder, getattr(self.builder, operation)(self.it, *map(self.number, others)))

    def arithmetic(self, operation: str, *others: "Value | float") -> "Value":
        """The same, by the operation for real numbers or that for integers."""
        return self.of(f"f{operation}" if self.kind in _REAL else operation, *others)

    def intrinsic(self, name: str, *others: "Value | float") -> "Value":
        """The intrinsic ``llvm.name`` with this as its first operand."""
        return Value(self.builder, intrinsic(self.builder, name, self.it, *map(self.number, others)))

    def compare(self, sign: str, other: "Value | float") -> "Value":
        """A comparison, of which NaN fails all but ``!=``."""
        real = self.builder.fcmp_unordered if sign == "!=" else self.builder.fcmp_ordered
        test = real if self.kind in _REAL else self.builder.icmp_signed
        return Value(self.builder, test(sign, self.it, self.number(other)))

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

    def __rsub__(self, other: float) -> "Value":
        return Value(self.builder, self.number(other)) - self

    def __rtruediv__(self, other: float) -> "Value":
        return Value(self.builder, self.number(other)) / self

    def __bool__(self) -> bool:
        raise TypeError("a step cannot branch on the value of an element; use torch.where")

    def to(self, dtype: torch.dtype) -> "Value":
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
        return Value(self.builder, getattr(self.builder, operation)(self.it, self._shaped(kind)))

    def choose(self, first: "Value | float", second: "Value | float") -> "Value":
        """The first where this is true, else the second."""
        values = [value for value in (first, second) if isinstance(value, Value)]
        if not values:
            raise TypeError("torch.where between two numbers; begin with a tensor, such as 0.0 * grad")
        chosen = [values[0].number(value) for value in (first, second)]
        return Value(self.builder, self.builder.select(self.it, *chosen))

    def times_plus(self, factor: "Value | float", term: "Value | float") -> "Value":
        """``self * factor + term``, rounded once."""
        return self.intrinsic("fma", factor, term)

    def magnitude(self) -> "Value":
        """Without its sign."""
        return self.intrinsic("fabs")

    def with_sign_of(self, other: "Value") -> "Value":
        """This magnitude with the other's sign."""
        return self.intrinsic("copysign", other)

    def between(self, low: float, high: float) -> "Value":
        """The nearest number in an interval; NaN stays."""
        high_enough = (self < low).choose(low, self)
        return high_enough.at_most(high)

    def at_most(self, high: float) -> "Value":
        """The smaller of two numbers; NaN stays."""
        return (self > high).choose(high, self)

    def everywhere(self, number: ir.Value) -> "Value":
        """A number, in as many lanes as this has."""
        if not isinstance(self.it.type, ir.VectorType):
            return Value(self.builder, number)
        kind, place = self._shaped(number.type), ir.IntType(32)
        one = self.builder.insert_element(ir.Constant(kind, ir.Undefined), number, place(0))
        lanes = ir.Constant(self._shaped(place), None)
        return Value(self.builder, self.builder.shuffle_vector(one, one, lanes))

    def bits(self) -> "Value":
        """The bits of a real number, as an integer of its size."""
        size = ir.IntType(32 if self.kind == ir.FloatType() else 64)
        return Value(self.builder, self.builder.bitcast(self.it, self._shaped(size)))

    def from_bits(self, like: "Value") -> "Value":
        """The real number that has these bits."""
        return Value(self.builder, self.builder.bitcast(self.it, like.it.type))

    def to_real(self, like: "Value") -> "Value":
        """An integer as a real number of the other's kind."""
        return Value(self.builder, self.builder.sitofp(self.it, like.it.type))

    def _shaped(self, kind: ir.Type) -> ir.Type:
        return ir.VectorType(kind, self.it.type.count) if isinstance(self.it.type, ir.VectorType) else kind


def _where(condition: Value, first: Value | float, second: Value | float) -> Value:
    return condition.choose(first, second)


def _sign(x: Value) -> Value:
    dtype = next(dtype for dtype, kind in KINDS.items() if kind == x.kind)
    return (x > 0.0).to(dtype) - (x < 0.0).to(dtype)


def _maximum(x: Value, y: Value | float) -> Value:
    return x.intrinsic("maximum", y)


def _minimum(x: Value, y: Value | float) -> Value:
    return x.intrinsic("minimum", y)


def _clamp(x: Value, min: Value | float | None = None, max: Value | float | None = None) -> Value:
    x = x if min is None else _maximum(x, min)
    return x if max is None else _minimum(x, max)


def _addcmul(x: Value, y: Value, z: Value) -> Value:
    """x + y z, rounded once, as torch does where the processor has an instruction for it."""
    return y.times_plus(z, x)


def _lerp(x: Value, y: Value, weight: Value) -> Value:
    """From the end that is closer, as torch."""
    near = weight < 0.5
    return _addcmul(_where(near, x, y), _where(near, weight, weight - 1.0), y - x)


FUNCTIONS: dict[Any, Callable[..., Value]] = {
    torch.abs: lambda x: x.magnitude(),
    torch.sqrt: lambda x: x.intrinsic("sqrt"),
    torch.square: lambda x: x * x,
    torch.floor: lambda x: x.intrinsic("floor"),
    torch.sign: _sign,
    torch.where: _where,
    torch.maximum: _maximum,
    torch.minimum: _minimum,
    torch.clamp: _clamp,
    torch.addcmul: _addcmul,
    torch.lerp: _lerp,
    torch.exp: elementary.exp,
    torch.log: elementary.log,
    torch.expm1: elementary.expm1,
    torch.sin: elementary.sin,
    torch.cos: elementary.cos,
    torch.tanh: elementary.tanh,
    torch.sigmoid: elementary.sigmoid,
    torch.relu: lambda x: (x < 0.0).choose(0.0, x),
    functional.elu: lambda x, **defaults: (x > 0.0).choose(x, elementary.expm1(x)),
    functional.silu: lambda x, **defaults: x * elementary.sigmoid(x),
}
"""The functions of torch that a compiled function may use."""


def address(builder: ir.IRBuilder, base: ir.Value, kind: ir.Type, index: ir.Value) -> ir.Value:
    """Of a number; what is true or not takes a byte."""
    return builder.gep(base, [index], source_etype=_memory(kind))


class Column(NamedTuple):
    """One number of each row.

    Attributes:
        base: address of the first row's.
        kind: of the numbers, one of the values of ``KINDS``.
        stride: from one row's to the next, in numbers; 0 of one number for all rows.
    """

    base: ir.Value
    kind: ir.Type
    stride: int = 1

    def read(self, builder: ir.IRBuilder, row: ir.Value, lanes: int) -> Value:
        """Those of so many rows from this one on; of a single row if 1."""
        memory, shape = _memory(self.kind), _lanes(self.kind, lanes)
        place = builder.mul(row, INT(self.stride))
        if lanes == 1 or self.stride == 1:
            found = load(builder, _lanes(memory, lanes), self.base, place)
        else:
            found = ir.Constant(_lanes(memory, lanes), ir.Undefined)
            for lane in range(lanes):
                one = load(builder, memory, self.base, builder.add(place, INT(lane * self.stride)))
                found = builder.insert_element(found, one, ir.IntType(32)(lane))
        return Value(builder, builder.trunc(found, shape) if memory is _BYTE else found)

    def write(self, value: Value, row: ir.Value, lanes: int) -> None:
        """Put a value where :meth:`read` takes it from."""
        builder, memory = value.builder, _memory(self.kind)
        it = builder.zext(value.it, _lanes(memory, lanes)) if memory is _BYTE else value.it
        place = builder.mul(row, INT(self.stride))
        if lanes == 1 or self.stride == 1:
            store(builder, it, self.base, place)
            return
        for lane in range(lanes):
            one = builder.extract_element(it, ir.IntType(32)(lane))
            store(builder, one, self.base, builder.add(place, INT(lane * self.stride)))


def each_row(
    builder: ir.IRBuilder,
    count: ir.Value,
    inputs: Sequence[Column],
    outputs: Sequence[Column],
    function: Callable[..., Sequence[Value]],
) -> None:
    """Write ``outputs = function(row, *inputs)`` for ``count`` rows, ``row`` their numbers, int64 from 0 on."""

    def some(row: ir.Value, lanes: int) -> None:
        before = [column.read(builder, row, lanes) for column in inputs]
        for column, value in zip(outputs, function(_rows(builder, row, lanes), *before), strict=True):
            column.write(value, row, lanes)

    in_lanes(builder, count, some)


def in_lanes(builder: ir.IRBuilder, count: ir.Value, some: Callable[[ir.Value, int], None]) -> None:
    """Write ``some(row, lanes)`` for all of ``count`` rows: a vector of them at a time, and the rest one by one."""
    chunks = builder.sdiv(count, INT(LANES))
    with loop(builder, chunks) as chunk:
        some(builder.mul(chunk, INT(LANES)), LANES)
    done = builder.mul(chunks, INT(LANES))
    with loop(builder, builder.sub(count, done)) as rest:
        some(builder.add(done, rest), 1)


Memory = tuple[torch.dtype, int]
"""Of a column: what its numbers are, and their stride."""


def compile_rows(
    function: Callable[..., Sequence[Value]], inputs: Sequence[Memory], outputs: Sequence[Memory]
) -> Callable[..., None]:
    """``kernel(count, *inputs, *outputs)``, by addresses: ``outputs = function(row, *inputs)`` for each row.

    An output may be where an input is, not beside it: a row is read before it is written.
    """
    module = ir.Module()
    builder, (count, *bases) = declare(module, "rows", [INT, *[POINTER] * (len(inputs) + len(outputs))], alias=True)
    columns = [
        Column(base, KINDS[dtype], stride) for base, (dtype, stride) in zip(bases, [*inputs, *outputs], strict=True)
    ]
    each_row(builder, count, columns[: len(inputs)], columns[len(inputs) :], function)
    builder.ret_void()
    return compiled_function(builder.function)


def _memory(kind: ir.Type) -> ir.Type:
    return _BYTE if kind == KINDS[torch.bool] else kind


def _lanes(kind: ir.Type, lanes: int) -> ir.Type:
    return kind if lanes == 1 else ir.VectorType(kind, lanes)


def _rows(builder: ir.IRBuilder, row: ir.Value, lanes: int) -> Value:
    """The numbers of so many rows."""
    if lanes == 1:
        return Value(builder, row)
    count = Value(builder, ir.Constant(_lanes(INT, lanes), list(range(lanes))))
    return count + count.everywhere(row)
