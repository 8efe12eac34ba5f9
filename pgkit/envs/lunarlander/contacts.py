"""Which bodies may touch which edges: boxes with a margin, and the list of the pairs whose boxes overlap.

A body's box is larger than the body, so that it need not be changed at every step. Only when the body leaves it, it
gets a new one, and new pairs are searched. The list is kept in the order of age, the newest pair first, because the
solver treats contacts in the order of the list, and that is part of the result's bits.
"""

from llvmlite import ir

from pgkit.compiler.ir import BYTE, INT, POINTER, Index, for_range, function
from pgkit.compiler.records import Struct
from pgkit.compiler.statements import Local, integer, when
from pgkit.compiler.tracer import TracedScalar
from pgkit.envs.lunarlander.bodies import BodyChoice, load_transform, pair_index, pair_parts, transform
from pgkit.envs.lunarlander.constants import AABB_MARGIN, AABB_MULTIPLIER, BODIES, EDGES, RADIUS
from pgkit.envs.lunarlander.layout import RECORD
from pgkit.envs.lunarlander.vectors import (
    LocalVector,
    Transform,
    Vector,
    larger,
    load_vector,
    smaller,
    store_vector,
)


def smaller_vector(a: Vector, b: Vector) -> Vector:
    return Vector(smaller(a.x, b.x), smaller(a.y, b.y))


def larger_vector(a: Vector, b: Vector) -> Vector:
    return Vector(larger(a.x, b.x), larger(a.y, b.y))


def widen(lower: Vector, upper: Vector, margin: float) -> tuple[Vector, Vector]:
    """The corners of a box that is larger on each side."""
    return Vector(lower.x - margin, lower.y - margin), Vector(upper.x + margin, upper.y + margin)


def overlap(a: Struct, b: Struct) -> TracedScalar:
    """Whether two boxes overlap."""
    a_lower, a_upper = load_vector(a, "lower"), load_vector(a, "upper")
    b_lower, b_upper = load_vector(b, "lower"), load_vector(b, "upper")
    beyond = b_lower - a_upper
    before = a_lower - b_upper
    return ~((beyond.x > 0.0) | (beyond.y > 0.0) | (before.x > 0.0) | (before.y > 0.0))


def store_box(box: Struct, lower: Vector, upper: Vector) -> None:
    store_vector(box, "lower", lower)
    store_vector(box, "upper", upper)


def polygon_box(choice: BodyChoice, *places: Transform) -> tuple[Vector, Vector]:
    """The corners of the smallest box around a body, with its skin, at one or two places."""
    polygon = choice.polygon()
    first = places[0].apply(load_vector(polygon, "vertices"))
    lower = LocalVector(first)
    upper = LocalVector(first)
    with for_range(first.x.builder, choice.count.ir_value) as vertex:
        for place in places:
            corner = place.apply(load_vector(polygon, "vertices", vertex))
            lower.set(smaller_vector(lower.get(), corner))
            upper.set(larger_vector(upper.get(), corner))
    return widen(lower.get(), upper.get(), RADIUS)


def define_update_box(module: ir.Module) -> ir.Function:
    """``(record, body, moved)``: give a body that has left its box a new one, and set the byte ``moved``.

    The new box is extended by where the body will be if it goes on like in this step.
    """
    builder, (address, body_number, moved) = function(
        module, "lunarlander.update_box", [POINTER, INT, POINTER], private=True
    )
    record = Struct(builder, address, RECORD)
    body = record.item("bodies", body_number)
    choice = BodyChoice(TracedScalar(builder, body_number))
    start = transform(load_vector(body, "start_center"), body.get("start_angle"), choice.center)
    end = load_transform(body)
    lower, upper = polygon_box(choice, start, end)
    box = body.item("box")
    inside_lower = lower - load_vector(box, "lower")
    inside_upper = load_vector(box, "upper") - upper
    is_inside = (inside_lower.x >= 0.0) & (inside_lower.y >= 0.0) & (inside_upper.x >= 0.0) & (inside_upper.y >= 0.0)
    with when(~is_inside):
        ahead = (end.origin - start.origin) * AABB_MULTIPLIER
        lower, upper = widen(lower, upper, AABB_MARGIN)
        store_box(box, _extend(lower, ahead, is_lower=True), _extend(upper, ahead, is_lower=False))
        builder.store(BYTE(1), moved)
    builder.ret_void()
    return builder.function


