"""One step of the bodies of many environments at once: velocities, then positions, then sleep.

The order of the solver is part of the bits: the contacts of leg 1, of the lander, of leg 0, each body's newest first;
joint 1 before joint 0. One lane holds one environment, so nothing is ever added across lanes.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from llvmlite import ir

from pgkit.compiler.ir import INT, POINTER, for_range, function
from pgkit.compiler.records import Struct
from pgkit.compiler.statements import Local, endless_loop, number
from pgkit.compiler.tracer import TracedScalar
from pgkit.envs.lunarlander.bodies import store_transform, transform
from pgkit.envs.lunarlander.constants import (
    BODIES,
    BODY_CONSTANTS,
    CORRECTION_RATE,
    MAX_ROTATION,
    MAX_TRANSLATION,
    POSITION_ITERATIONS,
    SLEEP_SPEED,
    SLEEP_SPIN,
    SLEEP_TIME,
    SLOP,
    TIME_STEP,
    VELOCITY_ITERATIONS,
    real,
)
from pgkit.envs.lunarlander.constraints import Weight, correct_constraint, solve_constraint, warm_start
from pgkit.envs.lunarlander.joints import (
    Joint,
    Motion,
    Position,
    correct_joint,
    prepare_joint,
    solve_joint,
    store_joint,
    warm_start_joint,
)
from pgkit.envs.lunarlander.layout import LANE
from pgkit.envs.lunarlander.vectors import (
    LocalVector,
    Number,
    Vector,
    dot,
    length,
    load_vector,
    smaller,
    store_vector,
)

BODY_ORDER = (2, 0, 1)
LEG_ORDER = (2, 1)
WEIGHTS = tuple(Weight(constants.mass, constants.inertia, constants.center) for constants in BODY_CONSTANTS)


class _Island(NamedTuple):
    """What is solved together.

    Attributes:
        lanes: vectors of the environments.
        counts: constraints of each body, int64: as many as any lane has.
    """

    lanes: Struct
    counts: Sequence[ir.Value]

    @property
    def builder(self) -> ir.IRBuilder:
        return self.lanes.builder


def define_solve(module: ir.Module, lanes: int, width: int, gravity: float) -> ir.Function:
    """``(lanes, counts)``: one step of the first lanes.

    Args:
        module: that gets the function.
        lanes: L, in memory.
        width: lanes that are solved.
        gravity: along y.
    """
    builder, (address, table) = function(module, f"lunarlander.solve_{width}", [POINTER, POINTER], private=True)
    counts = [builder.load(builder.gep(table, [INT(body)], source_etype=INT), typ=INT) for body in range(BODIES)]
    island = _Island(Struct(builder, address, LANE, lanes, width), counts)
    motions = [_accelerated(island.lanes, body, gravity) for body in range(BODIES)]
    joints = _solve_velocities(island, motions)
    positions = [_moved(island.lanes.item("bodies", body), motion) for body, motion in enumerate(motions)]
    is_solved = _correct_positions(island, joints, positions)
    _store(island.lanes, motions, positions, is_solved)
    builder.ret_void()
    return builder.function


def _accelerated(lanes: Struct, body: int, gravity: float) -> Motion:
    """Velocities after the forces of this step; only the lander is pushed by more than gravity."""
    record = lanes.item("bodies", body)
    velocity = load_vector(record, "velocity")
    spin = record.get("spin")
    weight = WEIGHTS[body]
    if body == 0:
        force = load_vector(lanes, "force")
        acceleration = Vector(force.x * weight.mass, force.y * weight.mass + real(gravity))
        velocity = velocity + acceleration * TIME_STEP
        spin = spin + lanes.get("torque") * float(np.float32(TIME_STEP) * np.float32(weight.inertia))
    else:
        velocity = Vector(velocity.x, velocity.y + float(np.float32(TIME_STEP) * np.float32(gravity)))
    return Motion(LocalVector(velocity), Local(spin))


def _solve_velocities(island: _Island, motions: Sequence[Motion]) -> list[Joint]:
    builder = island.builder
    for body in BODY_ORDER:
        with for_range(builder, island.counts[body]) as index:
            warm_start(_constraint(island, body, index), motions[body], WEIGHTS[body])
    joints = []
    for leg in LEG_ORDER:
        bodies = island.lanes.item("bodies", 0), island.lanes.item("bodies", leg)
        joint = prepare_joint(leg - 1, island.lanes.item("joints", leg - 1), *bodies)
        warm_start_joint(joint, motions[0], motions[leg])
        joints.append(joint)
    with for_range(builder, VELOCITY_ITERATIONS):
        for leg, joint in zip(LEG_ORDER, joints, strict=True):
            solve_joint(joint, motions[0], motions[leg])
        for body in BODY_ORDER:
            with for_range(builder, island.counts[body]) as index:
                solve_constraint(_constraint(island, body, index), motions[body], WEIGHTS[body])
    for joint in joints:
        store_joint(joint)
    return joints


def _constraint(island: _Island, body: int, index: Any) -> Struct:
    return island.lanes.item("constraints", body).item("items", index)


def limit_motion(motion: Motion, time: Number) -> None:
    """Slow down a body that would move or turn too far in the time."""
    velocity = motion.velocity.get()
    step = velocity * time
    is_far = dot(step, step) > MAX_TRANSLATION * MAX_TRANSLATION
    ratio = is_far.where(MAX_TRANSLATION / length(step), 1.0)
    motion.velocity.set(velocity * ratio)
    spin = motion.spin.get()
    turn = spin * time
    is_far = turn * turn > _square(MAX_ROTATION)
    motion.spin.set(spin * is_far.where(MAX_ROTATION / torch.abs(turn), 1.0))


def _moved(record: Struct, motion: Motion) -> Position:
    """Where a body is at the end of the step."""
    limit_motion(motion, TIME_STEP)
    center = load_vector(record, "center") + motion.velocity.get() * TIME_STEP
    return Position(LocalVector(center), Local(record.get("angle") + motion.spin.get() * TIME_STEP))


def _correct_positions(island: _Island, joints: Sequence[Joint], positions: Sequence[Position]) -> TracedScalar:
    """Move bodies until contacts and joints hold, in each lane as often as it needs; whether they hold then."""
    builder = island.builder
    real_type = island.lanes.get("is_idle").ir_value.type
    is_solved = Local(island.lanes.get("is_idle"))
    rounds = Local(number(builder, INT, 0))
    with endless_loop(builder) as loop:
        is_active = is_solved.get() == 0.0
        least = Local(number(builder, real_type, 0.0))
        for body in BODY_ORDER:
            with for_range(builder, island.counts[body]) as index:
                constraint = _constraint(island, body, index)
                separation = correct_constraint(constraint, positions[body], WEIGHTS[body], CORRECTION_RATE, is_active)
                least.set(smaller(least.get(), separation))
        holds = least.get() >= -3.0 * SLOP
        for leg, joint in zip(LEG_ORDER, joints, strict=True):
            holds = holds & correct_joint(joint, positions[0], positions[leg], is_active)
        is_solved.set((is_active & ~holds).where(number(builder, real_type, 0.0), 1.0))
        rounds.set(rounds.get() + 1)
        loop.leave_if((rounds.get() == POSITION_ITERATIONS) | ~(is_solved.get() == 0.0).any_lane())
    return is_solved.get()


def _store(lanes: Struct, motions: Sequence[Motion], positions: Sequence[Position], is_solved: TracedScalar) -> None:
    """Write the bodies' new state; an environment whose bodies have all been at rest for long enough falls asleep."""
    idle_times = []
    for body, motion in enumerate(motions):
        spin = motion.spin.get()
        velocity = motion.velocity.get()
        moves = (spin * spin > _square(SLEEP_SPIN)) | (dot(velocity, velocity) > _square(SLEEP_SPEED))
        idle_times.append(moves.where(0.0, lanes.item("bodies", body).get("idle_time") + TIME_STEP))
    least = smaller(smaller(idle_times[0], idle_times[1]), idle_times[2])
    sleeps = (least >= SLEEP_TIME) & (is_solved > 0.0)
    lanes.set("is_solved", is_solved)
    for body, (motion, position) in enumerate(zip(motions, positions, strict=True)):
        record = lanes.item("bodies", body)
        center = position.center.get()
        angle = position.angle.get()
        velocity = motion.velocity.get()
        store_vector(record, "center", center)
        record.set("angle", angle)
        store_transform(record, transform(center, angle, WEIGHTS[body].center))
        store_vector(record, "velocity", Vector(sleeps.where(0.0, velocity.x), sleeps.where(0.0, velocity.y)))
        record.set("spin", sleeps.where(0.0, motion.spin.get()))
        record.set("idle_time", sleeps.where(-1.0, idle_times[body]))


def _square(x: float) -> float:
    return float(np.float32(x) * np.float32(x))
