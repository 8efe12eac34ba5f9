"""Observation, reward, and the end of an episode, in float64 and in Gymnasium's order of operations."""

from collections.abc import Sequence

import torch
from llvmlite import ir

from pgkit.compiler.elementwise import element_address
from pgkit.compiler.ir import BYTE, Index, store
from pgkit.compiler.records import Struct
from pgkit.compiler.tracer import IR_TYPES, TracedScalar
from pgkit.envs.lunarlander.constants import FRAMES, HEIGHT, HELIPAD_HEIGHT, LEG_DOWN, SCALE, WIDTH
from pgkit.envs.lunarlander.settings import OBS_SIZE
from pgkit.envs.lunarlander.vectors import Vector, length, load_vector

MAIN_COST = 0.30
SIDE_COST = 0.03
FAILURE_REWARD = -100.0
LANDED_REWARD = 100.0

REAL = IR_TYPES[torch.float32]
FLAG = IR_TYPES[torch.bool]


def observation(record: Struct) -> list[TracedScalar]:
    """Position and velocity relative to the helipad, angle, spin, and whether the legs stand on the ground; float64."""
    lander = record.item("bodies", 0)
    origin, velocity = (_double(load_vector(lander, name)) for name in ("origin", "velocity"))
    return [
        (origin.x - WIDTH / 2) / (WIDTH / 2),
        (origin.y - (HELIPAD_HEIGHT + LEG_DOWN / SCALE)) / (HEIGHT / 2),
        velocity.x * (WIDTH / 2) / FRAMES,
        velocity.y * (HEIGHT / 2) / FRAMES,
        lander.get("angle").to(torch.float64),
        lander.get("spin").to(torch.float64) * 20.0 / FRAMES,
        record.get("leg_contact", 0).to(torch.float64),
        record.get("leg_contact", 1).to(torch.float64),
    ]


def _double(vector: Vector) -> Vector:
    return Vector(vector.x.to(torch.float64), vector.y.to(torch.float64))


def _shaping(state: Sequence[TracedScalar]) -> TracedScalar:
    """How good a state is: near the helipad, slow, upright, on the ground."""
    x, y, x_velocity, y_velocity, angle, _, first_leg, second_leg = state
    return (
        length(Vector(x, y)) * -100.0
        - length(Vector(x_velocity, y_velocity)) * 100.0
        - angle.abs() * 100.0
        + first_leg * 10.0
        + second_leg * 10.0
    )


def write_transition(record: Struct, row: Index, results: Sequence[ir.Value], max_episode_steps: int) -> None:
    """Write what the step of one environment gives to row ``row`` of obs, reward, terminated, truncated and valid."""
    builder = record.builder
    obs, *columns = results
    state = observation(record)
    for k, value in enumerate(state):
        store(builder, value.to(torch.float32), obs, row * OBS_SIZE + k)
    is_reset = record.get("is_over")
    shaping = _shaping(state)
    reward = record.get("has_shaping").where(shaping - record.get("shaping"), 0.0)
    reward = reward - record.get("main_power") * MAIN_COST - record.get("side_power") * SIDE_COST
    fails = record.get("is_crashed") | (state[0].abs() >= 1.0)
    sleeps = record.get("is_asleep")
    reward = sleeps.where(LANDED_REWARD, fails.where(FAILURE_REWARD, reward))
    steps = record.get("steps") + is_reset.where(_zero(record), 1)
    valid = ~is_reset
    terminated = valid & (fails | sleeps)
    truncated = valid & (steps >= max_episode_steps)
    record.set("shaping", shaping)
    record.set("has_shaping", 1)
    record.set("steps", steps)
    record.set("is_over", terminated | truncated)
    values = [valid.where(reward, 0.0).to(torch.float32), terminated, truncated, valid]
    for column, value in zip(columns, values, strict=True):
        is_flag = value.element_type == FLAG
        stored = builder.zext(value.ir_value, BYTE) if is_flag else value.ir_value
        builder.store(stored, element_address(builder, column, FLAG if is_flag else REAL, row))


def _zero(record: Struct) -> TracedScalar:
    return record.get("steps") * 0
