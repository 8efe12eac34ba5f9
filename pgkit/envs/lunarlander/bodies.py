"""Bodies: the rotation that belongs to an angle, and the place of a body that turns about its centre of mass."""

import math
from typing import Any

import torch
from llvmlite import ir

from pgkit.compiler.records import Layout, Struct, constant_struct
from pgkit.compiler.tracer import TracedScalar
from pgkit.envs.lunarlander.constants import BODIES, LANDER, LEG, MAX_VERTICES, BodyConstants
from pgkit.envs.lunarlander.layout import REAL
from pgkit.envs.lunarlander.vectors import (
    Number,
    Rotation,
    Transform,
    Vector,
    constant,
    load_vector,
    rotate,
    store_vector,
    where,
)

_SIN = tuple(map(float.fromhex, ("-0x1.555545995a603p-3", "0x1.1107605230bc4p-7", "-0x1.994eb3774cf24p-13")))
_COS = tuple(
    map(
        float.fromhex,
        ("-0x1.ffffffd0c621cp-2", "0x1.55553e1068f19p-5", "-0x1.6c087e89a359dp-10", "0x1.99343027bf8c3p-16"),
    )
)
"""Coefficients of sine and cosine on [-pi/4, pi/4] in float64, as in the C library's float32 functions."""

_MAGIC = 1.5 * 2.0**52
"""A float64 of this size has no bits left for a fraction, so adding it rounds to an integer."""

POLYGON = Layout({"vertices": (REAL, 2 * MAX_VERTICES), "normals": (REAL, 2 * MAX_VERTICES)})
POLYGONS = Layout({"items": (POLYGON, 2)})


def rotation(angle: TracedScalar) -> Rotation:
    """Sine and cosine of a float32 angle, to the bit those of the GNU C library.

    They are computed in float64 and rounded once. The library's results are not always the nearest floats, so its
    polynomials are part of the bits. Angles are reduced by quarter turns: the lowest bit of their number swaps sine
    and cosine, the next one changes signs.
    """
    x = angle.to(torch.float64)
    shifted = x * (2.0 / math.pi) + _MAGIC
    quarter = shifted.bits()
    rest = x - (shifted - _MAGIC) * (math.pi / 2)
    square = rest * rest
    sine = rest + rest * square * (square * (square * _SIN[2] + _SIN[1]) + _SIN[0])
    cosine = square * (square * (square * (square * _COS[3] + _COS[2]) + _COS[1]) + _COS[0]) + 1.0
    is_even = (quarter & 1) == 0
    sin = is_even.where(sine, cosine)
    cos = is_even.where(cosine, sine)
    sin = ((quarter & 2) == 0).where(sin, -sin)
    cos = (((quarter + 1) & 2) == 0).where(cos, -cos)
    return Rotation(sin.to(torch.float32), cos.to(torch.float32))


def transform(center: Vector, angle: TracedScalar, local_center: Number) -> Transform:
    """Where a body is whose centre of mass lies ``local_center`` above its origin."""
    q = rotation(angle)
    height = local_center if isinstance(local_center, TracedScalar) else constant(angle, local_center)
    return Transform(q, center - rotate(q, Vector(constant(angle, 0.0), height)))


def load_transform(body: Struct) -> Transform:
    """The place of a body that its record holds."""
    return Transform(Rotation(body.get("sin"), body.get("cos")), load_vector(body, "origin"))


def store_transform(body: Struct, place: Transform) -> None:
    body.set("sin", place.rotation.sin)
    body.set("cos", place.rotation.cos)
    store_vector(body, "origin", place.origin)


class BodyChoice:
    """The constants of one body, whose number is known only when the code runs.

    Args:
        body: its number, int64.
    """

    def __init__(self, body: TracedScalar) -> None:
        self._body = body
        self.is_lander = body == 0
        self.mass = self._choose(lambda constants: constants.mass)
        self.inertia = self._choose(lambda constants: constants.inertia)
        self.center = self._choose(lambda constants: constants.center)
        self.centroid = Vector(
            self._choose(lambda constants: constants.centroid[0]), self._choose(lambda constants: constants.centroid[1])
        )
        self.count = self.is_lander.where(integer_like(body, LANDER.sides), LEG.sides)

    def _choose(self, constant: Any) -> TracedScalar:
        return where(self.is_lander, constant(LANDER), constant(LEG))

    def friction(self, edge: TracedScalar) -> TracedScalar:
        """Between the body and an edge."""
        below = where(self.is_lander, LANDER.friction[0], LEG.friction[0])
        terrain = where(self.is_lander, LANDER.friction[1], LEG.friction[1])
        return (edge == 0).where(below, terrain)

    def polygon(self) -> Struct:
        """Vertices and normals of the shape."""
        builder = self._body.builder
        numbers = [number for constants in (LANDER, LEG) for number in _polygon(constants)]
        table = constant_struct(builder.module, builder, "lunarlander.polygons", POLYGONS, numbers)
        return table.item("items", (~self.is_lander).to(torch.int64))


def integer_like(like: TracedScalar, number: int) -> TracedScalar:
    """An int64 constant."""
    return TracedScalar(like.builder, ir.Constant(like.ir_value.type, number))


def pair_index(edge: Any, body: Any) -> Any:
    """The number of the pair of an edge and a body."""
    return edge * BODIES + body


def pair_parts(pair: TracedScalar) -> tuple[TracedScalar, TracedScalar]:
    """Edge and body of a pair."""
    builder = pair.builder
    bodies = ir.Constant(pair.ir_value.type, BODIES)
    return (
        TracedScalar(builder, builder.udiv(pair.ir_value, bodies)),
        TracedScalar(builder, builder.urem(pair.ir_value, bodies)),
    )


def _polygon(constants: BodyConstants) -> list[float]:
    """Vertices, then normals, each padded to six."""
    padding = [0.0] * (2 * (MAX_VERTICES - constants.sides))
    return [
        number for array in (constants.vertices, constants.normals) for number in [*map(float, array.ravel()), *padding]
    ]
