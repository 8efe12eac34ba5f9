"""Contacts in the solver: a body must not approach an edge (normal), and friction brakes it (tangent).

Each iteration computes for each point the impulse that stops the relative velocity, clamps the sum of impulses so far
(contacts do not pull, friction is at most its coefficient times the normal impulse), and applies the difference. The
normal impulses of two points are found together, because otherwise a body that stands on two points rocks
(Catto, "Iterative dynamics with temporal coherence", GDC 2005). The ground does not move, so only one body appears.
"""

from typing import NamedTuple

from pgkit.compiler.records import Struct
from pgkit.compiler.statements import Local, when
from pgkit.compiler.tracer import TracedScalar
from pgkit.envs.lunarlander.bodies import BodyChoice, transform
from pgkit.envs.lunarlander.constants import MAX_CORRECTION, RADIUS, SLOP
from pgkit.envs.lunarlander.joints import Motion, Position
from pgkit.envs.lunarlander.vectors import (
    Number,
    Transform,
    Vector,
    clamp,
    constant,
    cross,
    dot,
    larger,
    load_vector,
    rotate,
    smaller,
    spin_velocity,
    store_vector,
    turn_right,
    where,
    where_vector,
)

MAX_CONDITION = 1000.0
"""Two points whose matrix is worse conditioned are too close together to be solved at once."""

POINTS = range(2)


class Weight(NamedTuple):
    """What a body opposes to impulses.

    Attributes:
        mass: the inverse of the mass.
        inertia: the inverse of the moment of inertia.
        center: height of the centre of mass above the origin.
    """

    mass: Number
    inertia: Number
    center: Number


def prepare_constraint(
    contact: Struct, constraint: Struct, center: Vector, place: Transform, choice: BodyChoice, friction: TracedScalar
) -> None:
    """Write the constraint, all of whose numbers are zero so far, of a contact that touches; impulses stay 0.

    Args:
        contact: with the manifold.
        constraint: of one lane.
        center: of mass.
        place: of the body.
        choice: the body's constants.
        friction: between body and edge.
    """
    is_body_face = contact.get("is_body_face")
    is_double = contact.get("count") > 1
    normal = _world_normal(contact, place, is_body_face)
    arms = [_contact_point(contact, point, place, is_body_face) - center for point in POINTS]
    constraint.set("friction", friction)
    constraint.set("is_body_face", where(is_body_face, 1.0, 0.0))
    store_vector(constraint, "normal", normal)
    store_vector(constraint, "face_normal", load_vector(contact, "normal"))
    store_vector(constraint, "plane_point", load_vector(contact, "plane_point"))
    constraint.set("has_point", 1.0, 0)
    constraint.set("has_point", where(is_double, 1.0, 0.0), 1)
    _prepare_point(constraint, contact, 0, arms[0], normal, choice)
    with when(is_double):
        store_vector(constraint, "points", load_vector(contact, "points", 1), 1)
        _prepare_block(constraint, contact, arms, normal, choice)


def _prepare_point(
    constraint: Struct, contact: Struct, point: int, arm: Vector, normal: Vector, choice: BodyChoice
) -> None:
    store_vector(constraint, "arm", arm, point)
    store_vector(constraint, "points", load_vector(contact, "points", point), point)
    lever = cross(arm, normal)
    tangent_lever = cross(arm, turn_right(normal))
    constraint.set("normal_mass", 1.0 / (choice.mass + choice.inertia * lever * lever), point)
    constraint.set("tangent_mass", 1.0 / (choice.mass + choice.inertia * tangent_lever * tangent_lever), point)


def _prepare_block(constraint: Struct, contact: Struct, arms: list[Vector], normal: Vector, choice: BodyChoice) -> None:
    """Both points together; if that is not possible, velocities are solved for the first one alone."""
    first, second = (cross(arm, normal) for arm in arms)
    xx = choice.mass + choice.inertia * first * first
    yy = choice.mass + choice.inertia * second * second
    xy = choice.mass + choice.inertia * first * second
    determinant = xx * yy - xy * xy
    with when(xx * xx < MAX_CONDITION * determinant):
        _prepare_point(constraint, contact, 1, arms[1], normal, choice)
        inverse = 1.0 / determinant
        constraint.set("is_block", 1.0)
        for k, value in enumerate((xx, xy, yy)):
            constraint.set("k", value, k)
        for k, value in enumerate((inverse * yy, -inverse * xy, inverse * xx)):
            constraint.set("inverse", value, k)


