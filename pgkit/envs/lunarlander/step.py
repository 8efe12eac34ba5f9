"""One step of a block of environments: before the solver, the solver in lanes, after the solver.

Gymnasium's order within a step: wind, engines, contacts of the last positions, solver, boxes, events, observation.
What is done for one environment after the other is code of single numbers; the solver takes L environments at once.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import torch
from llvmlite import ir

from pgkit.compiler.ir import (
    BYTE,
    INT,
    POINTER,
    Index,
    define_function,
    element_pointer,
    for_range,
    function,
    is_not_null,
    load,
    register_bytes,
)
from pgkit.compiler.records import Layout, Struct, fill_zeros
from pgkit.compiler.statements import Local, entry_alloca, integer, number, when
from pgkit.compiler.tracer import IR_TYPES, TracedScalar
from pgkit.envs.lunarlander.bodies import BodyChoice, load_transform, pair_parts
from pgkit.envs.lunarlander.constants import BODIES
from pgkit.envs.lunarlander.constraints import copy_impulses, prepare_constraint
from pgkit.envs.lunarlander.contacts import define_find_pairs, define_update_box, define_update_pairs
from pgkit.envs.lunarlander.continuous import Functions, define_solve_events
from pgkit.envs.lunarlander.distance import define_distance
from pgkit.envs.lunarlander.engines import (
    blow_wind,
    continuous_throttle,
    discrete_throttle,
    fire_engines,
)
from pgkit.envs.lunarlander.layout import CONSTRAINT, LANE, RECORD
from pgkit.envs.lunarlander.manifold import define_update_contact
from pgkit.envs.lunarlander.observation import write_transition
from pgkit.envs.lunarlander.reset import define_reset
from pgkit.envs.lunarlander.settings import ACTION_SIZE, Settings
from pgkit.envs.lunarlander.solver import define_solve
from pgkit.envs.lunarlander.time_of_impact import define_time_of_impact
from pgkit.envs.lunarlander.vectors import load_vector, store_vector
from pgkit.envs.signature import EnvStepArguments

REAL = IR_TYPES[torch.float32]

_COUNTS = Layout({"counts": (torch.int64, BODIES)})
_MOVING = ("center", "angle", "sin", "cos", "origin", "velocity", "spin", "idle_time")


LANES = 2 * register_bytes() // torch.float32.itemsize
"""Environments in one vector of the solver: two registers full, so that one computation hides the latency of the
other. No bit of a result depends on it."""


@lru_cache
def step_definition(settings: Settings, lanes: int | None = None) -> Callable[[ir.Module], ir.Function]:
    """A function that puts the step into a module: a function of :class:`EnvStepArguments`.

    Args:
        settings: of the task.
        lanes: None for ``LANES``.
    """
    return lambda module: _define_step(module, settings, lanes or LANES)


def _define_step(module: ir.Module, settings: Settings, lanes: int) -> ir.Function:
    update_contact = define_update_contact(module)
    time_of_impact = define_time_of_impact(module, define_distance(module))
    functions = Functions(update_contact, time_of_impact, define_update_box(module), define_find_pairs(module))
    prepare = _define_prepare(module, settings, lanes, update_contact)
    # A vector of half the width is faster if that is enough.
    widths = sorted({max(1, lanes // 2), lanes})
    solvers = {width: define_solve(module, lanes, width, settings.gravity) for width in widths}
    finish = _define_finish(module, settings, lanes, functions)
    flush = _define_flush(module, solvers, finish)
    builder, args = define_function(module, "lunarlander.step", EnvStepArguments, {"state": 1}, alias=True)
    memory = entry_alloca(builder, BYTE, LANE.size * lanes, align=64)
    counts = entry_alloca(builder, INT, BODIES)
    rows = entry_alloca(builder, INT, lanes)
    used = Local(integer(builder, 0))
    _clear_lanes(builder, memory, counts, lanes)
    with for_range(builder, args.count) as env, _if_running(builder, args.running, env):
        record = builder.gep(args.state[0], [(env * RECORD.size).ir_value], source_etype=BYTE)
        action = _action_pointer(builder, args.action, env, settings.continuous)
        builder.store(env.ir_value, element_pointer(builder, rows, INT, used.get()))
        builder.call(prepare, [record, memory, used.get().ir_value, action, counts])
        used.set(used.get() + 1)
        with when(used.get() == lanes):
            _flush(builder, flush, args, memory, counts, rows, used)
            _clear_lanes(builder, memory, counts, lanes)
    with when(used.get() > 0):
        _flush(builder, flush, args, memory, counts, rows, used)
    builder.ret_void()
    return builder.function


def _if_running(builder: ir.IRBuilder, running: ir.Value, env: Index) -> Any:
    """What is written inside is executed for an environment that is running."""
    is_running = Local(number(builder, ir.IntType(1), 1))
    with builder.if_then(is_not_null(builder, running)):
        flag = load(builder, BYTE, running, env)
        is_running.set(TracedScalar(builder, builder.trunc(flag, ir.IntType(1))))
    return when(is_running.get())


def _action_pointer(builder: ir.IRBuilder, action: ir.Value, env: Index, continuous: bool) -> ir.Value:
    if continuous:
        return element_pointer(builder, action, REAL, env * ACTION_SIZE)
    return element_pointer(builder, action, INT, env)


def _clear_lanes(builder: ir.IRBuilder, memory: ir.Value, counts: ir.Value, lanes: int) -> None:
    """No environment in any lane, and no constraint."""
    fill_zeros(builder, memory, LANE.fields["constraints"].offset * lanes)
    tail = LANE.fields["force"].offset * lanes
    fill_zeros(builder, builder.gep(memory, [INT(tail)], source_etype=BYTE), LANE.size * lanes - tail)
    Struct(builder, memory, LANE, lanes, lanes).set("is_idle", 1.0)
    fill_zeros(builder, counts, BODIES * 8)


def _flush(
    builder: ir.IRBuilder,
    flush: ir.Function,
    args: EnvStepArguments,
    memory: ir.Value,
    counts: ir.Value,
    rows: ir.Value,
    used: Local,
) -> None:
    results = [args.state[0], args.obs, args.reward, args.terminated, args.truncated, args.valid]
    builder.call(flush, [memory, counts, rows, used.get().ir_value, *results])
    used.set(integer(builder, 0))


def _define_flush(module: ir.Module, solvers: Mapping[int, ir.Function], finish: ir.Function) -> ir.Function:
    """``(memory, counts, rows, used, records, *results)``: solve the environments in lanes, and write their results."""
    types = [POINTER, POINTER, POINTER, INT, *[POINTER] * 6]
    builder, (memory, counts, rows, used, *results) = function(module, "lunarlander.flush", types, private=True)
    narrow, *wide = solvers
    with builder.if_else(Index(builder, used) <= narrow) as (then, otherwise):
        with then:
            builder.call(solvers[narrow], [memory, counts])
        with otherwise:
            for width in wide:
                builder.call(solvers[width], [memory, counts])
    with for_range(builder, used) as lane:
        row = load(builder, INT, rows, lane)
        builder.call(finish, [memory, lane.ir_value, row, *results])
    builder.ret_void()
    return builder.function


def _define_prepare(module: ir.Module, settings: Settings, lanes: int, update_contact: ir.Function) -> ir.Function:
    """``(record, memory, lane, action, counts)``: all before the solver, and an environment's numbers into a lane."""
    reset = define_reset(module, settings.enable_wind)
    update_pairs = define_update_pairs(module, update_contact)
    types = [POINTER, POINTER, INT, POINTER, POINTER]
    builder, (address, memory, lane_index, action, counts) = function(
        module, "lunarlander.prepare", types, private=True
    )
    record = Struct(builder, address, RECORD)
    whole = Struct(builder, memory, LANE, lanes, lanes)
    lane = whole.lane(Index(builder, lane_index))
    is_over = record.get("is_over")
    with when(is_over):
        builder.call(reset, [address])
        record.set("is_over", 1)
    store_vector(lane, "force", load_vector(record, "force"))
    lane.set("is_idle", 0.0)
    if settings.enable_wind:
        blow_wind(record, lane, settings.wind_power, settings.turbulence_power)
    if settings.continuous:
        throttle = continuous_throttle(builder, action, settings.squash_actions)
    else:
        throttle = discrete_throttle(TracedScalar(builder, load(builder, INT, action, 0)))
    throttle = throttle._replace(main=is_over.where(0.0, throttle.main), side=is_over.where(0.0, throttle.side))
    record.set("main_power", throttle.main)
    record.set("side_power", throttle.side)
    fire_engines(record, throttle)
    builder.call(update_pairs, [address])
    _fill_lane(record, lane)
    _fill_constraints(record, whole, lane, Struct(builder, counts, _COUNTS))
    builder.ret_void()
    return builder.function


