"""Elementary functions of traced scalars, built from operations that every processor rounds alike.

Each is a reduction of the argument to a small interval, where Taylor's series converges within few terms (Muller
2016, "Elementary Functions", ch. 11), without a branch, so that it is vector code wherever its caller is. Float32 and
float64, NaN where the argument is NaN, and an error of at most three units in the last place, see
``tests/test_elements.py``.
"""

import math
import struct
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import torch
from llvmlite import ir
from torch.nn import functional

from pgkit.compiler.tracer import IR_TYPES, TORCH_FUNCTIONS, TracedScalar

LN_2 = Fraction("0.693147180559945309417232121458176568075500134360255254120680")

HALF_PI = Fraction("1.57079632679489661923132169163975144209858469968755291048747")


class _Format(NamedTuple):
    """Of a floating-point number: the bits of its fraction, the exponent of 1, and terms of a series that suffice."""

    fraction: int
    bias: int
    terms: int


_FORMATS = {ir.FloatType(): _Format(23, 127, 7), ir.DoubleType(): _Format(52, 1023, 13)}


def exp(x: TracedScalar) -> TracedScalar:
    """The exponential function."""
    form = _FORMATS[x.element_type]
    limits = (form.bias + form.fraction + 1) * float(LN_2), (form.bias + 2) * float(LN_2)
    n, part = _exponent(x.clamp(-limits[0], limits[1]))
    half = n >> 1
    return (part + 1.0) * _power_of_two(half, x) * _power_of_two(n - half, x)


def log(x: TracedScalar) -> TracedScalar:
    """The natural logarithm of normal numbers, of zero and infinity, and NaN of negative ones."""
    form = _FORMATS[x.element_type]
    root = _bits_of(0.5**0.5, x.element_type)
    bits = x.bits()
    n = (bits - root) >> form.fraction  # x = 2^n m with m between the roots of 1/2 and 2
    more = (bits - (n << form.fraction)).from_bits(x) - 1.0
    ratio = more / (more + 2.0)  # log(1 + f) = 2 artanh(f / (2 + f))
    square = ratio * ratio
    series = _polynomial([2 / (2 * k + 3) for k in range(form.terms - 2)], square) * square
    near = more - ratio * (more - series)
    high, low = _split(LN_2, 2, x.element_type)
    exponent = n.to_float(x)
    result = exponent.fma(high, exponent.fma(low, near))
    result = (x == 0.0).where(-math.inf, (x < math.inf).where(result, x))
    return (x < 0.0).where(math.nan, result)


def expm1(x: TracedScalar) -> TracedScalar:
    """``exp(x) - 1`` without cancellation near 0, up to where that is the largest number."""
    form = _FORMATS[x.element_type]
    return _expm1(x.clamp(-(form.fraction + 2.0), form.bias * float(LN_2)))


def tanh(x: TracedScalar) -> TracedScalar:
    """The hyperbolic tangent, odd to the last bit."""
    twice = _expm1(x.abs().minimum(_FORMATS[x.element_type].fraction) * 2.0)
    return (twice / (twice + 2.0)).copysign(x)


def sigmoid(x: TracedScalar) -> TracedScalar:
    """``1 / (1 + exp(-x))``."""
    return 1.0 / (exp(-x) + 1.0)


def sin(x: TracedScalar) -> TracedScalar:
    """The sine, for arguments up to 1e5."""
    quarter, sine, cosine = _quarters(x)
    return _either(quarter, sine, cosine)


def cos(x: TracedScalar) -> TracedScalar:
    """The cosine, for arguments up to 1e5."""
    quarter, sine, cosine = _quarters(x)
    return _either(quarter + 1, sine, cosine)


def _expm1(x: TracedScalar) -> TracedScalar:
    n, part = _exponent(x)
    scale = _power_of_two(n, x)
    return scale.fma(part, scale - 1.0)


def _exponent(x: TracedScalar) -> tuple[TracedScalar, TracedScalar]:
    """``n``, an integer, and ``exp(r) - 1`` with ``x = n ln 2 + r``, |r| at most ln 2 / 2."""
    n, rest = _reduced(x, LN_2, 2)
    terms = _FORMATS[x.element_type].terms
    series = _polynomial([1 / math.factorial(k) for k in range(2, terms + 1)], rest)
    return n, series.fma(rest * rest, rest)


