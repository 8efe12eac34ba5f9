"""The hinges between lander and legs, with a motor that presses the leg outwards, and with limits of the angle.

A joint keeps two points together (two equations) and, at a limit, the angle between the bodies (a third one). Each
iteration computes the impulse that makes the relative velocity zero: Catto, "Iterative dynamics with temporal
coherence", GDC 2005. The matrix K says how much the relative velocity changes by a unit impulse.
"""

from typing import NamedTuple

import numpy as np

from pgkit.compiler.records import Struct
from pgkit.compiler.statements import Local, when
from pgkit.compiler.tracer import TracedScalar
from pgkit.envs.lunarlander.bodies import rotation
from pgkit.envs.lunarlander.constants import (
    ANGULAR_SLOP,
    JOINTS,
    LANDER,
    LANDER_ANCHOR,
    LEG,
    MAX_ANGULAR_CORRECTION,
    MAX_MOTOR_IMPULSE,
    SLOP,
    JointConstants,
)
from pgkit.envs.lunarlander.vectors import (
    LocalVector,
    Number,
    Rotation,
    Vector,
    clamp,
    constant,
    constant_vector,
    cross,
    length,
    load_vector,
    rotate,
)

_MASSES = float(np.float32(LANDER.mass) + np.float32(LEG.mass))
_INERTIAS = float(np.float32(LANDER.inertia) + np.float32(LEG.inertia))


class Motion(NamedTuple):
    """The velocity of a body while it is solved."""

    velocity: LocalVector
    spin: Local


class Position(NamedTuple):
    """The centre and the angle of a body while they are corrected."""

    center: LocalVector
    angle: Local


class _Vector3(NamedTuple):
    x: Number
    y: Number
    z: Number

    def dot(self, other: "_Vector3") -> Number:
        return self.x * other.x + self.y * other.y + self.z * other.z

    def cross(self, other: "_Vector3") -> "_Vector3":
        return _Vector3(
            self.y * other.z - self.z * other.y,
            self.z * other.x - self.x * other.z,
            self.x * other.y - self.y * other.x,
        )


class Joint(NamedTuple):
    """A joint in one velocity solve: what does not change during its iterations, and its impulses.

    Attributes:
        constants: of the joint.
        record: that the impulses are read from and written to.
        arms: from the centres of lander and leg to the hinge.
        columns: of the symmetric matrix K for both coordinates of the hinge and the angle.
        determinant_2: the inverse of the determinant of K's upper left 2x2 block.
        determinant_3: the inverse of K's determinant; 0 without a limit.
        minors: cross product of the second and the third column.
        motor_mass: the inverse of K's last element.
        limit: -1, 0 or 1.
        free_above: 0 at a limit, else -1: the limit is free if its impulse times ``limit`` is greater.
        impulse: so far, of both coordinates.
        limit_impulse: so far.
        motor_impulse: so far.
    """

    constants: JointConstants
    record: Struct
    arms: tuple[Vector, Vector]
    columns: tuple[_Vector3, _Vector3, _Vector3]
    determinant_2: TracedScalar
    determinant_3: TracedScalar
    minors: _Vector3
    motor_mass: TracedScalar
    limit: TracedScalar
    free_above: TracedScalar
    impulse: LocalVector
    limit_impulse: Local
    motor_impulse: Local


def prepare_joint(index: int, record: Struct, lander: Struct, leg: Struct) -> Joint:
    """Joint ``index`` at the start of a step, where both bodies are."""
    constants = JOINTS[index]
    rotations = [Rotation(body.get("sin"), body.get("cos")) for body in (lander, leg)]
    angles = [body.get("angle") for body in (lander, leg)]
    arm_a = rotate(rotations[0], constant_vector(angles[0], *LANDER_ANCHOR))
    arm_b = rotate(rotations[1], constant_vector(angles[0], *constants.anchor))
    first, second, third = columns = _matrix(arm_a, arm_b)
    minors = second.cross(third)
    angle = angles[1] - angles[0] - constants.reference
    limit = (angle <= constants.lower).where(-1.0, (angle >= constants.upper).where(constant(angle, 1.0), 0.0))
    # A limit's impulse is kept only while the joint stays at the same limit.
    is_limited = limit != 0.0
    is_kept = (limit == record.get("limit")) & is_limited
    record.set("limit", limit)
    return Joint(
        constants,
        record,
        (arm_a, arm_b),
        columns,
        1.0 / (first.x * second.y - first.y * first.y),
        is_limited.where(1.0 / first.dot(minors), 0.0),
        minors,
        1.0 / third.z,
        limit,
        is_limited.where(constant(limit, 0.0), -1.0),
        LocalVector(load_vector(record, "impulse")),
        Local(is_kept.where(record.get("impulse", 2), 0.0)),
        Local(record.get("motor_impulse")),
    )


