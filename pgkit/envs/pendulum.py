"""Pendulum: swing a pendulum up and hold it upright by a torque that is too weak to lift it.

The constants and the arithmetic are those of Gymnasium's ``Pendulum-v1``: float64, in the same order of operations;
what NumPy computes of the torque alone is float32.
"""

from typing import Any, NamedTuple

import numpy as np
import torch

from pgkit.envs.definition import EnvDefinition, Random

MAX_VELOCITY = 8.0  # rad / s
MAX_TORQUE = 2.0  # N m
TIME_STEP = 0.05  # s
MASS = 1.0  # kg
LENGTH = 1.0  # m
TORQUE_COST = float(np.float32(0.001))
START_ANGLE = np.pi  # rad, an episode starts with an angle uniform in (-START_ANGLE, START_ANGLE)
START_VELOCITY = 1.0  # rad / s, and likewise


class State(NamedTuple):
    """Angle in rad from the upright, which is not wrapped, and its rate; float64."""

    angle: Any
    velocity: Any


def pendulum(g: float = 10.0) -> EnvDefinition:
    """Pendulum-v1: minus the squares of angle, velocity and torque, weighted; no episode ends before its time limit.

    Args:
        g: gravity in m / s^2.
    """
    from gymnasium.spaces import Box

    def step(state: State, action: list[Any]) -> tuple[State, Any, bool]:
        (torque,) = action
        angle, velocity = state
        wrapped = (angle + np.pi) % (2 * np.pi) - np.pi
        torque_cost = (torque * torque * TORQUE_COST).to(torch.float64)
        cost = wrapped * wrapped + velocity * velocity * 0.1 + torque_cost
        push = (torque * (3.0 / (MASS * LENGTH**2))).to(torch.float64)
        acceleration = torch.sin(angle) * (3 * g / (2 * LENGTH)) + push
        velocity = torch.clamp(velocity + acceleration * TIME_STEP, -MAX_VELOCITY, MAX_VELOCITY)
        return State(angle + velocity * TIME_STEP, velocity), -cost, False

    return EnvDefinition(
        obs_dim=3,
        action_space=Box(-MAX_TORQUE, MAX_TORQUE, (1,)),
        max_episode_steps=200,
        reset=reset,
        step=step,
        observe=observe,
    )


def reset(random: Random) -> State:
    angle = random.uniform(-START_ANGLE, START_ANGLE)
    return State(angle, random.uniform(-START_VELOCITY, START_VELOCITY))


def observe(state: State) -> list[Any]:
    return [torch.cos(state.angle), torch.sin(state.angle), state.velocity]