def _fill_lane(record: Struct, lane: Struct) -> None:
    for body in range(BODIES):
        _copy_fields(record.item("bodies", body), lane.item("bodies", body), _MOVING)
    for joint in range(2):
        _copy_fields(record.item("joints", joint), lane.item("joints", joint), ("impulse", "motor_impulse", "limit"))


def _copy_fields(source: Struct, target: Struct, names: tuple[str, ...]) -> None:
    for name in names:
        for k in range(source.layout.fields[name].size):
            target.set(name, source.get(name, k), k)


def _fill_constraints(record: Struct, whole: Struct, lane: Struct, counts: Struct) -> None:
    """A constraint of each contact that touches; one that no other lane has had is cleared in all lanes before."""
    builder = record.builder

    def fill(pair: TracedScalar, body: TracedScalar, index: TracedScalar) -> None:
        with when(index >= counts.get("counts", body)):
            constraint = whole.item("constraints", body).item("items", index)
            fill_zeros(builder, constraint.address, CONSTRAINT.size * whole.lanes)
            counts.set("counts", index + 1, body)
        constraint = lane.item("constraints", body).item("items", index)
        contact = record.item("contacts", pair)
        state = record.item("bodies", body)
        choice = BodyChoice(body)
        friction = choice.friction(pair_parts(pair)[0])
        center = load_vector(state, "center")
        prepare_constraint(contact, constraint, center, load_transform(state), choice, friction)
        copy_impulses(contact, constraint, constraint.get("is_block"))

    _each_touching(record, fill)