def _matrix(a: Vector, b: Vector) -> tuple[_Vector3, _Vector3, _Vector3]:
    """K of arms a and b; sums and products in Box2D's order."""
    mass = _MASSES
    xx = a.y * a.y * LANDER.inertia + mass + b.y * b.y * LEG.inertia
    xy = -a.y * a.x * LANDER.inertia - b.y * b.x * LEG.inertia
    xz = -a.y * LANDER.inertia - b.y * LEG.inertia
    yy = a.x * a.x * LANDER.inertia + mass + b.x * b.x * LEG.inertia
    yz = a.x * LANDER.inertia + b.x * LEG.inertia
    zz = constant(a.x, _INERTIAS)
    return _Vector3(xx, xy, xz), _Vector3(xy, yy, yz), _Vector3(xz, yz, zz)


def warm_start_joint(joint: Joint, lander: Motion, leg: Motion) -> None:
    """Apply the impulses of the last step again: near the solution, fewer iterations are needed."""
    turn = joint.motor_impulse.get(), joint.limit_impulse.get()
    impulse = joint.impulse.get()
    turn_a, turn_b = (cross(arm, impulse) + turn[0] + turn[1] for arm in joint.arms)
    _apply(impulse, turn_a, turn_b, lander, leg)


def _apply(impulse: Vector, turn_a: TracedScalar, turn_b: TracedScalar, lander: Motion, leg: Motion) -> None:
    """Push the leg, and the lander with the opposite impulse."""
    lander.velocity.set(lander.velocity.get() - impulse * LANDER.mass)
    lander.spin.set(lander.spin.get() - turn_a * LANDER.inertia)
    leg.velocity.set(leg.velocity.get() + impulse * LEG.mass)
    leg.spin.set(leg.spin.get() + turn_b * LEG.inertia)


def solve_joint(joint: Joint, lander: Motion, leg: Motion) -> None:
    """One iteration: the motor, then hinge and limit together.

    A limit only pushes back. If its impulses so far and the new one would pull together, the limit is let go: its
    impulses so far are taken back, and the hinge is solved without it. In lanes without a limit, its impulses and the
    inverse of K's determinant are 0, so that they need nothing of their own.
    """
    _drive_motor(joint, lander, leg)
    arm_a, arm_b = joint.arms
    velocity_a = lander.velocity.get()
    velocity_b = leg.velocity.get()
    spin_a = lander.spin.get()
    spin_b = leg.spin.get()
    slip = Vector(
        velocity_b.x - spin_b * arm_b.y - velocity_a.x + spin_a * arm_a.y,
        velocity_b.y + spin_b * arm_b.x - velocity_a.y - spin_a * arm_a.x,
    )
    before = joint.limit_impulse.get()
    push = _limited_impulse(joint, _Vector3(slip.x, slip.y, spin_b - spin_a))
    after = before - push.z
    is_free = joint.limit * after > joint.free_above
    _, _, third = joint.columns
    free = _free_impulse(joint, Vector(slip.x - before * third.x, slip.y - before * third.y))
    impulse = Vector(is_free.where(free.x, push.x), is_free.where(free.y, push.y))
    turn = is_free.where(before, push.z)
    joint.limit_impulse.set(is_free.where(0.0, after))
    joint.impulse.set(joint.impulse.get() - impulse)
    lander.velocity.set(velocity_a + impulse * LANDER.mass)
    lander.spin.set(spin_a + (cross(arm_a, impulse) + turn) * LANDER.inertia)
    leg.velocity.set(velocity_b - impulse * LEG.mass)
    leg.spin.set(spin_b - (cross(arm_b, impulse) + turn) * LEG.inertia)


def _drive_motor(joint: Joint, lander: Motion, leg: Motion) -> None:
    excess = leg.spin.get() - lander.spin.get() - joint.constants.speed
    before = joint.motor_impulse.get()
    after = clamp(before + -joint.motor_mass * excess, -MAX_MOTOR_IMPULSE, MAX_MOTOR_IMPULSE)
    joint.motor_impulse.set(after)
    change = after - before
    lander.spin.set(lander.spin.get() - change * LANDER.inertia)
    leg.spin.set(leg.spin.get() + change * LEG.inertia)


