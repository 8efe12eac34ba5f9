"""CartPole-v1 for any number of environments at once, on CPU or GPU.

The same task as Gymnasium's ``CartPole-v1`` (Barto, Sutton and Anderson 1983): the same float64 arithmetic in the
same order, so that from the same state both give the same next positions and flags to the last bit, and velocities
that differ by rounding of sine and cosine only. Unlike Gymnasium's ``CartPoleVectorEnv``, which draws every reset
from one generator, each environment has its own stream, a function of its seed alone.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pgkit.compiler.lazy import lazy_kernel
from pgkit.envs.base import Elementwise, EnvInfo, Transition, check_seeds
from pgkit.envs.spaces import check_action
from pgkit.errors import PgkitError
from pgkit.seeding import uniform
from pgkit.system.cpu import use_compiled

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

RESETS, STEPS, X, X_VELOCITY, ANGLE, ANGLE_VELOCITY = range(6)
"""Rows of the table, one column for each environment; the last four in Gymnasium's order."""

_STATE_COLUMNS = ((torch.float64, 1),) * 6 + ((torch.bool, 1),)
_STEP_INPUTS = ((torch.int64, 1), *_STATE_COLUMNS, (torch.int64, 1))
_STEP_OUTPUTS = (*_STATE_COLUMNS, *((torch.float32, 4),) * 4, (torch.float32, 1), *((torch.bool, 1),) * 3)
"""The columns of a compiled step: action, state, key -> state, obs, reward, terminated, truncated, valid."""

_compile = lazy_kernel("pgkit.compiler.elementwise:compile_elementwise")


class CartPole:
    """K environments; NEXT_STEP autoreset. A step waits for nothing: no value travels from the device to Python."""

    def __init__(self, count: int, max_episode_steps: int = 500, device: torch.device | str = "cpu") -> None:
        device = torch.device(device)
        self.info = EnvInfo(
            name="CartPole-v1",
            num_envs=count,
            obs_dim=4,
            action_space=_action_space(),
            autoreset="next_step",
            max_episode_steps=max_episode_steps,
            backend="pgkit",
            vectorization="native",
            device=device,
            can_step_subset=True,
        )
        self._keys = torch.zeros(count, dtype=torch.int64, device=device)
        self._table = torch.zeros(6, count, dtype=torch.float64, device=device)
        self._over = torch.zeros(count, dtype=torch.bool, device=device)
        self._is_reset, self._limit = False, max_episode_steps
        self.elementwise = Elementwise(_element(max_episode_steps), [*self._table, self._over], [self._keys])

    def reset(self, seeds: Sequence[int], index: Tensor | None = None) -> Tensor:
        keys = np.array(check_seeds(seeds, index, self.info.num_envs), dtype=np.uint64).view(np.int64)
        where = slice(None) if index is None else index
        self._keys[where] = torch.from_numpy(keys).to(self.info.device)
        self._table[:, where] = _starts(self._keys[where], torch.zeros_like(self._table[RESETS, where]))
        self._over[where] = False
        self._is_reset = True
        return self._table[X:, where].T.float().contiguous()

    def step(self, action: Tensor, index: Tensor | None = None) -> Transition:
        check_action(action, self.info.num_envs if index is None else len(index), ())
        if not self._is_reset:
            raise PgkitError("environment 'CartPole-v1': reset(seeds) must come before the first step")
        table, over, keys = self._table, self._over, self._keys
        if index is not None:
            table, over, keys = table.index_select(1, index), over[index], keys[index]
        step = _compiled_step if use_compiled(torch.float64, table.device) else _tensor_step
        transition = step(self._limit, action, table, over, keys)
        if index is not None:
            self._table.index_copy_(1, index, table)
            self._over[index] = over
        return transition

    def resume_problem(self) -> None:
        return None

    def state(self, index: Tensor | None = None) -> dict[str, Tensor]:
        where = slice(None) if index is None else index
        return {"keys": self._keys[where], "table": self._table[:, where].T.contiguous(), "over": self._over[where]}

    def restore(self, state: Mapping[str, Tensor], index: Tensor | None = None) -> None:
        where = slice(None) if index is None else index
        self._keys[where], self._over[where] = state["keys"], state["over"]
        self._table[:, where] = state["table"].T
        self._is_reset = True

    def close(self) -> None:
        pass