def _each_touching(record: Struct, visit: Callable[[TracedScalar, TracedScalar, TracedScalar], None]) -> None:
    """Call ``visit(pair, body, index)`` in the list's order, where a body's contacts are numbered from 0."""
    builder = record.builder
    table = Struct(builder, entry_alloca(builder, BYTE, _COUNTS.size, align=8), _COUNTS)
    fill_zeros(builder, table.address, _COUNTS.size)
    with for_range(builder, record.get("pairs").ir_value) as place:
        pair = record.get("order", place)
        with when(record.item("contacts", pair).get("is_touching")):
            body = pair_parts(pair)[1]
            index = table.get("counts", body)
            visit(pair, body, index)
            table.set("counts", index + 1, body)


def _define_finish(module: ir.Module, settings: Settings, lanes: int, functions: Functions) -> ir.Function:
    """``(memory, lane, row, records, *results)``: all after the solver, and the results of an environment."""
    solve_events = define_solve_events(module, functions)
    types = [POINTER, INT, INT, *[POINTER] * 6]
    builder, (memory, lane_index, row, records, *results) = function(module, "lunarlander.finish", types, private=True)
    address = builder.gep(records, [(Index(builder, row) * RECORD.size).ir_value], source_etype=BYTE)
    record = Struct(builder, address, RECORD)
    lane = Struct(builder, memory, LANE, lanes, lanes).lane(Index(builder, lane_index))
    _take_lane(record, lane)
    moved = entry_alloca(builder, BYTE, BODIES)
    fill_zeros(builder, moved, BODIES)
    with for_range(builder, BODIES) as body:
        flag = builder.gep(moved, [body.ir_value], source_etype=BYTE)
        builder.call(functions.update_box, [address, body.ir_value, flag])
    builder.call(functions.find_pairs, [address, moved])
    with when(~record.get("is_asleep")):
        builder.call(solve_events, [address])
    write_transition(record, Index(builder, row), results, settings.max_episode_steps)
    builder.ret_void()
    return builder.function


def _take_lane(record: Struct, lane: Struct) -> None:
    """The solver's results."""
    for number_of_body in range(BODIES):
        body = record.item("bodies", number_of_body)
        store_vector(body, "start_center", load_vector(body, "center"))
        body.set("start_angle", body.get("angle"))
        _copy_fields(lane.item("bodies", number_of_body), body, _MOVING)
    for joint in range(2):
        _copy_fields(lane.item("joints", joint), record.item("joints", joint), ("impulse", "motor_impulse", "limit"))
    record.set("is_asleep", record.item("bodies", 0).get("idle_time") < 0.0)
    for k in range(2):
        record.set("force", 0.0, k)

    def take(pair: TracedScalar, body: TracedScalar, index: TracedScalar) -> None:
        constraint = lane.item("constraints", body).item("items", index)
        copy_impulses(constraint, record.item("contacts", pair), constraint.get("is_block"))

    _each_touching(record, take)
