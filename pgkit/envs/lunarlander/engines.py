"""Engines and wind: what pushes the lander before the bodies move. In float64, in Gymnasium's order of operations."""

import math
from typing import NamedTuple

import torch
from llvmlite import ir

from pgkit.compiler.functions import tanh
from pgkit.compiler.ir import load
from pgkit.compiler.records import Struct
from pgkit.compiler.statements import number, when
from pgkit.compiler.tracer import IR_TYPES, TracedScalar
from pgkit.envs.lunarlander.constants import LANDER, MAIN_POWER, SCALE, SIDE_POWER
from pgkit.envs.lunarlander.vectors import Vector, cross, load_vector, store_vector
from pgkit.envs.pcg64 import PCG64, uniform

DOUBLE = IR_TYPES[torch.float64]
MAIN_ENGINE_Y = 4
SIDE_ENGINE_AWAY = 12
SIDE_ENGINE_HEIGHT = 14
SIDE_ENGINE_DEPTH = 17  # Gymnasium subtracts this along x and adds the height along y


class Throttle(NamedTuple):
    """What an action asks of the engines, float64.

    Attributes:
        main: power of the main engine, 0 or from 0.5 to 1.
        side: power of the side engines, likewise.
        direction: -1 for the left engine, 1 for the right one.
    """

    main: TracedScalar
    side: TracedScalar
    direction: TracedScalar


def no_throttle(builder: ir.IRBuilder) -> Throttle:
    zero = number(builder, DOUBLE, 0.0)
    return Throttle(zero, zero, zero)


def discrete_throttle(action: TracedScalar) -> Throttle:
    """Of an int64 action: nothing, left engine, main engine, right engine."""
    is_side = (action == 1) | (action == 3)
    return Throttle(
        (action == 2).to(torch.float64),
        is_side.to(torch.float64),
        (action - 2).to_float(number(action.builder, DOUBLE, 0)),
    )


def continuous_throttle(builder: ir.IRBuilder, action: ir.Value, squash: bool) -> Throttle:
    """Of two float32 numbers in memory, clipped to [-1, 1], or squashed by tanh; NaN stands for 0."""
    components = [TracedScalar(builder, load(builder, IR_TYPES[torch.float32], action, k)) for k in range(2)]
    main, side = (_clipped(tanh(component) if squash else component) for component in components)
    size = side.abs()
    is_side = size > 0.5
    return Throttle(
        (main > 0.0).where((main + 1.0) * 0.5, 0.0),
        is_side.where(size, 0.0),
        (side > 0.0).where(number(builder, DOUBLE, 1.0), -1.0),
    )


def _clipped(x: TracedScalar) -> TracedScalar:
    clipped = x.clamp(-1.0, 1.0)
    return (x != x).where(0.0, clipped).to(torch.float64)


def load_generator(record: Struct) -> PCG64:
    return PCG64(*(record.get("generator", k) for k in range(4)))


def store_generator(record: Struct, generator: PCG64) -> None:
    for k, value in enumerate(generator[:2]):
        record.set("generator", value, k)


def fire_engines(record: Struct, throttle: Throttle) -> None:
    """Push the lander by its engines, which scatter a little; also draws where no engine fires."""
    generator, first = uniform(load_generator(record), -1.0, 1.0)
    generator, second = uniform(generator, -1.0, 1.0)
    store_generator(record, generator)
    scatter = first / SCALE, second / SCALE
    lander = record.item("bodies", 0)
    angle = lander.get("angle").to(torch.float64)
    tip = Vector(libm("sin", angle), libm("cos", angle))
    origin = load_vector(lander, "origin")
    origin = Vector(origin.x.to(torch.float64), origin.y.to(torch.float64))
    with when(throttle.main > 0.0):
        ahead = 2.0 * scatter[0] + MAIN_ENGINE_Y / SCALE
        thrust = Vector(
            tip.x * ahead + -tip.y * scatter[1],
            -tip.y * ahead - tip.x * scatter[1],
        )
        _push(lander, thrust, MAIN_POWER, throttle.main, origin + thrust)
    with when(throttle.side > 0.0):
        away = 3.0 * scatter[1] + throttle.direction * SIDE_ENGINE_AWAY / SCALE
        thrust = Vector(
            tip.x * scatter[0] + -tip.y * away,
            -tip.y * scatter[0] - tip.x * away,
        )
        place = origin + thrust
        place = Vector(
            place.x - tip.x * SIDE_ENGINE_DEPTH / SCALE,
            place.y + tip.y * SIDE_ENGINE_HEIGHT / SCALE,
        )
        _push(lander, thrust, SIDE_POWER, throttle.side, place)


def _push(lander: Struct, thrust: Vector, power: float, throttle: TracedScalar, place: Vector) -> None:
    """Apply the impulse ``-thrust * power * throttle`` at a place."""
    impulse = (-thrust) * power * throttle
    impulse = Vector(impulse.x.to(torch.float32), impulse.y.to(torch.float32))
    arm = Vector(place.x.to(torch.float32), place.y.to(torch.float32)) - load_vector(lander, "center")
    store_vector(lander, "velocity", load_vector(lander, "velocity") + impulse * LANDER.mass)
    lander.set("spin", lander.get("spin") + LANDER.inertia * cross(arm, impulse))


def blow_wind(record: Struct, lane: Struct, wind_power: float, turbulence_power: float) -> None:
    """Add wind and turbulence to the force and the torque on the lander, unless a leg stands on the ground."""
    with when(~(record.get("leg_contact", 0) | record.get("leg_contact", 1))):
        wind, turbulence = (
            (_gust(record, k) * power).to(torch.float32) for k, power in enumerate((wind_power, turbulence_power))
        )
        lane.set("force", lane.get("force") + wind)
        lane.set("torque", lane.get("torque") + turbulence)


def _gust(record: Struct, index: int) -> TracedScalar:
    """Strength of the wind (0) or the turbulence (1) in [-1, 1]: a function of time that has no period."""
    time = record.get("wind_index", index)
    record.set("wind_index", time + 1, index)
    n = time.to_float(number(record.builder, DOUBLE, 0.0))
    return libm("tanh", libm("sin", n * 0.02) + libm("sin", n * (math.pi * 0.01)))


def libm(name: str, x: TracedScalar) -> TracedScalar:
    """A function of the C library: the one that Gymnasium's results come from, so that the bits are the same."""
    module = x.builder.module
    called = module.globals.get(name) or ir.Function(module, ir.FunctionType(DOUBLE, [DOUBLE]), name)
    return TracedScalar(x.builder, x.builder.call(called, [x.ir_value]))