def _extend(corner: Vector, ahead: Vector, is_lower: bool) -> Vector:
    """Move a corner of a box by ``ahead``, where that makes the box larger."""
    moved = corner + ahead
    extended = []
    for old, new, step in ((corner.x, moved.x, ahead.x), (corner.y, moved.y, ahead.y)):
        is_ahead = step < 0.0
        extended.append(is_ahead.where(new, old) if is_lower else is_ahead.where(old, new))
    return Vector(*extended)


def define_find_pairs(module: ir.Module) -> ir.Function:
    """``(record, moved)``: put new pairs of the bodies that have moved, three bytes, at the front of the list.

    Edges in order, and of each the lander, the first leg, the second leg: so the last of these comes first in the list.
    """
    builder, (address, moved) = function(module, "lunarlander.find_pairs", [POINTER, POINTER], private=True)
    record = Struct(builder, address, RECORD)
    flags = [_has_moved(builder, moved, INT(body)) for body in range(BODIES)]
    with (
        when(flags[0] | flags[1] | flags[2]),
        for_range(builder, EDGES) as edge,
        for_range(builder, BODIES) as body,
        when(_has_moved(builder, moved, body.ir_value)),
    ):
        overlaps = overlap(record.item("edges", edge).item("box"), record.item("bodies", body).item("box"))
        with when(overlaps):
            _add_pair(record, pair_index(edge, body))
    builder.ret_void()
    return builder.function


def _has_moved(builder: ir.IRBuilder, moved: ir.Value, body: ir.Value) -> TracedScalar:
    byte = builder.load(builder.gep(moved, [body], source_etype=BYTE), typ=BYTE)
    return TracedScalar(builder, builder.trunc(byte, ir.IntType(1)))


def _add_pair(record: Struct, pair: Index) -> None:
    """Put a pair at the front of the list unless it is in there."""
    builder = record.builder
    count = record.get("pairs")
    listed = Local(count < 0)
    with for_range(builder, count.ir_value) as place:
        listed.set(listed.get() | (record.get("order", place) == TracedScalar(builder, pair.ir_value)))
    with when(~listed.get()):
        with for_range(builder, count.ir_value) as step:
            place = Index(builder, count.ir_value) - step
            record.set("order", record.get("order", place - 1), place)
        record.set("order", pair, 0)
        record.set("pairs", count + 1)
        clear_contact(record.item("contacts", pair))


def clear_contact(contact: Struct) -> None:
    """A contact that does not touch."""
    for name in ("count", "events", "is_touching", "has_event_time"):
        contact.set(name, 0)
    contact.set("is_enabled", 1)


def define_update_pairs(module: ir.Module, update_contact: ir.Function) -> ir.Function:
    """``(record)``: remove pairs whose boxes no longer overlap, and see how the others touch, in the list's order."""
    builder, (address,) = function(module, "lunarlander.update_pairs", [POINTER], private=True)
    record = Struct(builder, address, RECORD)
    kept = Local(integer(builder, 0))
    with for_range(builder, record.get("pairs").ir_value) as place:
        pair = record.get("order", place)
        edge, body = pair_parts(pair)
        overlaps = overlap(record.item("edges", edge).item("box"), record.item("bodies", body).item("box"))
        with builder.if_else(overlaps.ir_value) as (then, otherwise):
            with then:
                builder.call(update_contact, [address, pair.ir_value])
                record.set("order", pair, kept.get())
                kept.set(kept.get() + 1)
            with otherwise:
                contact = record.item("contacts", pair)
                with when(contact.get("is_touching")):
                    end_touching(record, body)
                clear_contact(contact)
    record.set("pairs", kept.get())
    builder.ret_void()
    return builder.function


def begin_touching(record: Struct, body: TracedScalar) -> None:
    """The lander has crashed, or a leg stands on the ground."""
    is_lander = body == 0
    with is_lander.builder.if_else(is_lander.ir_value) as (then, otherwise):
        with then:
            record.set("is_crashed", 1)
        with otherwise:
            record.set("leg_contact", 1, body - 1)


def end_touching(record: Struct, body: TracedScalar) -> None:
    """A leg no longer stands on the ground; also if it still touches another edge, as in Gymnasium."""
    with when(body != 0):
        record.set("leg_contact", 0, body - 1)