def _quarters(x: TracedScalar) -> tuple[TracedScalar, TracedScalar, TracedScalar]:
    """How many quarters of a turn, and sine and cosine of what is left, between -pi/4 and pi/4."""
    n, rest = _reduced(x, HALF_PI, 3)
    square = rest * rest
    signed = [(-1) ** (k // 2) / math.factorial(k) for k in range(_FORMATS[x.element_type].terms + 6)]
    sine = _polynomial(signed[3::2], square).fma(square * rest, rest)
    most = 1.0 - square * 0.5
    lost = (1.0 - most) - square * 0.5
    cosine = _polynomial(signed[4::2], square).fma(square * square, lost) + most
    return n, sine, cosine


def _either(quarter: TracedScalar, sine: TracedScalar, cosine: TracedScalar) -> TracedScalar:
    """The sine of an angle from those of its rest."""
    value = ((quarter & 1) == 0).where(sine, cosine)
    return ((quarter & 2) == 0).where(value, -value)


def _reduced(x: TracedScalar, unit: Fraction, parts: int) -> tuple[TracedScalar, TracedScalar]:
    """``n`` and ``r`` with ``x = n unit + r``, n the nearest integer; by a unit in so many parts, which add up to it.

    A number beyond 2^(fraction bits) has no bits left for a fraction: adding one rounds to an integer.
    """
    form = _FORMATS[x.element_type]
    magic = 1.5 * 2.0**form.fraction
    shifted = x.fma(float(1 / unit), magic)
    n, whole, rest = shifted.bits() - _bits_of(magic, x.element_type), shifted - magic, x
    for part in _split(unit, parts, x.element_type):
        rest = whole.fma(-part, rest)
    return n, rest


def _polynomial(coefficients: Sequence[float], x: TracedScalar) -> TracedScalar:
    """``c_0 + c_1 x + c_2 x^2 + ...`` by Horner's rule."""
    *rest, before, last = coefficients
    total = x.fma(last, before)
    for coefficient in reversed(rest):
        total = total.fma(x, coefficient)
    return total


def _power_of_two(n: TracedScalar, like: TracedScalar) -> TracedScalar:
    """``2^n`` of an exponent that a normal number can have."""
    form = _FORMATS[like.element_type]
    return ((n + form.bias) << form.fraction).from_bits(like)


def _split(number: Fraction, parts: int, kind: ir.Type) -> list[float]:
    """A number as a sum of floating-point numbers, each the nearest to what is left."""
    found = []
    for _ in range(parts):
        found.append(struct.unpack(*_packed(float(number), kind))[0])
        number -= Fraction(found[-1])
    return found


def _bits_of(number: float, kind: ir.Type) -> int:
    letter, packed = _packed(number, kind)
    return int(struct.unpack({"<f": "<i", "<d": "<q"}[letter], packed)[0])


def _packed(number: float, kind: ir.Type) -> tuple[str, bytes]:
    letter = "<f" if kind == ir.FloatType() else "<d"
    return letter, struct.pack(letter, number)


def _where(condition: TracedScalar, first: TracedScalar | float, second: TracedScalar | float) -> TracedScalar:
    return condition.where(first, second)


def _sign(x: TracedScalar) -> TracedScalar:
    dtype = next(dtype for dtype, kind in IR_TYPES.items() if kind == x.element_type)
    return (x > 0.0).to(dtype) - (x < 0.0).to(dtype)


def _maximum(x: TracedScalar, y: TracedScalar | float) -> TracedScalar:
    return x.intrinsic("maximum", y)


def _minimum(x: TracedScalar, y: TracedScalar | float) -> TracedScalar:
    return x.intrinsic("minimum", y)


def _clamp(
    x: TracedScalar, min: TracedScalar | float | None = None, max: TracedScalar | float | None = None
) -> TracedScalar:
    x = x if min is None else _maximum(x, min)
    return x if max is None else _minimum(x, max)


def _addcmul(x: TracedScalar, y: TracedScalar, z: TracedScalar) -> TracedScalar:
    """x + y z, rounded once, as torch does where the processor has an instruction for it."""
    return y.fma(z, x)


def _lerp(x: TracedScalar, y: TracedScalar, weight: TracedScalar) -> TracedScalar:
    """From the end that is closer, as torch."""
    near = weight < 0.5
    return _addcmul(_where(near, x, y), _where(near, weight, weight - 1.0), y - x)


TORCH_FUNCTIONS |= {
    torch.abs: lambda x: x.abs(),
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
    torch.exp: exp,
    torch.log: log,
    torch.expm1: expm1,
    torch.sin: sin,
    torch.cos: cos,
    torch.tanh: tanh,
    torch.sigmoid: sigmoid,
    torch.relu: lambda x: (x < 0.0).where(0.0, x),
    functional.elu: lambda x, **defaults: (x > 0.0).where(x, expm1(x)),
    functional.silu: lambda x, **defaults: x * sigmoid(x),
}
