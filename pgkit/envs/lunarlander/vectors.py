"""Vectors and rotations in the plane, of traced scalars: one number each, or one of each lane.

Each operation rounds in Box2D's order; products are not contracted with sums.
"""

from dataclasses import dataclass
from typing import Any

import torch
from llvmlite import ir

from pgkit.compiler.records import Struct
from pgkit.compiler.statements import Local
from pgkit.compiler.tracer import TracedScalar
from pgkit.envs.lunarlander.constants import EPSILON

Number = Any
"""A traced scalar, or a float where the other operand is a traced scalar."""


@dataclass(frozen=True)
class Vector:
    """A vector in the plane."""

    x: Number
    y: Number

    def __add__(self, other: "Vector") -> "Vector":
        return Vector(self.x + other.x, self.y + other.y)

    def __sub__(self, other: "Vector") -> "Vector":
        return Vector(self.x - other.x, self.y - other.y)

    def __mul__(self, factor: Number) -> "Vector":
        return Vector(self.x * factor, self.y * factor)

    def __neg__(self) -> "Vector":
        return Vector(-self.x, -self.y)


@dataclass(frozen=True)
class Rotation:
    """A rotation by an angle."""

    sin: Number
    cos: Number


@dataclass(frozen=True)
class Transform:
    """A rotation, then a translation: from a body's coordinates to the world's."""

    rotation: Rotation
    origin: Vector

    def apply(self, vector: Vector) -> Vector:
        """A point of the body in the world."""
        return rotate(self.rotation, vector) + self.origin

    def invert(self, vector: Vector) -> Vector:
        """A point of the world in the body's coordinates."""
        return rotate_back(self.rotation, vector - self.origin)


def dot(a: Vector, b: Vector) -> Number:
    return a.x * b.x + a.y * b.y


def cross(a: Vector, b: Vector) -> Number:
    return a.x * b.y - a.y * b.x


def spin_velocity(spin: Number, arm: Vector) -> Vector:
    """The velocity of a point at ``arm`` from the centre of a body that turns: spin x arm."""
    return Vector(-spin * arm.y, spin * arm.x)


def turn_right(a: Vector) -> Vector:
    """The vector turned by -90 degrees."""
    return Vector(a.y, -a.x)


def turn_left(a: Vector) -> Vector:
    """The vector turned by 90 degrees."""
    return Vector(-a.y, a.x)


def rotate(q: Rotation, v: Vector) -> Vector:
    return Vector(q.cos * v.x - q.sin * v.y, q.sin * v.x + q.cos * v.y)


def rotate_back(q: Rotation, v: Vector) -> Vector:
    return Vector(q.cos * v.x + q.sin * v.y, -q.sin * v.x + q.cos * v.y)


def length(a: Vector) -> Number:
    return torch.sqrt(dot(a, a))


def normalize(a: Vector) -> Vector:
    """The direction of a vector; one that is nearly zero stays as it is."""
    size = length(a)
    inverse = 1.0 / size
    is_small = size < EPSILON
    return where_vector(is_small, a, a * inverse)


def smaller(a: Number, b: Number) -> Number:
    """The smaller of two numbers, as C's ``a < b ? a : b``."""
    return (a < b).where(a, b) if isinstance(a, TracedScalar) else (b > a).where(a, b)


def larger(a: Number, b: Number) -> Number:
    """The larger of two numbers, as C's ``a > b ? a : b``."""
    return (a > b).where(a, b) if isinstance(a, TracedScalar) else (b < a).where(a, b)


def clamp(x: Number, low: Number, high: Number) -> Number:
    return larger(low, smaller(x, high))


def constant(like: TracedScalar, number: float) -> TracedScalar:
    """A number of the type of ``like``, in each lane."""
    return TracedScalar(like.builder, like.operand(number))


def constant_vector(like: TracedScalar, x: float, y: float) -> Vector:
    return Vector(constant(like, x), constant(like, y))


def where(condition: TracedScalar, a: Number, b: Number) -> Number:
    """``a`` where the condition is true, else ``b``; both may be float32 constants."""
    if isinstance(a, TracedScalar) or isinstance(b, TracedScalar):
        return condition.where(a, b)
    real = ir.FloatType()
    chosen = condition.builder.select(condition.ir_value, real(a), real(b))
    return TracedScalar(condition.builder, chosen)


def where_vector(condition: TracedScalar, a: Vector, b: Vector) -> Vector:
    return Vector(where(condition, a.x, b.x), where(condition, a.y, b.y))


def load_vector(record: Struct, name: str, index: Any = 0) -> Vector:
    """Vector ``index`` of a field, which holds x and y of each."""
    return Vector(record.get(name, index * 2), record.get(name, index * 2 + 1))


def store_vector(record: Struct, name: str, vector: Vector, index: Any = 0) -> None:
    """Write vector ``index`` of a field."""
    record.set(name, vector.x, index * 2)
    record.set(name, vector.y, index * 2 + 1)


class LocalVector:
    """A local variable that holds a vector."""

    def __init__(self, value: Vector) -> None:
        self._x = Local(value.x)
        self._y = Local(value.y)

    def get(self) -> Vector:
        return Vector(self._x.get(), self._y.get())

    def set(self, value: Vector) -> None:
        self._x.set(value.x)
        self._y.set(value.y)
