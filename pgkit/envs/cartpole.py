"""CartPole-v1 for any number of environments at once, on torch tensors, on CPU or GPU.

The same task as Gymnasium's ``CartPole-v1`` (Barto, Sutton and Anderson 1983): the same float64 arithmetic in the
same order, so that from the same state both give the same next positions and flags to the last bit, and velocities
that differ by rounding of sine and cosine only. Unlike Gymnasium's ``CartPoleVectorEnv``, which draws every reset
from one generator, each environment has its own stream, a function of its seed alone.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from pgkit.envs.base import EnvInfo, Transition
from pgkit.envs.spaces import check_action
from pgkit.seeding import uniform

if TYPE_CHECKING:
    from gymnasium import Space

GRAVITY = 9.8
POLE_MASS = 0.1
TOTAL_MASS = POLE_MASS + 1.0
HALF_LENGTH = 0.5
POLE_MASS_LENGTH = POLE_MASS * HALF_LENGTH
FORCE = 10.0
TIME_STEP = 0.02
POSITION_LIMIT = 2.4
ANGLE_LIMIT = 12 * 2 * np.pi / 360
START = 0.05  # an episode starts with all four numbers in (-START, START)

# No episode that starts there ends within 6 steps: the angular acceleration stays below 18.6, so after 6 steps
# the angle is below 0.05 + 0.02 * (6 * 0.05 + 15 * 0.02 * 18.6) = 0.168 < ANGLE_LIMIT, and the position below 1.
SHORTEST_EPISODE = 7

# Rows of the table, one column for each environment. Positions, velocities and accelerations stand one above the
# other, so that an Euler step is: rows 2-5 += rows 4-7 * time step.
RESETS, STEPS, X, ANGLE, X_VELOCITY, ANGLE_VELOCITY, X_ACCELERATION, HALF_ANGLE_ACCELERATION = range(8)
STATE = 6  # rows that a reset replaces


class CartPole:
    """K environments; NEXT_STEP autoreset. A step waits for nothing: no value travels from the device to Python."""

    def __init__(self, count: int, max_episode_steps: int = 500, device: torch.device | str = "cpu") -> None:
        device = torch.device(device)
        self.info = EnvInfo(
            name="CartPole-v1",
            count=count,
            obs_dim=4,
            action_space=_action_space(),
            autoreset="next_step",
            max_episode_steps=max_episode_steps,
            backend="pgkit",
            vectorization="native",
            device=device,
            can_step_subset=True,
        )
        wide = {"dtype": torch.float64, "device": device}
        self._forces = torch.tensor([-FORCE, FORCE], **wide)
        self._time_steps = torch.tensor([[1.0], [1.0], [1.0], [2.0]], **wide) * TIME_STEP
        self._limits = torch.tensor([[max_episode_steps - 0.5], [POSITION_LIMIT], [ANGLE_LIMIT]], **wide)
        self._keys = torch.zeros(count, dtype=torch.int64, device=device)
        self._table = torch.zeros(8, count, **wide)
        self._starts = torch.zeros(STATE, count, **wide)  # what the next reset puts into the table
        self._over = torch.zeros(count, dtype=torch.bool, device=device)
        # In this many steps no environment is reset twice, so that drawing starts so often is enough.
        self._drawn_for = min(max_episode_steps, SHORTEST_EPISODE) + 1
        self._until_drawing = 0

    def reset(self, seeds: Sequence[int], index: Tensor | None = None) -> Tensor:
        keys = np.array([int(seed) & 0xFFFFFFFFFFFFFFFF for seed in seeds], dtype=np.uint64).view(np.int64)
        where = slice(None) if index is None else index
        self._keys[where] = torch.from_numpy(keys).to(self.info.device)
        self._table[RESETS, where] = 0
        self._draw_starts()
        self._table[:STATE, where] = self._starts[:, where]
        self._over[where] = False
        self._until_drawing = 0
        return _observe(self._table[:, where])

    def step(self, action: Tensor, index: Tensor | None = None) -> Transition:
        check_action(action, self.info.count if index is None else len(index), ())
        if self._until_drawing == 0:
            self._draw_starts()
        self._until_drawing -= 1
        if index is None:
            table, starts, over = self._table, self._starts, self._over
        else:
            table, starts, over = self._table[:, index], self._starts[:, index], self._over[index]
        _move(table, self._forces.take(action), self._time_steps)
        state = table[:STATE]
        torch.where(over, starts, state, out=state)
        truncated, out_of_track, fallen = (table[STEPS : ANGLE + 1].abs() > self._limits).unbind(0)
        terminated = out_of_track | fallen
        valid = ~over
        if index is None:
            self._over = terminated | truncated
        else:
            self._over[index] = terminated | truncated
            self._table[:, index] = table
        return Transition(_observe(table), valid.to(torch.float32), terminated, truncated, valid)

    def close(self) -> None:
        pass

    def _draw_starts(self) -> None:
        """The next start of every environment: a function of its key and of how often it was reset before."""
        self._until_drawing = self._drawn_for
        resets = self._table[RESETS]
        components = torch.arange(4, device=resets.device)[:, None]
        self._starts[RESETS] = resets + 1
        self._starts[X:] = (uniform(self._keys, resets.long() * 4 + components).double() - 0.5) * (2 * START)


def _move(table: Tensor, force: Tensor, time_steps: Tensor) -> None:
    """One step of the dynamics, in place; ``force (k,)``. The order of operations is Gymnasium's.

    Half the angular acceleration is kept instead of the whole: halving is exact, and saves an operation.
    """
    _, steps, _, angle, _, angle_velocity, acceleration, half_angle_acceleration = table.unbind(0)
    cos, sin = angle.cos(), angle.sin()
    push = angle_velocity.square().mul_(POLE_MASS_LENGTH).mul_(sin).add_(force).div_(TOTAL_MASS)
    inertia = torch.rsub(cos.square().mul_(POLE_MASS).div_(TOTAL_MASS), 4.0 / 3.0)
    torch.div(sin.mul_(GRAVITY).sub_(cos * push), inertia, out=half_angle_acceleration)
    reaction = (half_angle_acceleration * (2 * POLE_MASS_LENGTH)).mul_(cos).div_(TOTAL_MASS)
    torch.sub(push, reaction, out=acceleration)
    table[X : ANGLE_VELOCITY + 1].add_(table[X_VELOCITY:] * time_steps)
    steps.add_(1)


def _observe(table: Tensor) -> Tensor:
    """``(k, 4)`` float32: position, velocity, angle, angular velocity."""
    count = table.shape[1]
    obs = torch.empty(count, 2, 2, device=table.device)
    return obs.copy_(table[X : ANGLE_VELOCITY + 1].view(2, 2, count).permute(2, 1, 0)).view(count, 4)


def _action_space() -> "Space":
    from gymnasium.spaces import Discrete

    return Discrete(2)
