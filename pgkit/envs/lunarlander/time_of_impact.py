"""When a moving polygon begins to touch an edge, as a fraction of its motion (conservative advancement).

At a time at which both are apart, their closest features give an axis. The polygon may move until it is near along this
axis: that time is a root of the distance along the axis, which is bracketed and found by bisection and secants in
turns. There the closest features are looked for again. (Catto, "Continuous collision", GDC 2013.)
"""

from typing import NamedTuple

import numpy as np
from llvmlite import ir

from pgkit.compiler.ir import INT, POINTER, for_range, function
from pgkit.compiler.records import Layout, Struct, local_struct
from pgkit.compiler.statements import Local, endless_loop, integer, number, when
from pgkit.compiler.tracer import TracedScalar
from pgkit.envs.lunarlander.bodies import BodyChoice, pair_parts, transform
from pgkit.envs.lunarlander.constants import PI, SKIN, SLOP, real
from pgkit.envs.lunarlander.distance import (
    PLACE,
    SCENE,
    SIMPLEX,
    at_fraction,
    body_support,
    edge_support,
)
from pgkit.envs.lunarlander.layout import FLAG, REAL, RECORD
from pgkit.envs.lunarlander.vectors import (
    Transform,
    dot,
    load_vector,
    normalize,
    rotate,
    smaller,
    store_vector,
    turn_right,
    where_vector,
)

TARGET = max(SLOP, real(np.float32(SKIN) - np.float32(3) * np.float32(SLOP)))
"""The distance without skins at which shapes count as touching: less than both skins, more than none."""

TOLERANCE = real(np.float32(0.25) * np.float32(SLOP))
FAR = real(np.float32(TARGET) + np.float32(TOLERANCE))
NEAR = real(np.float32(TARGET) - np.float32(TOLERANCE))
TWO_PI = real(np.float32(2) * PI)

MAX_AXES = 20
MAX_PUSHES = 16
MAX_ROOT_STEPS = 50

_AXIS = Layout(
    {
        "direction": (REAL, 2),  # of the polygon's coordinates if it is one of its sides, else of the world's
        "point": (REAL, 2),  # the middle of the face, in the same coordinates
        "is_body_face": (FLAG, 1),
        "is_edge_face": (FLAG, 1),
    }
)


class _Support(NamedTuple):
    """The points of edge and polygon that are the deepest along the axis."""

    edge_index: TracedScalar
    body_index: TracedScalar


def define_time_of_impact(module: ir.Module, distance: ir.Function) -> ir.Function:
    """``(record, pair)``: write the contact's event time, a fraction of the step; 1 if there is no event.

    If of ground and body one has been advanced in this step (by an event), the other one is advanced as far.
    """
    builder, (address, pair) = function(module, "lunarlander.time_of_impact", [POINTER, INT], private=True)
    record = Struct(builder, address, RECORD)
    edge, body_number = pair_parts(TracedScalar(builder, pair))
    body = record.item("bodies", body_number)
    contact = record.item("contacts", pair)
    _synchronize(record, body)
    scene = _scene(record.item("edges", edge), body, BodyChoice(body_number))
    time, touches = _first_touch(scene, distance)
    start = body.get("start_fraction")
    event = smaller(start + (1.0 - start) * time, 1.0)
    contact.set("event_time", touches.where(event, 1.0))
    contact.set("has_event_time", 1)
    builder.ret_void()
    return builder.function


def advance(body: Struct, fraction: TracedScalar) -> None:
    """Let the motion of a body in this step begin later."""
    before = body.get("start_fraction")
    beta = (fraction - before) / (1.0 - before)
    rest = 1.0 - beta
    store_vector(body, "start_center", load_vector(body, "start_center") * rest + load_vector(body, "center") * beta)
    body.set("start_angle", rest * body.get("start_angle") + beta * body.get("angle"))
    body.set("start_fraction", fraction)


def _synchronize(record: Struct, body: Struct) -> None:
    ground = record.get("ground_fraction")
    fraction = body.get("start_fraction")
    with when(ground < fraction):
        record.set("ground_fraction", fraction)
    with when(fraction < ground):
        advance(body, ground)


def _scene(edge: Struct, body: Struct, choice: BodyChoice) -> Struct:
    builder = body.builder
    scene = local_struct(builder, SCENE)
    store_vector(scene, "edge", load_vector(edge, "start"), 0)
    store_vector(scene, "edge", load_vector(edge, "end"), 1)
    polygon = choice.polygon()
    with for_range(builder, choice.count.ir_value) as vertex:
        store_vector(scene, "vertices", load_vector(polygon, "vertices", vertex), vertex)
    scene.set("count", choice.count)
    scene.set("local_center", choice.center)
    # Angles near 0 have more digits.
    turns = (body.get("start_angle") / TWO_PI).intrinsic("floor") * TWO_PI
    for name in ("start_angle", "angle"):
        scene.set(name, body.get(name) - turns)
    for name in ("start_center", "center"):
        store_vector(scene, name, load_vector(body, name))
    return scene


def _place(scene: Struct, time: TracedScalar) -> Transform:
    center, angle = at_fraction(scene, time)
    return transform(center, angle, scene.get("local_center"))