def copy_impulses(source: Struct, target: Struct, is_block: TracedScalar) -> None:
    """Copy the impulses of a contact to its constraint or back: of all points whose velocities are solved."""
    for name in _IMPULSES:
        target.set(name, source.get(name, 0), 0)
    with when(is_block > 0.0):
        for name in _IMPULSES:
            target.set(name, source.get(name, 1), 1)


_IMPULSES = ("normal_impulse", "tangent_impulse")


def _world_normal(contact: Struct, place: Transform, is_body_face: TracedScalar) -> Vector:
    """The direction from the edge to the body."""
    normal = load_vector(contact, "normal")
    return where_vector(is_body_face, -rotate(place.rotation, normal), normal)


def _contact_point(contact: Struct, point: int, place: Transform, is_body_face: TracedScalar) -> Vector:
    """The point in the middle between the surfaces of both skins."""
    face, plane, clip = _in_world(contact, "normal", point, place, is_body_face)
    on_face = clip + face * (RADIUS - dot(clip - plane, face))
    on_other = clip - face * RADIUS
    return (on_face + on_other) * 0.5


def _in_world(
    record: Struct, face_name: str, point: int, place: Transform, is_body_face: TracedScalar
) -> tuple[Vector, Vector, Vector]:
    """Normal of the reference face, a point of it, and the other shape's contact point, all in world coordinates."""
    face = load_vector(record, face_name)
    plane = load_vector(record, "plane_point")
    clip = load_vector(record, "points", point)
    return (
        where_vector(is_body_face, rotate(place.rotation, face), face),
        where_vector(is_body_face, place.apply(plane), plane),
        where_vector(is_body_face, clip, place.apply(clip)),
    )


def warm_start(constraint: Struct, motion: Motion, weight: Weight) -> None:
    """Apply the impulses of the last step again."""
    normal = load_vector(constraint, "normal")
    tangent = turn_right(normal)
    for point in POINTS:
        along = normal * constraint.get("normal_impulse", point)
        impulse = along + tangent * constraint.get("tangent_impulse", point)
        arm = load_vector(constraint, "arm", point)
        motion.spin.set(motion.spin.get() + weight.inertia * cross(arm, impulse))
        motion.velocity.set(motion.velocity.get() + impulse * weight.mass)


def solve_constraint(constraint: Struct, motion: Motion, weight: Weight) -> TracedScalar:
    """One iteration of velocities: friction of each point, then the normal impulses; whether any impulse changed."""
    normal = load_vector(constraint, "normal")
    tangent = turn_right(normal)
    arms = [load_vector(constraint, "arm", point) for point in POINTS]
    changes = []
    for point, arm in zip(POINTS, arms, strict=True):
        speed = dot(_point_velocity(motion, arm), tangent)
        limit = constraint.get("friction") * constraint.get("normal_impulse", point)
        before = constraint.get("tangent_impulse", point)
        after = clamp(before + constraint.get("tangent_mass", point) * -speed, -limit, limit)
        constraint.set("tangent_impulse", after, point)
        changes.append(after != before)
        impulse = tangent * (after - before)
        motion.velocity.set(motion.velocity.get() + impulse * weight.mass)
        motion.spin.set(motion.spin.get() + weight.inertia * cross(arm, impulse))
    old = [constraint.get("normal_impulse", point) for point in POINTS]
    speeds = [dot(_point_velocity(motion, arm), normal) for arm in arms]
    is_block = constraint.get("is_block") > 0.0
    single = larger(old[0] - constraint.get("normal_mass", 0) * speeds[0], constant(speeds[0], 0.0))
    both = _solve_block(constraint, old, speeds)
    new = [is_block.where(both[0], single), is_block.where(both[1], old[1])]
    impulses = []
    for point in POINTS:
        constraint.set("normal_impulse", new[point], point)
        changes.append(new[point] != old[point])
        impulses.append(normal * (new[point] - old[point]))
    motion.velocity.set(motion.velocity.get() + (impulses[0] + impulses[1]) * weight.mass)
    turn = cross(arms[0], impulses[0]) + cross(arms[1], impulses[1])
    motion.spin.set(motion.spin.get() + weight.inertia * turn)
    return changes[0] | changes[1] | changes[2] | changes[3]


