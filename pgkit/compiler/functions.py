"""Functions of torch for traced scalars, built from operations that every processor rounds alike.

An elementary function reduces its argument to a small interval, where Taylor's series converges within few terms
(Muller 2016, "Elementary Functions", ch. 11). There are no branches, so its code is vector code wherever its caller is.

Float32 and float64; NaN where the argument is NaN; an error of at most three units in the last place, as tested in
``tests/compiler/test_tracer.py``.
"""

import math
import struct
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import torch
from llvmlite import ir
from torch.nn import functional

from pgkit.compiler.tracer import TracedScalar, implements

LN_2 = Fraction("0.693147180559945309417232121458176568075500134360255254120680")

HALF_PI = Fraction("1.57079632679489661923132169163975144209858469968755291048747")


class _Format(NamedTuple):
    """A floating-point format.

    Attributes:
        fraction_bits: stored bits of the significand.
        bias: the stored exponent of 1.0.
        terms: terms of a series that reach its precision.
    """

    fraction_bits: int
    bias: int
    terms: int


_FORMATS = {ir.FloatType(): _Format(23, 127, 7), ir.DoubleType(): _Format(52, 1023, 13)}


@implements(torch.exp)
def exp(x: TracedScalar) -> TracedScalar:
    """The exponential function."""
    form = _FORMATS[x.element_type]
    low = -(form.bias + form.fraction_bits + 1) * float(LN_2)
    high = (form.bias + 2) * float(LN_2)
    n, part = _exp_minus_1_reduced(x.clamp(low, high))
    # 2^n is multiplied in two halves: at the ends of the range it is no normal number, although the result is one.
    half = n >> 1
    return (part + 1.0) * _power_of_two(half, x) * _power_of_two(n - half, x)


@implements(torch.log)
def log(x: TracedScalar) -> TracedScalar:
    """The natural logarithm of normal numbers, zero and infinity; NaN of negative numbers."""
    form = _FORMATS[x.element_type]
    # x = 2^n m with m between the roots of 1/2 and 2. The bits of a float are its exponent, then its fraction, so
    # subtracting the bits of that root and shifting the fraction out leaves n, and subtracting n from the exponent
    # leaves m.
    root = _bits_of(0.5**0.5, x.element_type)
    bits = x.bits()
    n = (bits - root) >> form.fraction_bits
    f = (bits - (n << form.fraction_bits)).from_bits(x) - 1.0
    ratio = f / (f + 2.0)  # log(1 + f) = 2 artanh(f / (2 + f))
    square = ratio * ratio
    series = _polynomial([2 / (2 * k + 3) for k in range(form.terms - 2)], square) * square
    log_m = f - ratio * (f - series)
    # n ln 2 is added in two parts, the first of which is nearly the product, so that their sum is rounded once.
    high, low = _split(LN_2, 2, x.element_type)
    exponent = n.to_float(x)
    result = exponent.fma(high, exponent.fma(low, log_m))
    result = (x == 0.0).where(-math.inf, (x < math.inf).where(result, x))
    return (x < 0.0).where(math.nan, result)


@implements(torch.expm1)
def expm1(x: TracedScalar) -> TracedScalar:
    """``exp(x) - 1`` without cancellation near 0, for results up to the largest power of two."""
    form = _FORMATS[x.element_type]
    return _expm1(x.clamp(-(form.fraction_bits + 2.0), form.bias * float(LN_2)))


@implements(torch.tanh)
def tanh(x: TracedScalar) -> TracedScalar:
    """The hyperbolic tangent, odd to the last bit; beyond ``fraction_bits`` it is 1."""
    twice = _expm1(x.abs().minimum(_FORMATS[x.element_type].fraction_bits) * 2.0)
    return (twice / (twice + 2.0)).copysign(x)


@implements(torch.sigmoid)
def sigmoid(x: TracedScalar) -> TracedScalar:
    """``1 / (1 + exp(-x))``."""
    return 1.0 / (exp(-x) + 1.0)


@implements(torch.sin)
def sin(x: TracedScalar) -> TracedScalar:
    """The sine, for arguments up to 1e5."""
    quarter, sine, cosine = _reduced_sine_and_cosine(x)
    return _sine_in_quarter(quarter, sine, cosine)


@implements(torch.cos)
def cos(x: TracedScalar) -> TracedScalar:
    """The cosine, for arguments up to 1e5: the sine a quarter of a turn later."""
    quarter, sine, cosine = _reduced_sine_and_cosine(x)
    return _sine_in_quarter(quarter + 1, sine, cosine)


def _expm1(x: TracedScalar) -> TracedScalar:
    """``2^n (exp(r) - 1) + (2^n - 1)``, of an argument whose 2^n is a normal number."""
    n, part = _exp_minus_1_reduced(x)
    scale = _power_of_two(n, x)
    return scale.fma(part, scale - 1.0)


def _exp_minus_1_reduced(x: TracedScalar) -> tuple[TracedScalar, TracedScalar]:
    """``n``, an integer, and ``exp(r) - 1`` with ``x = n ln 2 + r``, |r| at most ln 2 / 2."""
    n, rest = _reduced(x, LN_2, 2)
    terms = _FORMATS[x.element_type].terms
    series = _polynomial([1 / math.factorial(k) for k in range(2, terms + 1)], rest)
    return n, series.fma(rest * rest, rest)


