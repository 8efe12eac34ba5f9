"""How a polygon touches an edge: a normal, and one or two points (the contact manifold).

The axis along which both overlap the least is either the edge's normal or that of a side of the polygon. It belongs to
the reference face. The side of the other shape that is the most opposed to it is clipped to the sides of the reference
face, and what lies below the face are the points. (Gottschalk 1996, "Separating axis theorem and bounding boxes";
Catto, "Contact manifolds", GDC 2007.)
"""

from typing import Any, NamedTuple

import torch
from llvmlite import ir

from pgkit.compiler.ir import INT, POINTER, Index, for_range, function
from pgkit.compiler.records import Layout, Struct, local_struct
from pgkit.compiler.statements import Local, integer, number, when
from pgkit.compiler.tracer import TracedScalar
from pgkit.envs.lunarlander.bodies import POLYGON, BodyChoice, load_transform, pair_parts
from pgkit.envs.lunarlander.constants import LARGEST, SKIN, real
from pgkit.envs.lunarlander.contacts import begin_touching, end_touching
from pgkit.envs.lunarlander.layout import CONTACT, RECORD
from pgkit.envs.lunarlander.vectors import (
    Transform,
    Vector,
    dot,
    load_vector,
    normalize,
    rotate,
    smaller,
    store_vector,
    turn_right,
    where_vector,
)

_RELATIVE_PREFERENCE = real(0.98)
_ABSOLUTE_PREFERENCE = real(0.001)
"""A side of the polygon is the reference face only if it is clearly better: so the choice does not flip."""

_SEGMENT = Layout({"points": (torch.float32, 4), "ids": (torch.int32, 2)})

_FACE = 1
"""A feature is a vertex (0) or a face (1)."""


def feature_id(index_a: Any, index_b: Any, type_a: int, type_b: int) -> Any:
    """Which features of both shapes made a point. Points of two steps with equal ids are the same point."""
    return index_a + index_b * 256 + (type_a + type_b * 2) * 65536


class _Scene(NamedTuple):
    """An edge and a polygon in the world.

    Attributes:
        builder: of the function.
        choice: the body's constants.
        place: of the body.
        polygon: vertices and normals in the world.
        start: of the edge.
        end: of the edge.
        normal: of the edge as Box2D has it, which points downwards.
        is_front: whether the polygon's centre lies on the side of that normal.
        facing: the normal on the polygon's side.
    """

    builder: ir.IRBuilder
    choice: BodyChoice
    place: Transform
    polygon: Struct
    start: Vector
    end: Vector
    normal: Vector
    is_front: TracedScalar
    facing: Vector


class _Axis(NamedTuple):
    """An axis and how far the shapes are apart along it."""

    separation: TracedScalar
    side: TracedScalar


class _Reference(NamedTuple):
    """The reference face."""

    start: Vector
    end: Vector
    normal: Vector
    start_index: TracedScalar
    end_index: TracedScalar


def define_update_contact(module: ir.Module) -> ir.Function:
    """``(record, pair)``: how a body touches an edge now. Impulses of points that remain are kept."""
    builder, (address, pair) = function(module, "lunarlander.update_contact", [POINTER, INT], private=True)
    record = Struct(builder, address, RECORD)
    edge, body = pair_parts(TracedScalar(builder, pair))
    contact = record.item("contacts", pair)
    new = local_struct(builder, CONTACT)
    new.set("count", 0)
    _collide(_scene(record, edge, body), new)
    was_touching = contact.get("is_touching")
    is_touching = new.get("count") > 0
    _keep_impulses(contact, new)
    contact.set("is_touching", is_touching)
    contact.set("is_enabled", 1)
    with when(is_touching & ~was_touching):
        begin_touching(record, body)
    with when(was_touching & ~is_touching):
        end_touching(record, body)
    builder.ret_void()
    return builder.function


def _keep_impulses(contact: Struct, new: Struct) -> None:
    """Write the new manifold over the old one; points with equal ids keep their impulses."""
    builder = contact.builder
    old_count = contact.get("count")
    old = [(contact.get("ids", k), [contact.get(name, k) for name in _IMPULSES]) for k in range(2)]
    for point in range(2):
        impulses = [number(builder, ir.FloatType(), 0.0) for _ in _IMPULSES]
        for k in (1, 0):  # the first one that matches counts
            identifier, kept = old[k]
            matches = (old_count > k) & (identifier == new.get("ids", point))
            impulses = [matches.where(a, b) for a, b in zip(kept, impulses, strict=True)]
        for name, impulse in zip(_IMPULSES, impulses, strict=True):
            contact.set(name, impulse, point)
        contact.set("ids", new.get("ids", point), point)
    for name in ("normal", "plane_point", "points"):
        for k in range(contact.layout.fields[name].size):
            contact.set(name, new.get(name, k), k)
    contact.set("count", new.get("count"))
    contact.set("is_body_face", new.get("is_body_face"))