def _first_touch(scene: Struct, distance: ir.Function) -> tuple[TracedScalar, TracedScalar]:
    """The time, and whether the shapes begin to touch then."""
    builder = scene.builder
    simplex = local_struct(builder, SIMPLEX)
    axis = local_struct(builder, _AXIS)
    place_record = local_struct(builder, PLACE)
    real_type = ir.FloatType()
    touches = Local(number(builder, ir.IntType(1), 0))
    early = Local(number(builder, real_type, 0.0))
    late = Local(number(builder, real_type, 1.0))
    axes = Local(integer(builder, 0))
    pushes = Local(integer(builder, 0))
    with endless_loop(builder) as outer:
        place = _place(scene, early.get())
        _store_place(place_record, place)
        builder.call(distance, [scene.address, place_record.address, simplex.address])
        gap = simplex.get("distance")
        outer.leave_if(gap <= 0.0)
        with when(gap < FAR):
            touches.set(number(builder, ir.IntType(1), 1))
            outer.leave()
        _choose_axis(scene, simplex, place, axis)
        late.set(number(builder, real_type, 1.0))
        pushes.set(integer(builder, 0))
        with endless_loop(builder) as inner:
            place = _place(scene, late.get())
            points = _deepest(scene, axis, place)
            late_gap = _separation(scene, axis, points, place)
            outer.leave_if(late_gap > FAR)
            with when(late_gap > NEAR):
                early.set(late.get())
                inner.leave()
            early_gap = _separation(scene, axis, points, _place(scene, early.get()))
            outer.leave_if(early_gap < NEAR)
            with when(early_gap <= FAR):
                touches.set(number(builder, ir.IntType(1), 1))
                outer.leave()
            _find_root(scene, axis, points, (early.get(), early_gap), (late, late_gap))
            pushes.set(pushes.get() + 1)
            inner.leave_if(pushes.get() == MAX_PUSHES)
        axes.set(axes.get() + 1)
        outer.leave_if(axes.get() == MAX_AXES)
    return early.get(), touches.get()


def _store_place(record: Struct, place: Transform) -> None:
    record.set("sin", place.rotation.sin)
    record.set("cos", place.rotation.cos)
    store_vector(record, "origin", place.origin)


def _choose_axis(scene: Struct, simplex: Struct, place: Transform, axis: Struct) -> None:
    """The axis of the closest features: through two vertices, or the normal of a face of one shape."""
    first, second = (simplex.item("vertices", k) for k in range(2))
    edge_1, edge_2 = (load_vector(scene, "edge", vertex.get("edge_index")) for vertex in (first, second))
    body_1, body_2 = (load_vector(scene, "vertices", vertex.get("body_index")) for vertex in (first, second))
    is_pair = simplex.get("count") == 1
    is_body_face = ~is_pair & (first.get("edge_index") == second.get("edge_index"))
    axis.set("is_body_face", is_body_face)
    axis.set("is_edge_face", ~is_pair & ~is_body_face)
    on_body = place.apply(body_1)
    with when(is_pair):
        store_vector(axis, "direction", normalize(on_body - edge_1))
    with when(is_body_face):
        middle = (body_1 + body_2) * 0.5
        direction = normalize(turn_right(body_2 - body_1))
        is_behind = dot(edge_1 - place.apply(middle), rotate(place.rotation, direction)) < 0.0
        store_vector(axis, "direction", where_vector(is_behind, -direction, direction))
        store_vector(axis, "point", middle)
    with when(axis.get("is_edge_face")):
        middle = (edge_1 + edge_2) * 0.5
        direction = normalize(turn_right(edge_2 - edge_1))
        is_behind = dot(on_body - middle, direction) < 0.0
        store_vector(axis, "direction", where_vector(is_behind, -direction, direction))
        store_vector(axis, "point", middle)


def _deepest(scene: Struct, axis: Struct, place: Transform) -> _Support:
    direction = load_vector(axis, "direction")
    towards_body = where_vector(axis.get("is_body_face"), -rotate(place.rotation, direction), direction)
    return _Support(edge_support(scene, towards_body), body_support(scene, place.rotation, -direction))


def _separation(scene: Struct, axis: Struct, points: _Support, place: Transform) -> TracedScalar:
    """How far the deepest points are apart along the axis."""
    direction = load_vector(axis, "direction")
    face_point = load_vector(axis, "point")
    on_edge = load_vector(scene, "edge", points.edge_index)
    on_body = place.apply(load_vector(scene, "vertices", points.body_index))
    from_edge = dot(on_body - where_vector(axis.get("is_edge_face"), face_point, on_edge), direction)
    from_body = dot(on_edge - place.apply(face_point), rotate(place.rotation, direction))
    return axis.get("is_body_face").where(from_body, from_edge)


def _find_root(
    scene: Struct,
    axis: Struct,
    points: _Support,
    early: tuple[TracedScalar, TracedScalar],
    late: tuple[Local, TracedScalar],
) -> None:
    """Set the late time to one at which the points are as far apart as the target, between two times and distances."""
    builder = scene.builder
    low, low_gap = Local(early[0]), Local(early[1])
    high, high_gap = Local(late[0].get()), Local(late[1])
    steps = Local(integer(builder, 0))
    with endless_loop(builder) as loop:
        secant = low.get() + (TARGET - low_gap.get()) * (high.get() - low.get()) / (high_gap.get() - low_gap.get())
        middle = (low.get() + high.get()) * 0.5
        time = ((steps.get() & 1) == 1).where(secant, middle)
        steps.set(steps.get() + 1)
        gap = _separation(scene, axis, points, _place(scene, time))
        with when((gap - TARGET).abs() < TOLERANCE):
            late[0].set(time)
            loop.leave()
        is_far = gap > TARGET
        low.set(is_far.where(time, low.get()))
        low_gap.set(is_far.where(gap, low_gap.get()))
        high.set(is_far.where(high.get(), time))
        high_gap.set(is_far.where(high_gap.get(), gap))
        loop.leave_if(steps.get() == MAX_ROOT_STEPS)
