"""MountainCar: drive a car that is too weak for the slope out of a valley, by swinging.

The task is that of Moore (1990), "Efficient memory-based learning for robot control", as in Sutton and Barto's book,
with the constants and the arithmetic of Gymnasium's ``MountainCar-v0``: float64, in the same order of operations.
"""

from typing import Any, NamedTuple

import torch

from pgkit.envs.definition import EnvDefinition, Random

MIN_POSITION = -1.2
MAX_POSITION = 0.6
MAX_SPEED = 0.07
GOAL_POSITION = 0.5
FORCE = 0.001
GRAVITY = 0.0025


class State(NamedTuple):
    """Position along the valley and velocity; float64."""

    position: Any
    velocity: Any


def mountain_car(goal_velocity: float = 0.0, shaping: float = 0.0) -> EnvDefinition:
    """MountainCar-v0: -1 for every step, until the car is at the goal.

    A random policy never gets there within 1,000 steps, so there is nothing to learn from. With ``shaping``, which
    Gymnasium's does not have, every step pays for the mechanical energy that the car gains (Ng, Harada and Russell
    1999, "Policy invariance under reward transformations"): the return of an episode is that of the task, plus
    ``shaping`` times the energy at its end minus that at its start.

    Args:
        goal_velocity: velocity that the car needs at the goal at least.
        shaping: reward for as much energy as lifts the car from the bottom of the valley to the top.
    """
    from gymnasium.spaces import Discrete

    def step(state: State, action: Any) -> tuple[State, float, Any]:
        push = (action - 1).to(torch.float64) * FORCE + torch.cos(3.0 * state.position) * -GRAVITY
        velocity = torch.clamp(state.velocity + push, -MAX_SPEED, MAX_SPEED)
        position = torch.clamp(state.position + velocity, MIN_POSITION, MAX_POSITION)
        velocity = torch.where((position == MIN_POSITION) & (velocity < 0.0), 0.0, velocity)
        is_there = (position >= GOAL_POSITION) & (velocity >= goal_velocity)
        after = State(position, velocity)
        reward = -1.0 if shaping == 0.0 else (_energy(after) - _energy(state)) * shaping - 1.0
        return after, reward, is_there

    return EnvDefinition(
        obs_dim=2, action_space=Discrete(3), max_episode_steps=200, reset=reset, step=step, observe=list
    )


def _energy(state: State) -> Any:
    """Mechanical energy: 1 more at rest on top than at the bottom."""
    height = (torch.sin(3.0 * state.position) + 1.0) / 2.0
    return height + state.velocity * state.velocity * (3.0 / (4.0 * GRAVITY))


def reset(random: Random) -> State:
    return State(random.uniform(-0.6, -0.4), 0.0)
