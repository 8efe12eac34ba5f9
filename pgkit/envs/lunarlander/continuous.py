"""Continuous collision: no body passes through the ground within a step.

After the solver, each body has moved along a path. The contact that begins to touch first on this path is an event:
the body is moved back to that time, pushed out of the ground, its velocity is solved, and it moves on for the rest of
the step; the joints are left alone. Then the next event is looked for. (Catto, "Continuous collision", GDC 2013.)
"""

from typing import Any, NamedTuple

from llvmlite import ir

from pgkit.compiler.ir import BYTE, INT, POINTER, for_range, function
from pgkit.compiler.records import Layout, Struct, fill_zeros, local_struct
from pgkit.compiler.statements import Local, endless_loop, entry_alloca, integer, number, when
from pgkit.compiler.tracer import TracedScalar
from pgkit.envs.lunarlander.bodies import BodyChoice, pair_parts, store_transform, transform
from pgkit.envs.lunarlander.constants import (
    BODIES,
    EDGES,
    EPSILON,
    SLOP,
    TIME_STEP,
    TOI_CORRECTION_RATE,
    TOI_POSITION_ITERATIONS,
    VELOCITY_ITERATIONS,
    real,
)
from pgkit.envs.lunarlander.constraints import Weight, correct_constraint, prepare_constraint, solve_constraint
from pgkit.envs.lunarlander.joints import Motion, Position
from pgkit.envs.lunarlander.layout import CONSTRAINTS, RECORD, WHOLE
from pgkit.envs.lunarlander.solver import limit_motion
from pgkit.envs.lunarlander.time_of_impact import advance
from pgkit.envs.lunarlander.vectors import LocalVector, Transform, load_vector, smaller, store_vector

MAX_EVENTS = 8
"""A contact that has had more events in a step is skipped."""

END = real(1.0 - 10.0 * EPSILON)
"""Fractions of the step beyond this one are its end."""

_PAIRS = Layout({"items": (WHOLE, EDGES)})


class Functions(NamedTuple):
    """Functions of the module that an event calls."""

    update_contact: ir.Function
    time_of_impact: ir.Function
    update_box: ir.Function
    find_pairs: ir.Function


class _Touching(NamedTuple):
    """Contacts of one body that are solved together."""

    pairs: Struct
    size: Local
    constraints: Struct


def define_solve_events(module: ir.Module, functions: Functions) -> ir.Function:
    """``(record)``: all events of a step, in order of their times."""
    event = _define_event(module, functions)
    builder, (address,) = function(module, "lunarlander.solve_events", [POINTER], private=True)
    record = Struct(builder, address, RECORD)
    record.set("ground_fraction", 0.0)
    with for_range(builder, BODIES) as body:
        record.item("bodies", body).set("start_fraction", 0.0)
    with for_range(builder, record.get("pairs").ir_value) as place:
        contact = record.item("contacts", record.get("order", place))
        contact.set("events", 0)
        contact.set("has_event_time", 0)
    first = Local(number(builder, ir.FloatType(), 1.0))
    first_pair = Local(integer(builder, 0))
    with endless_loop(builder) as loop:
        first.set(number(builder, ir.FloatType(), 1.0))
        with for_range(builder, record.get("pairs").ir_value) as place:
            pair = record.get("order", place)
            contact = record.item("contacts", pair)
            with when(contact.get("is_enabled") & (contact.get("events") <= MAX_EVENTS)):
                with when(~contact.get("has_event_time")):
                    builder.call(functions.time_of_impact, [address, pair.ir_value])
                time = contact.get("event_time")
                with when(time < first.get()):
                    first.set(time)
                    first_pair.set(pair)
        loop.leave_if(first.get() > END)
        builder.call(event, [address, first_pair.get().ir_value, first.get().ir_value])
    builder.ret_void()
    return builder.function


def _define_event(module: ir.Module, functions: Functions) -> ir.Function:
    """``(record, pair, time)``: what happens when a body begins to touch an edge within a step."""
    builder, (address, pair, time) = function(module, "lunarlander.event", [POINTER, INT, ir.FloatType()], private=True)
    record = Struct(builder, address, RECORD)
    _, body_number = pair_parts(TracedScalar(builder, pair))
    choice = BodyChoice(body_number)
    body = record.item("bodies", body_number)
    contact = record.item("contacts", pair)
    fraction = TracedScalar(builder, time)
    backup = {name: [body.get(name, k) for k in range(body.layout.fields[name].size)] for name in _MOTION}
    ground = record.get("ground_fraction")
    advance(body, fraction)
    record.set("ground_fraction", fraction)
    store_vector(body, "center", load_vector(body, "start_center"))
    body.set("angle", body.get("start_angle"))
    _place(body, choice)
    builder.call(functions.update_contact, [address, pair])
    contact.set("has_event_time", 0)
    contact.set("events", contact.get("events") + 1)
    with builder.if_else(contact.get("is_touching").ir_value) as (then, otherwise):
        with then:
            touching = _touching_contacts(record, TracedScalar(builder, pair), body_number, functions)
            _solve_event(record, touching, body, choice, fraction)
            _finish_event(record, body_number, functions)
        with otherwise:
            contact.set("is_enabled", 0)
            record.set("ground_fraction", ground)
            for name, values in backup.items():
                for k, value in enumerate(values):
                    body.set(name, value, k)
            _place(body, choice)
    builder.ret_void()
    return builder.function