def _point_velocity(motion: Motion, arm: Vector) -> Vector:
    return motion.velocity.get() + spin_velocity(motion.spin.get(), arm)


def _solve_block(constraint: Struct, before: list[TracedScalar], speeds: list[TracedScalar]) -> list[TracedScalar]:
    """Normal impulses of two points with: no impulse pulls, no point approaches, and one of both is zero at each point.

    Each point either touches (impulse, no velocity) or leaves (no impulse, velocity), which makes four cases. They are
    tried in order, the first one that holds is the solution. If none does, the impulses stay as they are.
    """
    xx, xy, yy = (constraint.get("k", k) for k in range(3))
    inverse_xx, inverse_xy, inverse_yy = (constraint.get("inverse", k) for k in range(3))
    masses = [constraint.get("normal_mass", point) for point in POINTS]
    zero = constant(speeds[0], 0.0)
    b = [
        speeds[0] - (xx * before[0] + xy * before[1]),
        speeds[1] - (xy * before[0] + yy * before[1]),
    ]
    both = [-(inverse_xx * b[0] + inverse_xy * b[1]), -(inverse_xy * b[0] + inverse_yy * b[1])]
    first = -masses[0] * b[0]
    second = -masses[1] * b[1]
    cases = [
        (both, both),
        ((first, xy * first + b[1]), [first, zero]),
        ((second, xy * second + b[0]), [zero, second]),
        (b, [zero, zero]),
    ]
    result = before
    for (x, y), impulses in reversed(cases):
        holds = smaller(x, y) >= 0.0  # cheaper in vectors than combining two comparisons
        result = [holds.where(new, old) for new, old in zip(impulses, result, strict=True)]
    return result


def correct_constraint(
    constraint: Struct, position: Position, weight: Weight, rate: float, is_active: TracedScalar
) -> TracedScalar:
    """One iteration of positions: push the body out of the edge; the smallest separation at its points before, or 0.

    Args:
        constraint: of a contact.
        position: of the body, in and out.
        weight: of the body.
        rate: share of the penetration that is corrected.
        is_active: lanes that are not finished; others are left as they are.
    """
    least = Local(constant(constraint.get("friction"), 0.0))
    for point in POINTS:
        corrected = is_active & (constraint.get("has_point", point) > 0.0)
        with when(corrected.any_lane()):
            separation = _correct_point(constraint, point, position, weight, rate, corrected)
            least.set(smaller(least.get(), corrected.where(separation, 0.0)))
    return least.get()


def _correct_point(
    constraint: Struct, point: int, position: Position, weight: Weight, rate: float, corrected: TracedScalar
) -> TracedScalar:
    """Push the body out of the edge at one point, in some lanes; the separation before."""
    center = position.center.get()
    angle = position.angle.get()
    place = transform(center, angle, weight.center)
    normal, clip, separation = _separation(constraint, point, place)
    arm = clip - center
    correction = clamp((separation + SLOP) * rate, -MAX_CORRECTION, 0.0)
    lever = cross(arm, normal)
    mass = weight.mass + weight.inertia * lever * lever
    impulse = normal * (-correction / mass)
    moved = center + impulse * weight.mass
    position.center.set(where_vector(corrected, moved, center))
    position.angle.set(corrected.where(angle + weight.inertia * cross(arm, impulse), angle))
    return separation


def _separation(constraint: Struct, point: int, place: Transform) -> tuple[Vector, Vector, TracedScalar]:
    """Normal towards the body, the point, and how far the skins are apart there."""
    is_body_face = constraint.get("is_body_face") > 0.0
    face, plane, clip = _in_world(constraint, "face_normal", point, place, is_body_face)
    separation = dot(clip - plane, face) - RADIUS - RADIUS
    return where_vector(is_body_face, -face, face), clip, separation
