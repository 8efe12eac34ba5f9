"""The distance of an edge and a polygon, and their closest features (GJK).

The difference of two convex shapes is a convex shape, whose distance from the origin is the distance of the two. A
simplex of up to three of its points is moved towards the origin: the part of it that is the closest is kept, and the
farthest point in the direction of the origin is added, until there is none. (Gilbert, Johnson and Keerthi 1988, "A fast
procedure for computing the distance between complex objects"; Catto, "Computing distance", GDC 2010.)
"""

from typing import Any

from llvmlite import ir

from pgkit.compiler.ir import POINTER, for_range, function
from pgkit.compiler.records import Layout, Struct, local_struct
from pgkit.compiler.statements import Local, block, endless_loop, integer, when
from pgkit.compiler.tracer import TracedScalar
from pgkit.envs.lunarlander.constants import EPSILON, MAX_VERTICES
from pgkit.envs.lunarlander.layout import REAL, WHOLE
from pgkit.envs.lunarlander.vectors import (
    Rotation,
    Transform,
    Vector,
    cross,
    dot,
    length,
    load_vector,
    rotate_back,
    store_vector,
    turn_left,
    turn_right,
    where_vector,
)

MAX_ITERATIONS = 20

SCENE = Layout(
    {
        "edge": (REAL, 4),
        "vertices": (REAL, 2 * MAX_VERTICES),
        "count": (WHOLE, 1),
        "local_center": (REAL, 1),
        "start_center": (REAL, 2),
        "start_angle": (REAL, 1),
        "center": (REAL, 2),
        "angle": (REAL, 1),
    }
)
"""An edge, and a polygon that moves."""

PLACE = Layout({"sin": (REAL, 1), "cos": (REAL, 1), "origin": (REAL, 2)})

_VERTEX = Layout(
    {
        "on_edge": (REAL, 2),
        "on_body": (REAL, 2),
        "gap": (REAL, 2),
        "weight": (REAL, 1),
        "edge_index": (WHOLE, 1),
        "body_index": (WHOLE, 1),
    }
)

SIMPLEX = Layout({"vertices": (_VERTEX, 3), "count": (WHOLE, 1), "metric": (REAL, 1), "distance": (REAL, 1)})
"""Points of the difference of both shapes; count 0 before the first search, and the next one begins with the last."""


def support(scene: Struct, name: str, count: TracedScalar, direction: Vector) -> TracedScalar:
    """The index of the first point that is the farthest in a direction."""
    best_index = Local(integer(scene.builder, 0))
    best = Local(dot(load_vector(scene, name), direction))
    with for_range(scene.builder, count.ir_value) as index:
        projection = dot(load_vector(scene, name, index), direction)
        is_better = projection > best.get()
        best_index.set(is_better.where(integer(scene.builder, index), best_index.get()))
        best.set(is_better.where(projection, best.get()))
    return best_index.get()


def edge_support(scene: Struct, direction: Vector) -> TracedScalar:
    return support(scene, "edge", integer(scene.builder, 2), direction)


def body_support(scene: Struct, q: Rotation, direction: Vector) -> TracedScalar:
    """As :func:`support`, with a direction of the world."""
    return support(scene, "vertices", scene.get("count"), rotate_back(q, direction))


def define_distance(module: ir.Module) -> ir.Function:
    """``(scene, place, simplex)``: write the distance and the closest features with the polygon at a place."""
    builder, addresses = function(module, "lunarlander.distance", [POINTER] * 3, private=True)
    scene, place, simplex = (
        Struct(builder, address, layout) for address, layout in zip(addresses, (SCENE, PLACE, SIMPLEX), strict=True)
    )
    at = Transform(Rotation(place.get("sin"), place.get("cos")), load_vector(place, "origin"))
    _begin(scene, at, simplex)
    _search(scene, at, simplex)
    simplex.set("distance", _closest_distance(simplex))
    simplex.set("metric", _metric(simplex))
    builder.ret_void()
    return builder.function


