"""The start of an episode: Gymnasium's draws, terrain, and bodies at their first places."""

import torch
from llvmlite import ir

from pgkit.compiler.ir import INT, POINTER, for_range, function
from pgkit.compiler.records import Layout, Struct, fill_zeros, local_struct
from pgkit.compiler.statements import number
from pgkit.compiler.tracer import TracedScalar
from pgkit.envs.lunarlander.bodies import BodyChoice, rotation, store_transform
from pgkit.envs.lunarlander.constants import (
    AABB_MARGIN,
    EDGES,
    HEIGHT,
    HELIPAD_HEIGHT,
    LEG_AWAY,
    LEG_SIDES,
    RADIUS,
    SCALE,
    START_FORCE,
    TERRAIN_POINTS,
    WIDTH,
    WIND_RANGE,
    real,
)
from pgkit.envs.lunarlander.contacts import larger_vector, polygon_box, smaller_vector, store_box, widen
from pgkit.envs.lunarlander.engines import load_generator, store_generator
from pgkit.envs.lunarlander.layout import RECORD
from pgkit.envs.lunarlander.vectors import Transform, Vector, constant, load_vector, rotate, store_vector
from pgkit.envs.pcg64 import integers, uniform

DRAWN_HEIGHTS = TERRAIN_POINTS + 1
HELIPAD = range(TERRAIN_POINTS // 2 - 2, TERRAIN_POINTS // 2 + 3)
SMOOTHING = 0.33

_HEIGHTS = Layout({"drawn": (torch.float64, DRAWN_HEIGHTS), "smooth": (torch.float32, TERRAIN_POINTS)})

_START = "bodies"
"""The first field that a reset clears; the generator stands before it."""


def define_reset(module: ir.Module, enable_wind: bool) -> ir.Function:
    """``(record)``: begin an episode; the force of the first step is left in the record."""
    place_body = _define_place_body(module)
    builder, (address,) = function(module, "lunarlander.reset", [POINTER], private=True)
    record = Struct(builder, address, RECORD)
    offset = RECORD.fields[_START].offset
    fill_zeros(builder, builder.gep(address, [INT(offset)], source_etype=ir.IntType(8)), RECORD.size - offset)
    _draw_terrain(record)
    generator, x = uniform(load_generator(record), -START_FORCE, START_FORCE)
    generator, y = uniform(generator, -START_FORCE, START_FORCE)
    store_vector(record, "force", Vector(x.to(torch.float32), y.to(torch.float32)))
    if enable_wind:
        buffer = record.get("generator", 4)
        for k in range(2):
            generator, buffer, index = integers(generator, buffer, -WIND_RANGE, WIND_RANGE)
            record.set("wind_index", index, k)
        record.set("generator", buffer, 4)
    store_generator(record, generator)
    for body, (away, angle) in enumerate([(0.0, 0.0), *((side * LEG_AWAY / SCALE, side * 0.05) for side in LEG_SIDES)]):
        place = record.item("bodies", body)
        place.set("origin", real(WIDTH / 2 - away), 0)
        place.set("origin", real(HEIGHT), 1)
        place.set("angle", real(angle))
        builder.call(place_body, [address, INT(body)])
    builder.ret_void()
    return builder.function


def _draw_terrain(record: Struct) -> None:
    """Random heights, flat at the helipad, averaged over three neighbours.

    The left neighbour of the first one is the last one, as in Gymnasium.
    """
    builder = record.builder
    heights = local_struct(builder, _HEIGHTS)
    with for_range(builder, DRAWN_HEIGHTS) as point:
        generator, height = uniform(load_generator(record), 0.0, HEIGHT / 2)
        store_generator(record, generator)
        heights.set("drawn", height, point)
    for pad in HELIPAD:
        heights.set("drawn", HELIPAD_HEIGHT, pad)
    with for_range(builder, TERRAIN_POINTS) as point:
        left, middle, right = (
            heights.get("drawn", (point + (DRAWN_HEIGHTS + shift)) % DRAWN_HEIGHTS) for shift in (-1, 0, 1)
        )
        heights.set("smooth", ((left + middle + right) * SMOOTHING).to(torch.float32), point)
    zero = number(builder, ir.FloatType(), 0.0)
    _set_edge(record.item("edges", 0), Vector(zero, zero), Vector(constant(zero, WIDTH), zero))
    with for_range(builder, EDGES - 1) as piece:
        chunk = WIDTH / (TERRAIN_POINTS - 1)
        ends = [
            Vector(
                TracedScalar(builder, (piece + shift).ir_value).to(torch.float32) * chunk,
                heights.get("smooth", piece + shift),
            )
            for shift in (0, 1)
        ]
        _set_edge(record.item("edges", piece + 1), *ends)


def _set_edge(edge: Struct, start: Vector, end: Vector) -> None:
    store_vector(edge, "start", start)
    store_vector(edge, "end", end)
    lower, upper = widen(smaller_vector(start, end), larger_vector(start, end), RADIUS)
    store_box(edge.item("box"), *widen(lower, upper, AABB_MARGIN))


def _define_place_body(module: ir.Module) -> ir.Function:
    """``(record, body)``: centre, rotation and box of a body whose origin and angle are set."""
    builder, (address, body_number) = function(module, "lunarlander.place_body", [POINTER, INT], private=True)
    body = Struct(builder, address, RECORD).item("bodies", body_number)
    choice = BodyChoice(TracedScalar(builder, body_number))
    place = Transform(rotation(body.get("angle")), load_vector(body, "origin"))
    store_transform(body, place)
    center = rotate(place.rotation, Vector(constant(choice.center, 0.0), choice.center)) + place.origin
    store_vector(body, "center", center)
    store_box(body.item("box"), *widen(*polygon_box(choice, place), AABB_MARGIN))
    builder.ret_void()
    return builder.function