_IMPULSES = ("normal_impulse", "tangent_impulse")


def _scene(record: Struct, edge: TracedScalar, body: TracedScalar) -> _Scene:
    builder = record.builder
    choice = BodyChoice(body)
    place = load_transform(record.item("bodies", body))
    shape = choice.polygon()
    polygon = local_struct(builder, POLYGON)
    with for_range(builder, choice.count.ir_value) as vertex:
        store_vector(polygon, "vertices", place.apply(load_vector(shape, "vertices", vertex)), vertex)
        store_vector(polygon, "normals", rotate(place.rotation, load_vector(shape, "normals", vertex)), vertex)
    line = record.item("edges", edge)
    start = load_vector(line, "start")
    end = load_vector(line, "end")
    normal = turn_right(normalize(end - start))
    is_front = dot(normal, place.apply(choice.centroid) - start) >= 0.0
    facing = where_vector(is_front, normal, -normal)
    return _Scene(builder, choice, place, polygon, start, end, normal, is_front, facing)


def _collide(scene: _Scene, new: Struct) -> None:
    """Write the manifold to ``new``; its count stays 0 if the shapes are apart."""
    edge_separation = _edge_separation(scene)
    with when(~(edge_separation > SKIN)):
        side = _polygon_separation(scene)
        with when(~(side.separation > SKIN)):
            is_body_face = side.separation > edge_separation * _RELATIVE_PREFERENCE + _ABSOLUTE_PREFERENCE
            new.set("is_body_face", is_body_face)
            with scene.builder.if_else(is_body_face.ir_value) as (then, otherwise):
                with then:
                    _collide_with_side(scene, side.side, new)
                with otherwise:
                    _collide_with_edge(scene, new)


def _edge_separation(scene: _Scene) -> TracedScalar:
    """The smallest distance of a vertex from the edge's line."""
    least = Local(number(scene.builder, ir.FloatType(), LARGEST))
    with for_range(scene.builder, scene.choice.count.ir_value) as vertex:
        distance = dot(scene.facing, load_vector(scene.polygon, "vertices", vertex) - scene.start)
        least.set((distance < least.get()).where(distance, least.get()))
    return least.get()


def _polygon_separation(scene: _Scene) -> _Axis:
    """The side of the polygon from which the edge is the farthest.

    If the edge is beyond one of them, the separation is more than the skin.
    """
    builder = scene.builder
    best = Local(number(builder, ir.FloatType(), -LARGEST))
    best_index = Local(integer(builder, 0))
    with for_range(builder, scene.choice.count.ir_value) as side:
        vertex = load_vector(scene.polygon, "vertices", side)
        inwards = -load_vector(scene.polygon, "normals", side)
        separation = smaller(dot(inwards, vertex - scene.start), dot(inwards, vertex - scene.end))
        is_better = separation > best.get()
        best_index.set(is_better.where(integer(builder, side), best_index.get()))
        best.set(is_better.where(separation, best.get()))
    return _Axis(best.get(), best_index.get())


def _collide_with_edge(scene: _Scene, new: Struct) -> None:
    """The edge is the reference face: clip the polygon's side that is opposed to it."""
    builder = scene.builder
    least = Local(number(builder, ir.FloatType(), LARGEST))
    first = Local(integer(builder, 0))
    with for_range(builder, scene.choice.count.ir_value) as side:
        cosine = dot(scene.facing, load_vector(scene.polygon, "normals", side))
        is_better = cosine < least.get()
        first.set(is_better.where(integer(builder, side), first.get()))
        least.set(is_better.where(cosine, least.get()))
    segment = local_struct(builder, _SEGMENT)
    for point, vertex in enumerate((first.get(), _next_vertex(scene, first.get()))):
        store_vector(segment, "points", load_vector(scene.polygon, "vertices", vertex), point)
        segment.set("ids", feature_id(0, vertex, _FACE, 0), point)
    zero = integer(builder, 0)
    reference = _Reference(
        where_vector(scene.is_front, scene.start, scene.end),
        where_vector(scene.is_front, scene.end, scene.start),
        scene.facing,
        scene.is_front.where(zero, 1),
        scene.is_front.where(integer(builder, 1), 0),
    )
    points = _clip_to_reference(segment, reference, swap=False)
    store_vector(new, "normal", reference.normal)
    store_vector(new, "plane_point", reference.start)
    _keep_below(points, reference, new, scene.place)


