"""CartPole: balance a pole that is hinged to a cart by pushing the cart to the left or to the right.

The task is that of Barto, Sutton and Anderson (1983), "Neuronlike adaptive elements that can solve difficult learning
control problems", with the constants and the arithmetic of Gymnasium's ``CartPole-v1``: float64, in the same order of
operations. From the same state, both give the same next positions and flags to the last bit, and velocities that
differ only by the rounding of sine and cosine.
"""

from typing import Any, NamedTuple

import numpy as np
import torch

from pgkit.envs.definition import EnvDefinition, Random

GRAVITY = 9.8  # m / s^2
POLE_MASS = 0.1  # kg
TOTAL_MASS = POLE_MASS + 1.0  # kg, of pole and cart
HALF_LENGTH = 0.5  # m, from the pivot to the pole's centre of mass
POLE_MASS_LENGTH = POLE_MASS * HALF_LENGTH  # kg m
FORCE = 10.0  # N, to the left or to the right
TIME_STEP = 0.02  # s
POSITION_LIMIT = 2.4  # m
ANGLE_LIMIT = 12 * 2 * np.pi / 360  # rad
START_LIMIT = 0.05  # an episode starts with all four state variables uniform in (-START_LIMIT, START_LIMIT)


class State(NamedTuple):
    """Position in m, angle in rad from the upright, and their rates; float64."""

    x: Any
    x_velocity: Any
    angle: Any
    angle_velocity: Any


def cartpole(sutton_barto_reward: bool = False) -> EnvDefinition:
    """CartPole-v1: 1 for every step, up to the one in which the pole falls or the cart leaves the track.

    Args:
        sutton_barto_reward: 0 for every step, and -1 for the one in which the pole falls.
    """
    from gymnasium.spaces import Discrete

    def reset(random: Random) -> State:
        return State(*(random.uniform(-START_LIMIT, START_LIMIT) for _ in range(4)))

    def step(state: State, action: Any) -> tuple[State, Any, Any]:
        state = integrate(state, action)
        fell = (torch.abs(state.x) > POSITION_LIMIT) | (torch.abs(state.angle) > ANGLE_LIMIT)
        return state, -fell.to(torch.float32) if sutton_barto_reward else 1.0, fell

    return EnvDefinition(
        obs_dim=4, action_space=Discrete(2), max_episode_steps=500, reset=reset, step=step, observe=list
    )


def integrate(state: State, action: Any) -> State:
    """One Euler step of the dynamics, in Gymnasium's order of operations.

    Gymnasium's angular acceleration has ``HALF_LENGTH = 0.5`` as a factor of its denominator. Here that factor is left
    out, so that ``half`` is half of the acceleration: halving and doubling are exact, so no result changes.
    """
    x, x_velocity, angle, angle_velocity = state
    cos = torch.cos(angle)
    sin = torch.sin(angle)
    force = (action * 2 - 1).to(torch.float64) * FORCE
    push = (angle_velocity * angle_velocity * POLE_MASS_LENGTH * sin + force) / TOTAL_MASS
    inertia = 4.0 / 3.0 - cos * cos * POLE_MASS / TOTAL_MASS
    half = (sin * GRAVITY - cos * push) / inertia
    acceleration = push - half * (2 * POLE_MASS_LENGTH) * cos / TOTAL_MASS
    return State(
        x + x_velocity * TIME_STEP,
        x_velocity + acceleration * TIME_STEP,
        angle + angle_velocity * TIME_STEP,
        angle_velocity + half * (2 * TIME_STEP),
    )