def _free_impulse(joint: Joint, b: Vector) -> Vector:
    """Solve K's upper left block for ``b``: the impulse that causes this relative velocity."""
    first, second, _ = joint.columns
    return Vector(
        joint.determinant_2 * (second.y * b.x - first.y * b.y), joint.determinant_2 * (first.x * b.y - first.y * b.x)
    )


def _limited_impulse(joint: Joint, b: _Vector3) -> _Vector3:
    """Solve K for ``b`` by Cramer's rule, likewise."""
    first, second, third = joint.columns
    return _Vector3(
        joint.determinant_3 * b.dot(joint.minors),
        joint.determinant_3 * first.dot(b.cross(third)),
        joint.determinant_3 * first.dot(second.cross(b)),
    )


def store_joint(joint: Joint) -> None:
    """Write the impulses, with which the next step begins."""
    impulse = joint.impulse.get()
    for k, value in enumerate((impulse.x, impulse.y, joint.limit_impulse.get())):
        joint.record.set("impulse", value, k)
    joint.record.set("motor_impulse", joint.motor_impulse.get())


def correct_joint(joint: Joint, lander: Position, leg: Position, is_active: TracedScalar) -> TracedScalar:
    """Turn and move both bodies so that limit and hinge hold; whether they held before.

    Args:
        joint: as the velocity solve left it, with that limit.
        lander: in and out.
        leg: in and out.
        is_active: lanes that are not finished; others are left as they are.
    """
    angular_error = _correct_limit(joint, lander, leg, is_active)
    q_a, q_b = rotation(lander.angle.get()), rotation(leg.angle.get())
    a = rotate(q_a, constant_vector(q_a.sin, *LANDER_ANCHOR))
    b = rotate(q_b, constant_vector(q_b.sin, *joint.constants.anchor))
    gap = leg.center.get() + b - lander.center.get() - a
    xx = LANDER.inertia * a.y * a.y + _MASSES + LEG.inertia * b.y * b.y
    xy = -LANDER.inertia * a.x * a.y - LEG.inertia * b.x * b.y
    yy = LANDER.inertia * a.x * a.x + _MASSES + LEG.inertia * b.x * b.x
    determinant = 1.0 / (xx * yy - xy * xy)
    impulse = -Vector(determinant * (yy * gap.x - xy * gap.y), determinant * (xx * gap.y - xy * gap.x))
    _shift(lander, impulse * -LANDER.mass, -LANDER.inertia * cross(a, impulse), is_active)
    _shift(leg, impulse * LEG.mass, LEG.inertia * cross(b, impulse), is_active)
    return (length(gap) <= SLOP) & (angular_error <= ANGULAR_SLOP)


def _correct_limit(joint: Joint, lander: Position, leg: Position, is_active: TracedScalar) -> TracedScalar:
    """Turn both bodies back from beyond a limit; how far they were beyond."""
    error = Local(constant(joint.limit, 0.0))
    is_limited = (joint.limit != 0.0) & is_active
    with when(is_limited.any_lane()):
        angle = leg.angle.get() - lander.angle.get() - joint.constants.reference
        below = angle - joint.constants.lower
        above = angle - joint.constants.upper
        raise_by = clamp(below + ANGULAR_SLOP, -MAX_ANGULAR_CORRECTION, 0.0)
        lower_by = clamp(above - ANGULAR_SLOP, 0.0, MAX_ANGULAR_CORRECTION)
        is_lower = joint.limit < 0.0
        impulse = -joint.motor_mass * is_lower.where(raise_by, lower_by)
        error.set(is_limited.where(is_lower.where(-below, above), 0.0))
        for body, inertia in ((lander, -LANDER.inertia), (leg, LEG.inertia)):
            turned = body.angle.get() + inertia * impulse
            body.angle.set(is_limited.where(turned, body.angle.get()))
    return error.get()


def _shift(body: Position, move: Vector, turn: TracedScalar, is_active: TracedScalar) -> None:
    """Move and turn a body in the lanes that are not finished."""
    center = body.center.get()
    moved = center + move
    body.center.set(Vector(is_active.where(moved.x, center.x), is_active.where(moved.y, center.y)))
    angle = body.angle.get()
    body.angle.set(is_active.where(angle + turn, angle))