def _reduced_sine_and_cosine(x: TracedScalar) -> tuple[TracedScalar, TracedScalar, TracedScalar]:
    """The number of quarter turns, and sine and cosine of the remaining angle in [-pi/4, pi/4]."""
    n, rest = _reduced(x, HALF_PI, 3)
    square = rest * rest
    signed = [(-1) ** (k // 2) / math.factorial(k) for k in range(_FORMATS[x.element_type].terms + 6)]
    sine = _polynomial(signed[3::2], square).fma(square * rest, rest)
    # 1 - x^2 / 2 is rounded; what rounding lost is exact, and is added together with the small terms.
    leading = 1.0 - square * 0.5
    lost = (1.0 - leading) - square * 0.5
    cosine = _polynomial(signed[4::2], square).fma(square * square, lost) + leading
    return n, sine, cosine


def _sine_in_quarter(quarter: TracedScalar, sine: TracedScalar, cosine: TracedScalar) -> TracedScalar:
    """The sine of ``quarter`` quarter turns and an angle, by sine and cosine of the angle.

    The lowest bit of ``quarter`` swaps sine and cosine, the next one changes the sign.
    """
    value = ((quarter & 1) == 0).where(sine, cosine)
    return ((quarter & 2) == 0).where(value, -value)


def _reduced(x: TracedScalar, unit: Fraction, parts: int) -> tuple[TracedScalar, TracedScalar]:
    """``n`` and ``r`` with ``x = n unit + r``, n the nearest integer (Cody and Waite 1980).

    The unit is the sum of ``parts`` floats: subtracting n times each of them, rounded once each, keeps the bits of r
    that a single float would lose.
    """
    form = _FORMATS[x.element_type]
    # A float beyond 2^fraction_bits has no bits left for a fraction: adding one rounds to an integer, which then
    # stands in the lowest bits of the sum.
    magic = 1.5 * 2.0**form.fraction_bits
    shifted = x.fma(float(1 / unit), magic)
    n = shifted.bits() - _bits_of(magic, x.element_type)
    whole = shifted - magic
    rest = x
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
    """``2^n`` of an exponent that a normal number can have: its bits are the exponent, and a fraction of zeros."""
    form = _FORMATS[like.element_type]
    return ((n + form.bias) << form.fraction_bits).from_bits(like)


def _split(number: Fraction, parts: int, element_type: ir.Type) -> list[float]:
    """A number as a sum of floats, each the nearest to what the ones before leave."""
    floats: list[float] = []
    for _ in range(parts):
        floats.append(struct.unpack(*_packed(float(number), element_type))[0])
        number -= Fraction(floats[-1])
    return floats


def _bits_of(number: float, element_type: ir.Type) -> int:
    letter, packed = _packed(number, element_type)
    return int(struct.unpack({"<f": "<i", "<d": "<q"}[letter], packed)[0])


def _packed(number: float, element_type: ir.Type) -> tuple[str, bytes]:
    letter = "<f" if element_type == ir.FloatType() else "<d"
    return letter, struct.pack(letter, number)


@implements(torch.abs)
def _abs(x: TracedScalar) -> TracedScalar:
    return x.abs()


@implements(torch.sqrt)
def _sqrt(x: TracedScalar) -> TracedScalar:
    return x.intrinsic("sqrt")


@implements(torch.square)
def _square(x: TracedScalar) -> TracedScalar:
    return x * x


@implements(torch.floor)
def _floor(x: TracedScalar) -> TracedScalar:
    return x.intrinsic("floor")


@implements(torch.remainder)
def _remainder(x: TracedScalar, y: TracedScalar | float) -> TracedScalar:
    """``x - y floor(x / y)`` for y > 0 and quotients up to 2^52, rounded once, as torch, NumPy and Python do."""
    if isinstance(y, TracedScalar) or not y > 0.0:
        raise TypeError(f"torch.remainder is compiled for a positive number as the divisor, not {y}")
    n = (x / y).intrinsic("floor")
    rest = (-n).fma(y, x)
    # The quotient may have been rounded up to the next integer: then the rest is negative.
    return (rest < 0.0).where((1.0 - n).fma(y, x), rest)


@implements(torch.sign)
def _sign(x: TracedScalar) -> TracedScalar:
    return (x > 0.0).to(x.dtype) - (x < 0.0).to(x.dtype)


@implements(torch.where)
def _where(condition: TracedScalar, first: TracedScalar | float, second: TracedScalar | float) -> TracedScalar:
    return condition.where(first, second)


@implements(torch.maximum)
def _maximum(x: TracedScalar, y: TracedScalar | float) -> TracedScalar:
    return x.intrinsic("maximum", y)


@implements(torch.minimum)
def _minimum(x: TracedScalar, y: TracedScalar | float) -> TracedScalar:
    return x.intrinsic("minimum", y)


@implements(torch.clamp)
def _clamp(
    x: TracedScalar, min: TracedScalar | float | None = None, max: TracedScalar | float | None = None
) -> TracedScalar:
    x = x if min is None else _maximum(x, min)
    return x if max is None else _minimum(x, max)


@implements(torch.addcmul)
def _addcmul(x: TracedScalar, y: TracedScalar, z: TracedScalar) -> TracedScalar:
    """``x + y z``, rounded once, as torch does where the processor has an instruction for it."""
    return y.fma(z, x)


@implements(torch.lerp)
def _lerp(x: TracedScalar, y: TracedScalar, weight: TracedScalar) -> TracedScalar:
    """Interpolate from the end that is closer, as torch does."""
    is_near_x = weight < 0.5
    return _addcmul(_where(is_near_x, x, y), _where(is_near_x, weight, weight - 1.0), y - x)


@implements(torch.relu)
def _relu(x: TracedScalar) -> TracedScalar:
    return (x < 0.0).where(0.0, x)


@implements(functional.elu)
def _elu(x: TracedScalar, **defaults: object) -> TracedScalar:
    """``alpha`` and so on are torch's defaults, which it passes on."""
    return (x > 0.0).where(x, expm1(x))


@implements(functional.silu)
def _silu(x: TracedScalar, **defaults: object) -> TracedScalar:
    return x * sigmoid(x)
