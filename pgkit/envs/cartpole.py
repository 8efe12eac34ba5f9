"""CartPole-v1 for any number of environments at once, on torch tensors, on CPU or GPU.

The same task as Gymnasium's ``CartPole-v1`` (Barto, Sutton and Anderson 1983): the same float64 arithmetic in the
same order, so that from the same state both give the same next positions and flags to the last bit, and velocities
that differ by rounding of sine and cosine only. Unlike Gymnasium's ``CartPoleVectorEnv``, which draws every reset
from one generator, each environment has its own stream, a function of its seed alone.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pgkit.envs.base import EnvInfo, Transition, check_seeds
from pgkit.envs.spaces import check_action
from pgkit.seeding import uniform
from pgkit.types import PgkitError

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
        limits = [[max_episode_steps - 0.5], [POSITION_LIMIT], [ANGLE_LIMIT]]
        self._forces = torch.tensor([-FORCE, FORCE], dtype=torch.float64, device=device)
        self._time_steps = torch.tensor([[1], [1], [1], [2]], dtype=torch.float64, device=device) * TIME_STEP
        self._limits = torch.tensor(limits, dtype=torch.float64, device=device)
        self._keys = torch.zeros(count, dtype=torch.int64, device=device)
        self._table = torch.zeros(8, count, dtype=torch.float64, device=device)
        self._rows = _rows(self._table)
        self._starts = torch.zeros(STATE, count, dtype=torch.float64, device=device)  # where the next reset leads
        self._over = torch.zeros(count, dtype=torch.bool, device=device)
        # In this many steps no environment is reset twice, so that drawing starts so often is enough.
        self._drawn_for = min(max_episode_steps, SHORTEST_EPISODE) + 1
        self._until_drawing = -1

    def reset(self, seeds: Sequence[int], index: Tensor | None = None) -> Tensor:
        keys = np.array(check_seeds(seeds, index, self.info.count), dtype=np.uint64).view(np.int64)
        where = slice(None) if index is None else index
        self._keys[where] = torch.from_numpy(keys).to(self.info.device)
        self._table[RESETS, where] = 0
        self._draw_starts()
        self._table[:STATE, where] = self._starts[:, where]
        self._over[where] = False
        self._until_drawing = 0
        return _observe(_rows(self._table[:, where]))

    def step(self, action: Tensor, index: Tensor | None = None) -> Transition:
        check_action(action, self.info.count if index is None else len(index), ())
        if self._until_drawing <= 0:
            if self._until_drawing < 0:
                raise PgkitError("environment 'CartPole-v1': reset(seeds) must come before the first step")
            self._draw_starts()
        self._until_drawing -= 1
        table, rows, starts, over = self._table, self._rows, self._starts, self._over
        if index is not None:
            table, starts, over = table.index_select(1, index), starts.index_select(1, index), over[index]
            rows = _rows(table)
        _move(rows, self._forces.take(action), self._time_steps)
        torch.where(over, starts, rows.state, out=rows.state)
        truncated, out_of_track, fallen = (rows.limited.abs() > self._limits).unbind(0)
        terminated = out_of_track | fallen
        if index is None:
            self._over = terminated | truncated
        else:
            self._over[index] = terminated | truncated
            self._table.index_copy_(1, index, table)
        valid = ~over
        return Transition(_observe(rows), valid.float(), terminated, truncated, valid)

    def why_inexact(self) -> None:
        return None

    def state(self, index: Tensor | None = None) -> dict[str, Tensor]:
        where = slice(None) if index is None else index
        return {"keys": self._keys[where], "table": self._table[:, where].T.contiguous(), "over": self._over[where]}

    def restore(self, state: Mapping[str, Tensor], index: Tensor | None = None) -> None:
        where = slice(None) if index is None else index
        self._keys[where], self._over[where] = state["keys"], state["over"]
        self._table[:, where] = state["table"].T
        self._until_drawing = 0  # the next start is a function of what has been restored

    def close(self) -> None:
        pass

    def _draw_starts(self) -> None:
        """The next start of every environment: a function of its key and of how often it was reset before."""
        self._until_drawing = self._drawn_for
        resets = self._table[RESETS]
        components = torch.arange(4, device=resets.device)[:, None]
        self._starts[RESETS] = resets + 1
        self._starts[X:] = (uniform(self._keys, resets.long() * 4 + components).double() - 0.5) * (2 * START)


class _Rows(NamedTuple):
    """Views of a table, made once: slicing costs as much as computing at a few environments."""

    state: Tensor
    steps: Tensor
    angle: Tensor
    angle_velocity: Tensor
    acceleration: Tensor
    half_angle_acceleration: Tensor
    moved: Tensor  # positions and velocities
    moving: Tensor  # velocities and accelerations
    limited: Tensor  # steps and positions
    observed: Tensor  # (k, 2, 2): position, velocity, angle, angular velocity


def _rows(table: Tensor) -> _Rows:
    moved = table[X : ANGLE_VELOCITY + 1]
    return _Rows(
        state=table[:STATE],
        steps=table[STEPS],
        angle=table[ANGLE],
        angle_velocity=table[ANGLE_VELOCITY],
        acceleration=table[X_ACCELERATION],
        half_angle_acceleration=table[HALF_ANGLE_ACCELERATION],
        moved=moved,
        moving=table[X_VELOCITY:],
        limited=table[STEPS : ANGLE + 1],
        observed=moved.view(2, 2, -1).permute(2, 1, 0),
    )


def _move(rows: _Rows, force: Tensor, time_steps: Tensor) -> None:
    """One step of the dynamics, in place; ``force (k,)``. The order of operations is Gymnasium's.

    Half the angular acceleration is kept instead of the whole: halving is exact, and saves an operation.
    """
    cos, sin, velocity = rows.angle.cos(), rows.angle.sin(), rows.angle_velocity
    push = (velocity * velocity).mul_(POLE_MASS_LENGTH).mul_(sin).add_(force).div_(TOTAL_MASS)
    inertia = torch.rsub((cos * cos).mul_(POLE_MASS).div_(TOTAL_MASS), 4.0 / 3.0)
    torch.div(sin.mul_(GRAVITY).sub_(cos * push), inertia, out=rows.half_angle_acceleration)
    reaction = (rows.half_angle_acceleration * (2 * POLE_MASS_LENGTH)).mul_(cos).div_(TOTAL_MASS)
    torch.sub(push, reaction, out=rows.acceleration)
    rows.moved.add_(rows.moving * time_steps)
    rows.steps.add_(1)


def _observe(rows: _Rows) -> Tensor:
    """``(k, 4)`` float32, in Gymnasium's order."""
    obs = torch.empty(len(rows.observed), 2, 2, device=rows.observed.device)
    return obs.copy_(rows.observed).view(-1, 4)


def _action_space() -> "Space[Any]":
    from gymnasium.spaces import Discrete

    return Discrete(2)