def _moved(action: Any, x: Any, x_velocity: Any, angle: Any, angle_velocity: Any) -> tuple[Any, ...]:
    """The four numbers after one step of the dynamics. The order of operations is Gymnasium's.

    Half the angular acceleration stands for the whole: halving is exact.
    """
    cos, sin = torch.cos(angle), torch.sin(angle)
    force = (action * 2 - 1).to(torch.float64) * FORCE
    push = (angle_velocity * angle_velocity * POLE_MASS_LENGTH * sin + force) / TOTAL_MASS
    inertia = 4.0 / 3.0 - cos * cos * POLE_MASS / TOTAL_MASS
    half = (sin * GRAVITY - cos * push) / inertia
    acceleration = push - half * (2 * POLE_MASS_LENGTH) * cos / TOTAL_MASS
    return (
        x + x_velocity * TIME_STEP,
        x_velocity + acceleration * TIME_STEP,
        angle + angle_velocity * TIME_STEP,
        angle_velocity + half * (2 * TIME_STEP),
    )


def _stepped(limit: int, action: Any, table: Sequence[Any], starts: Sequence[Any], over: Any) -> tuple[Any, ...]:
    """The table after one step or, where an episode is over, the next start; and whether it terminated, or was cut."""
    resets, steps, *state = table
    moved = [resets, steps + 1.0, *_moved(action, *state)]
    after = [torch.where(over, start, own) for start, own in zip(starts, moved, strict=True)]
    terminated = (torch.abs(after[X]) > POSITION_LIMIT) | (torch.abs(after[ANGLE]) > ANGLE_LIMIT)
    return *after, terminated, after[STEPS] >= limit


def _start(key: Any, resets: Any, component: Any) -> Any:
    """One of the four numbers after ``resets`` resets, uniform in (-START, START)."""
    return (uniform(key, resets.to(torch.int64) * 4 + component).to(torch.float64) - 0.5) * (2 * START)


def _starts(keys: Tensor, resets: Tensor) -> Tensor:
    """Columns of the table after so many resets."""
    numbers = _start(keys, resets, torch.arange(4, device=keys.device)[:, None])
    return torch.cat([(resets + 1)[None], torch.zeros_like(resets)[None], numbers])


@lru_cache
def _element(limit: int) -> Callable[..., list[Any]]:
    """The step of one environment, for :class:`pgkit.envs.base.Elementwise`."""

    def step(action: Any, *state: Any) -> list[Any]:
        *table, over, key = state
        resets, nothing = table[RESETS], table[STEPS] * 0.0
        starts = [resets + 1.0, nothing, *(_start(key, resets, component) for component in range(4))]
        *after, terminated, truncated = _stepped(limit, action, table, starts, over)
        obs = [number.to(torch.float32) for number in after[X:]]
        valid = ~over
        return [*after, terminated | truncated, *obs, valid.to(torch.float32), terminated, truncated, valid]

    return step


def _tensor_step(limit: int, action: Tensor, table: Tensor, over: Tensor, keys: Tensor) -> Transition:
    """A step of all columns of the table; table and ``over`` are changed."""
    *after, terminated, truncated = _stepped(
        limit, action, table.unbind(0), _starts(keys, table[RESETS]).unbind(0), over
    )
    valid = ~over
    torch.stack(after, out=table)
    torch.logical_or(terminated, truncated, out=over)
    return Transition(table[X:].T.float().contiguous(), valid.float(), terminated, truncated, valid)


def _compiled_step(limit: int, action: Tensor, table: Tensor, over: Tensor, keys: Tensor) -> Transition:
    """The same in one loop."""
    count, action = len(keys), action.to(table.device, torch.int64).contiguous()
    if ((action != 0) & (action != 1)).any():
        raise PgkitError(f"action: expected 0 or 1, got {sorted(set(action.tolist()) - {0, 1})}")
    obs, reward, flags = (
        table.new_empty(count, 4, dtype=torch.float32),
        table.new_empty(count, dtype=torch.float32),
        over.new_empty(3, count),
    )
    row = 8 * count
    state = [*range(table.data_ptr(), table.data_ptr() + 6 * row, row), over.data_ptr()] if count else [0] * 7
    first, flag = obs.data_ptr(), flags.data_ptr()
    _compile(_element(limit), _STEP_INPUTS, _STEP_OUTPUTS)(
        *(count, action.data_ptr(), *state, keys.data_ptr(), *state, *range(first, first + 16, 4)),
        *(reward.data_ptr(), flag, flag + count, flag + 2 * count),
    )
    return Transition(obs, reward, *flags.unbind(0))


def _action_space() -> "Space[Any]":
    from gymnasium.spaces import Discrete

    return Discrete(2)
