"""MountainCarContinuous: MountainCar with a force between -1 and 1, whose square costs reward.

The constants and the arithmetic are those of Gymnasium's ``MountainCarContinuous-v0``. There an episode starts with a
position of float64, and goes on with numbers that NumPy rounds to float32 one operation after the other. So does this.
"""

from typing import Any, NamedTuple

import numpy as np
import torch

from pgkit.envs.definition import EnvDefinition, Random

MIN_POSITION = float(np.float32(-1.2))
MAX_POSITION = float(np.float32(0.6))
MAX_SPEED = float(np.float32(0.07))
GOAL_POSITION = float(np.float32(0.45))
POWER = float(np.float32(0.0015))
GRAVITY = 0.0025


class State(NamedTuple):
    """Position along the valley and velocity, and whether the episode has just started.

    Attributes:
        start: float64, where the episode has started.
        position: float32.
        velocity: float32.
        is_start: bool: ``start`` is where the car is, and ``position`` the same rounded.
    """

    start: Any
    position: Any
    velocity: Any
    is_start: Any


def mountain_car_continuous(goal_velocity: float = 0.0) -> EnvDefinition:
    """MountainCarContinuous-v0: minus a tenth of the squared force for every step, and 100 at the goal.

    Args:
        goal_velocity: velocity that the car needs at the goal at least.
    """
    from gymnasium.spaces import Box

    goal_velocity = float(np.float32(goal_velocity))

    def step(state: State, action: list[Any]) -> tuple[State, Any, Any]:
        (force,) = action
        velocity, position = move(state, force)
        is_there = (position >= GOAL_POSITION) & (velocity >= goal_velocity)
        exact = force.to(torch.float64)
        reward = is_there.to(torch.float64) * 100.0 - exact * exact * 0.1
        return State(state.start, position, velocity, False), reward, is_there

    return EnvDefinition(
        obs_dim=2,
        action_space=Box(-1.0, 1.0, (1,)),
        max_episode_steps=999,
        reset=reset,
        step=step,
        observe=lambda state: [state.position, state.velocity],
    )


def reset(random: Random) -> State:
    start = random.uniform(-0.6, -0.4)
    position = start.to(torch.float32)
    return State(start, position, position * 0.0, True)


def move(state: State, force: Any) -> tuple[Any, Any]:
    """Velocity and position, float32, after a step with this force, float32."""
    # 3 * position is a product of float64 at first, of float32 later; the cosine is one of float64.
    angle = torch.where(state.is_start, state.start * 3.0, (state.position * 3.0).to(torch.float64))
    pull = (torch.cos(angle) * GRAVITY).to(torch.float32)
    velocity = torch.clamp(state.velocity + (force * POWER - pull), -MAX_SPEED, MAX_SPEED)
    from_start = (state.start + velocity.to(torch.float64)).to(torch.float32)
    position = torch.where(state.is_start, from_start, state.position + velocity)
    position = torch.clamp(position, MIN_POSITION, MAX_POSITION)
    velocity = torch.where((position == MIN_POSITION) & (velocity < 0.0), 0.0, velocity)
    return velocity, position