def _begin(scene: Struct, place: Transform, simplex: Struct) -> None:
    """The simplex of the last search where the shapes are now, unless its size has changed much."""
    builder = scene.builder
    with for_range(builder, simplex.get("count").ir_value) as k:
        _refresh(scene, place, simplex.item("vertices", k))
    with when(simplex.get("count") > 1):
        before = simplex.get("metric")
        now = _metric(simplex)
        with when((now < before * 0.5) | (before * 2.0 < now) | (now < EPSILON)):
            simplex.set("count", 0)
    with when(simplex.get("count") == 0):
        first = simplex.item("vertices", 0)
        first.set("edge_index", 0)
        first.set("body_index", 0)
        _refresh(scene, place, first)
        simplex.set("count", 1)


def _refresh(scene: Struct, place: Transform, vertex: Struct) -> None:
    """Where the points of a vertex's indices are."""
    on_edge = load_vector(scene, "edge", vertex.get("edge_index"))
    on_body = place.apply(load_vector(scene, "vertices", vertex.get("body_index")))
    store_vector(vertex, "on_edge", on_edge)
    store_vector(vertex, "on_body", on_body)
    store_vector(vertex, "gap", on_body - on_edge)


def _search(scene: Struct, place: Transform, simplex: Struct) -> None:
    builder = scene.builder
    rounds = Local(integer(builder, 0))
    before = local_struct(builder, SIMPLEX)
    with endless_loop(builder) as loop:
        loop.leave_if(rounds.get() == MAX_ITERATIONS)
        _copy_indices(simplex, before)
        _reduce(simplex)
        loop.leave_if(simplex.get("count") == 3)
        direction = _search_direction(simplex)
        loop.leave_if(dot(direction, direction) < EPSILON * EPSILON)
        added = simplex.item("vertices", simplex.get("count"))
        added.set("edge_index", edge_support(scene, -direction))
        added.set("body_index", body_support(scene, place.rotation, direction))
        _refresh(scene, place, added)
        rounds.set(rounds.get() + 1)
        # A pair of points that was in the simplex before brings no progress.
        is_known = Local(rounds.get() < 0)
        with for_range(builder, before.get("count").ir_value) as k:
            known = before.item("vertices", k)
            is_same = (known.get("edge_index") == added.get("edge_index")) & (
                known.get("body_index") == added.get("body_index")
            )
            is_known.set(is_known.get() | is_same)
        loop.leave_if(is_known.get())
        simplex.set("count", simplex.get("count") + 1)


def _copy_indices(simplex: Struct, target: Struct) -> None:
    target.set("count", simplex.get("count"))
    for k in range(3):
        for name in ("edge_index", "body_index"):
            target.item("vertices", k).set(name, simplex.item("vertices", k).get(name))


def _reduce(simplex: Struct) -> None:
    """Keep the part of the simplex that is the closest to the origin, and weight its vertices."""
    with when(simplex.get("count") == 2):
        _reduce_segment(simplex)
    with when(simplex.get("count") == 3):
        _reduce_triangle(simplex)


def _gap(simplex: Struct, index: int) -> Vector:
    return load_vector(simplex.item("vertices", index), "gap")


def _keep_one(simplex: Struct, index: int) -> None:
    if index:
        _copy_vertex(simplex, index, 0)
    simplex.set("count", 1)


def _keep_two(simplex: Struct, indices: tuple[int, int], weights: tuple[TracedScalar, TracedScalar]) -> None:
    """Keep two vertices with weights in proportion; the vertices' places are those that Box2D gives them."""
    inverse = 1.0 / (weights[0] + weights[1])
    for index, weight in zip(indices, weights, strict=True):
        simplex.item("vertices", index).set("weight", weight * inverse)
    if 2 in indices:  # the third one takes the place of the vertex that is dropped
        _copy_vertex(simplex, 2, 3 - sum(indices))
    simplex.set("count", 2)