def _collide_with_side(scene: _Scene, side: TracedScalar, new: Struct) -> None:
    """A side of the polygon is the reference face: clip the edge."""
    segment = local_struct(scene.builder, _SEGMENT)
    for point, vertex in enumerate((scene.start, scene.end)):
        store_vector(segment, "points", vertex, point)
        segment.set("ids", feature_id(0, side, 0, _FACE), point)
    after = _next_vertex(scene, side)
    reference = _Reference(
        load_vector(scene.polygon, "vertices", side),
        load_vector(scene.polygon, "vertices", after),
        load_vector(scene.polygon, "normals", side),
        side,
        after,
    )
    points = _clip_to_reference(segment, reference, swap=True)
    shape = scene.choice.polygon()
    store_vector(new, "normal", load_vector(shape, "normals", side))
    store_vector(new, "plane_point", load_vector(shape, "vertices", side))
    _keep_below(points, reference, new, None)


def _next_vertex(scene: _Scene, vertex: TracedScalar) -> TracedScalar:
    after = vertex + 1
    return (after < scene.choice.count).where(after, 0)


def _clip_to_reference(segment: Struct, reference: _Reference, swap: bool) -> "_Clipped":
    """What of a segment lies between the two ends of the reference face."""
    tangent = turn_right(reference.normal)
    once = _clip(segment, tangent, dot(tangent, reference.start), reference.start_index)
    twice = _clip(once.segment, -tangent, dot(-tangent, reference.end), reference.end_index)
    return _Clipped(twice.segment, (once.points >= 2).where(twice.points, 0))


class _Clipped(NamedTuple):
    segment: Struct
    points: TracedScalar


def _clip(segment: Struct, normal: Vector, offset: TracedScalar, vertex: TracedScalar) -> _Clipped:
    """The part of a segment behind a plane. Where it crosses the plane, a new point appears."""
    builder = segment.builder
    result = local_struct(builder, _SEGMENT)
    count = Local(integer(builder, 0))

    def append(point: Vector, identifier: TracedScalar) -> None:
        store_vector(result, "points", point, Index(builder, count.get().ir_value))
        result.set("ids", identifier, count.get())
        count.set(count.get() + 1)

    points = [load_vector(segment, "points", k) for k in range(2)]
    ids = [segment.get("ids", k) for k in range(2)]
    distances = [dot(normal, point) - offset for point in points]
    for point, identifier, distance in zip(points, ids, distances, strict=True):
        with when(distance <= 0.0):
            append(point, identifier)
    with when(distances[0] * distances[1] < 0.0):
        fraction = distances[0] / (distances[0] - distances[1])
        index_b = (ids[0] >> 8) & 255
        append(points[0] + (points[1] - points[0]) * fraction, feature_id(vertex, index_b, 0, _FACE))
    return _Clipped(result, count.get())


def _keep_below(clipped: _Clipped, reference: _Reference, new: Struct, place: Transform | None) -> None:
    """Write the clipped points that lie below the reference face, in the coordinates of the other shape.

    Args:
        clipped: the points.
        reference: the face.
        new: the manifold.
        place: of the body if the face is the edge; None if it is a side of the body, and the world's coordinates stay.
    """
    count = Local(integer(new.builder, 0))
    with when(clipped.points >= 2):
        for k in range(2):
            point = load_vector(clipped.segment, "points", k)
            with when(dot(reference.normal, point - reference.start) <= SKIN):
                local = point if place is None else place.invert(point)
                store_vector(new, "points", local, Index(new.builder, count.get().ir_value))
                new.set("ids", _stored_id(clipped.segment.get("ids", k), swap=place is None), count.get())
                count.set(count.get() + 1)
    new.set("count", count.get())


def _stored_id(identifier: TracedScalar, swap: bool) -> TracedScalar:
    """Ids of points on a side of the polygon name the shapes in the other order."""
    if not swap:
        return identifier
    index_a = identifier & 255
    index_b = (identifier >> 8) & 255
    type_a = (identifier >> 16) & 1
    type_b = (identifier >> 17) & 1
    return index_b + index_a * 256 + (type_b + type_a * 2) * 65536
