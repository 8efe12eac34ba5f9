"""Acrobot: swing the free end of a chain of two links up, by a torque at the joint between them.

The task is that of Sutton (1996), "Generalization in reinforcement learning: Successful examples using sparse coarse
coding", with the equations of Sutton and Barto's book and the arithmetic of Gymnasium's ``Acrobot-v1``: float64, one
Runge-Kutta step of 0.2 s per action, in the same order of operations. The start is rounded to float32, as there.
"""

from typing import Any, NamedTuple

import numpy as np
import torch

from pgkit.envs.definition import EnvDefinition, Random

LENGTH = 1.0  # m, of both links
MASS = 1.0  # kg, of both links
CENTRE = 0.5  # m, from a link's upper end to its centre of mass
INERTIA = 1.0  # kg m^2, of both links
GRAVITY = 9.8  # m / s^2
TIME_STEP = 0.2  # s
MAX_VELOCITY_1 = 4 * np.pi  # rad / s
MAX_VELOCITY_2 = 9 * np.pi  # rad / s
GOAL_HEIGHT = 1.0  # m, of the free end above the fixed one
START_LIMIT = 0.1  # an episode starts with all four state variables uniform in (-START_LIMIT, START_LIMIT)

TURNS = 3
"""Whole turns that an angle can make in a step: the links are slower than 9 pi rad/s at its beginning and its end."""


class State(NamedTuple):
    """Angle of the first link from hanging down, angle of the second one from the first, and their rates; float64."""

    angle_1: Any
    angle_2: Any
    velocity_1: Any
    velocity_2: Any


def acrobot() -> EnvDefinition:
    """Acrobot-v1: -1 for every step before the one in which the free end is high enough, which ends the episode."""
    from gymnasium.spaces import Discrete

    return EnvDefinition(
        obs_dim=6, action_space=Discrete(3), max_episode_steps=500, reset=reset, step=step, observe=observe
    )


def reset(random: Random) -> State:
    start = (random.uniform(-START_LIMIT, START_LIMIT) for _ in range(4))
    return State(*(number.to(torch.float32).to(torch.float64) for number in start))


def step(state: State, action: Any) -> tuple[State, Any, Any]:
    torque = action.to(torch.float64) - 1.0  # N m
    angle_1, angle_2, velocity_1, velocity_2 = runge_kutta(state, torque)
    state = State(
        wrap(angle_1),
        wrap(angle_2),
        torch.clamp(velocity_1, -MAX_VELOCITY_1, MAX_VELOCITY_1),
        torch.clamp(velocity_2, -MAX_VELOCITY_2, MAX_VELOCITY_2),
    )
    is_up = -torch.cos(state.angle_1) - torch.cos(state.angle_2 + state.angle_1) > GOAL_HEIGHT
    return state, is_up.to(torch.float64) - 1.0, is_up


def observe(state: State) -> list[Any]:
    angles = (state.angle_1, state.angle_2)
    directions = [function(angle) for angle in angles for function in (torch.cos, torch.sin)]
    return [*directions, state.velocity_1, state.velocity_2]


def runge_kutta(state: State, torque: Any) -> list[Any]:
    """The state after a step of the classical method of fourth order."""
    half = TIME_STEP / 2.0
    k1 = derivatives(state, torque)
    k2 = derivatives(_moved(state, half, k1), torque)
    k3 = derivatives(_moved(state, half, k2), torque)
    k4 = derivatives(_moved(state, TIME_STEP, k3), torque)
    return [
        number + (a + b * 2.0 + c * 2.0 + d) * (TIME_STEP / 6.0)
        for number, a, b, c, d in zip(state, k1, k2, k3, k4, strict=True)
    ]


def derivatives(state: State, torque: Any) -> State:
    """The rates of the state variables, by the equations of motion; names are those of Sutton and Barto's book."""
    angle_1, angle_2, velocity_1, velocity_2 = state
    sin_2 = torch.sin(angle_2)
    cos_2 = torch.cos(angle_2)
    d1 = MASS * CENTRE**2 + MASS * (LENGTH**2 + CENTRE**2 + 2 * LENGTH * CENTRE * cos_2) + INERTIA + INERTIA
    d2 = MASS * (CENTRE**2 + LENGTH * CENTRE * cos_2) + INERTIA
    phi_2 = MASS * CENTRE * GRAVITY * torch.cos(angle_1 + angle_2 - np.pi / 2)
    phi_1 = (
        -MASS * LENGTH * CENTRE * velocity_2**2 * sin_2
        - 2 * MASS * LENGTH * CENTRE * velocity_2 * velocity_1 * sin_2
        + (MASS * CENTRE + MASS * LENGTH) * GRAVITY * torch.cos(angle_1 - np.pi / 2)
        + phi_2
    )
    numerator = torque + d2 / d1 * phi_1 - MASS * LENGTH * CENTRE * velocity_1**2 * sin_2 - phi_2
    acceleration_2 = numerator / (MASS * CENTRE**2 + INERTIA - d2**2 / d1)
    acceleration_1 = -(d2 * acceleration_2 + phi_1) / d1
    return State(velocity_1, velocity_2, acceleration_1, acceleration_2)


def wrap(angle: Any) -> Any:
    """The angle between -pi and pi."""
    for _ in range(TURNS):
        angle = torch.where(angle > np.pi, angle - 2 * np.pi, angle)
    for _ in range(TURNS):
        angle = torch.where(angle < -np.pi, angle + 2 * np.pi, angle)
    return angle


def _moved(state: State, seconds: float, rates: State) -> State:
    return State(*(number + rate * seconds for number, rate in zip(state, rates, strict=True)))