def _copy_vertex(simplex: Struct, source: int, target: int) -> None:
    old, new = (simplex.item("vertices", k) for k in (source, target))
    for name, field in _VERTEX.fields.items():
        for k in range(field.size):
            new.set(name, old.get(name, k), k)


def _reduce_segment(simplex: Struct) -> None:
    w1, w2 = (_gap(simplex, k) for k in range(2))
    edge = w2 - w1
    to_second = -dot(w1, edge)
    to_first = dot(w2, edge)
    with block(simplex.builder) as cases:
        with when(to_second <= 0.0):
            _keep_one(simplex, 0)
            cases.leave()
        with when(to_first <= 0.0):
            _keep_one(simplex, 1)
            cases.leave()
        _keep_two(simplex, (0, 1), (to_first, to_second))


def _reduce_triangle(simplex: Struct) -> None:
    """By the signs of barycentric coordinates: of the three sides, and of the whole."""
    w1, w2, w3 = (_gap(simplex, k) for k in range(3))
    e12, e13, e23 = w2 - w1, w3 - w1, w3 - w2
    d12 = dot(w2, e12), -dot(w1, e12)
    d13 = dot(w3, e13), -dot(w1, e13)
    d23 = dot(w3, e23), -dot(w2, e23)
    area = cross(e12, e13)
    inside_1, inside_2, inside_3 = area * cross(w2, w3), area * cross(w3, w1), area * cross(w1, w2)
    regions: list[tuple[TracedScalar, Any]] = [
        ((d12[1] <= 0.0) & (d13[1] <= 0.0), 0),
        ((d12[0] > 0.0) & (d12[1] > 0.0) & (inside_3 <= 0.0), ((0, 1), d12)),
        ((d13[0] > 0.0) & (d13[1] > 0.0) & (inside_2 <= 0.0), ((0, 2), d13)),
        ((d12[0] <= 0.0) & (d23[1] <= 0.0), 1),
        ((d13[0] <= 0.0) & (d23[0] <= 0.0), 2),
        ((d23[0] > 0.0) & (d23[1] > 0.0) & (inside_1 <= 0.0), ((1, 2), d23)),
    ]
    with block(simplex.builder) as cases:
        for is_closest, kept in regions:
            with when(is_closest):
                if isinstance(kept, int):
                    _keep_one(simplex, kept)
                else:
                    _keep_two(simplex, *kept)
                cases.leave()


def _search_direction(simplex: Struct) -> Vector:
    """From the simplex, of one or two vertices, towards the origin."""
    w1, w2 = (_gap(simplex, k) for k in range(2))
    edge = w2 - w1
    is_left = cross(edge, -w1) > 0.0
    across = where_vector(is_left, turn_left(edge), turn_right(edge))
    return where_vector(simplex.get("count") == 1, -w1, across)


def _closest_distance(simplex: Struct) -> TracedScalar:
    """From the points of both shapes that are the closest; 0 if the origin is inside of the simplex."""
    first, second = (simplex.item("vertices", k) for k in range(2))
    points = []
    for name in ("on_edge", "on_body"):
        mixed = load_vector(first, name) * first.get("weight") + load_vector(second, name) * second.get("weight")
        points.append(where_vector(simplex.get("count") == 1, load_vector(first, name), mixed))
    return (simplex.get("count") == 3).where(0.0, length(points[0] - points[1]))


def _metric(simplex: Struct) -> TracedScalar:
    """The size of the simplex: 0, a length, or twice an area."""
    w1, w2, w3 = (_gap(simplex, k) for k in range(3))
    size = (simplex.get("count") == 2).where(length(w1 - w2), cross(w2 - w1, w3 - w1))
    return (simplex.get("count") == 1).where(0.0, size)


def at_fraction(scene: Struct, time: TracedScalar) -> tuple[Vector, TracedScalar]:
    """Centre and angle of the polygon after a fraction of its motion."""
    before = 1.0 - time
    center = load_vector(scene, "start_center") * before + load_vector(scene, "center") * time
    return center, before * scene.get("start_angle") + time * scene.get("angle")