_MOTION = ("start_center", "start_angle", "start_fraction", "center", "angle")


def _place(body: Struct, choice: BodyChoice) -> Transform:
    """Write the transform that belongs to centre and angle."""
    place = transform(load_vector(body, "center"), body.get("angle"), choice.center)
    store_transform(body, place)
    return place


def _touching_contacts(record: Struct, pair: TracedScalar, body: TracedScalar, functions: Functions) -> _Touching:
    """The contact of the event, then the others of its body that touch, in the list's order."""
    builder = record.builder
    pairs = local_struct(builder, _PAIRS)
    pairs.set("items", pair)
    count = Local(integer(builder, 1))
    with for_range(builder, record.get("pairs").ir_value) as place:
        other = record.get("order", place)
        with when((pair_parts(other)[1] == body) & (other != pair)):
            builder.call(functions.update_contact, [record.address, other.ir_value])
            with when(record.item("contacts", other).get("is_touching")):
                pairs.set("items", other, count.get())
                count.set(count.get() + 1)
    return _Touching(pairs, count, local_struct(builder, CONSTRAINTS))


def _solve_event(record: Struct, touching: _Touching, body: Struct, choice: BodyChoice, fraction: TracedScalar) -> None:
    """Push the body out of the ground, solve its velocity, and move it on for the rest of the step."""
    weight = Weight(choice.mass, choice.inertia, choice.center)
    _prepare(record, touching, body, choice)
    position = Position(LocalVector(load_vector(body, "center")), Local(body.get("angle")))
    _correct_positions(touching, position, weight)
    for name in ("start_center", "center"):
        store_vector(body, name, position.center.get())
    for name in ("start_angle", "angle"):
        body.set(name, position.angle.get())
    _place(body, choice)
    _prepare(record, touching, body, choice)
    motion = Motion(LocalVector(load_vector(body, "velocity")), Local(body.get("spin")))
    _solve_velocity(touching, motion, weight)
    rest = (1.0 - fraction) * TIME_STEP
    limit_motion(motion, rest)
    store_vector(body, "velocity", motion.velocity.get())
    body.set("spin", motion.spin.get())
    store_vector(body, "center", position.center.get() + motion.velocity.get() * rest)
    body.set("angle", position.angle.get() + motion.spin.get() * rest)
    _place(body, choice)


def _prepare(record: Struct, touching: _Touching, body: Struct, choice: BodyChoice) -> None:
    """Write the constraints for where the body is now; their impulses begin with 0."""
    builder = record.builder
    place = transform(load_vector(body, "center"), body.get("angle"), choice.center)
    with for_range(builder, touching.size.get().ir_value) as index:
        pair = touching.pairs.get("items", index)
        constraint = _constraint(touching, index)
        fill_zeros(builder, constraint.address, constraint.layout.size)
        friction = choice.friction(pair_parts(pair)[0])
        center = load_vector(body, "center")
        prepare_constraint(record.item("contacts", pair), constraint, center, place, choice, friction)


def _constraint(touching: _Touching, index: Any) -> Struct:
    return touching.constraints.item("items", index)


def _correct_positions(touching: _Touching, position: Position, weight: Weight) -> None:
    builder = touching.pairs.builder
    always = number(builder, ir.IntType(1), 1)
    rounds = Local(integer(builder, 0))
    least = Local(number(builder, ir.FloatType(), 0.0))
    with endless_loop(builder) as loop:
        least.set(number(builder, ir.FloatType(), 0.0))
        with for_range(builder, touching.size.get().ir_value) as index:
            constraint = _constraint(touching, index)
            separation = correct_constraint(constraint, position, weight, TOI_CORRECTION_RATE, always)
            least.set(smaller(least.get(), separation))
        rounds.set(rounds.get() + 1)
        loop.leave_if((least.get() >= real(-1.5 * SLOP)) | (rounds.get() == TOI_POSITION_ITERATIONS))


def _solve_velocity(touching: _Touching, motion: Motion, weight: Weight) -> None:
    """All iterations, or as many as change an impulse: after the first one that changes none, none ever will."""
    builder = touching.pairs.builder
    rounds = Local(integer(builder, 0))
    changes = Local(number(builder, ir.IntType(1), 0))
    with endless_loop(builder) as loop:
        changes.set(number(builder, ir.IntType(1), 0))
        with for_range(builder, touching.size.get().ir_value) as index:
            changes.set(changes.get() | solve_constraint(_constraint(touching, index), motion, weight))
        rounds.set(rounds.get() + 1)
        loop.leave_if(~changes.get() | (rounds.get() == VELOCITY_ITERATIONS))


def _finish_event(record: Struct, body: TracedScalar, functions: Functions) -> None:
    """The body's box, new pairs; all of its contacts get new event times."""
    builder = record.builder
    moved = entry_alloca(builder, BYTE, BODIES)
    for k in range(BODIES):
        builder.store(BYTE(0), builder.gep(moved, [INT(k)], source_etype=BYTE))
    flag = builder.gep(moved, [body.ir_value], source_etype=BYTE)
    builder.call(functions.update_box, [record.address, body.ir_value, flag])
    with for_range(builder, record.get("pairs").ir_value) as place:
        pair = record.get("order", place)
        with when(pair_parts(pair)[1] == body):
            record.item("contacts", pair).set("has_event_time", 0)
    builder.call(functions.find_pairs, [record.address, moved])
