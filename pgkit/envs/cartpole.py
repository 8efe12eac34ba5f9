"""CartPole-v1 for any number of environments at once, on CPU or GPU.

The task is that of Barto, Sutton and Anderson (1983), "Neuronlike adaptive elements that can solve difficult learning
control problems", with the constants and the arithmetic of Gymnasium's ``CartPole-v1``: float64, in the same order of
operations. From the same state, both give the same next positions and flags to the last bit, and velocities that
differ only by the rounding of sine and cosine.

Gymnasium's ``CartPoleVectorEnv`` draws all resets from one generator. Here each environment has its own stream, which
is a function of its seed alone.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pgkit.compiler.lazy import lazy_kernel
from pgkit.envs.actions import check_action
from pgkit.envs.base import Elementwise, EnvInfo, Transition, check_seeds
from pgkit.errors import PgkitError
from pgkit.seeding import uniform
from pgkit.system.cpu import use_compiled

if TYPE_CHECKING:
    from gymnasium import Space

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

RESETS, STEPS, X, X_VELOCITY, ANGLE, ANGLE_VELOCITY = range(6)
"""Rows of the state table: resets so far, steps of the episode, and the observation in Gymnasium's order."""

_STATE_COLUMNS = ((torch.float64, 1),) * 6 + ((torch.bool, 1),)
_STEP_INPUTS = ((torch.int64, 1), *_STATE_COLUMNS, (torch.int64, 1))
_STEP_OUTPUTS = (*_STATE_COLUMNS, *((torch.float32, 4),) * 4, (torch.float32, 1), *((torch.bool, 1),) * 3)
"""Type and stride of the columns of a compiled step: action, state, key -> state, obs, reward, terminated, truncated,
valid."""

_compile = lazy_kernel("pgkit.compiler.elementwise:compile_elementwise")


class CartPole:
    """K CartPole environments on tensors, with "next_step" autoreset; see :class:`pgkit.envs.Environments`.

    No step reads a value from the device, so steps on a GPU are queued without waiting.

    Args:
        num_envs: K.
        max_episode_steps: time limit in steps, after which an episode is truncated.
        device: device of the state and of all tensors.

    Example:
        >>> import torch
        >>> from pgkit.envs import CartPole
        >>> envs = CartPole(3)
        >>> envs.reset([0, 1, 2]).shape
        torch.Size([3, 4])
        >>> envs.step(torch.tensor([0, 1, 1])).reward
        tensor([1., 1., 1.])
    """

    def __init__(self, num_envs: int, max_episode_steps: int = 500, device: torch.device | str = "cpu") -> None:
        device = torch.device(device)
        self.info = EnvInfo(
            name="CartPole-v1",
            num_envs=num_envs,
            obs_dim=4,
            action_space=_action_space(),
            autoreset="next_step",
            max_episode_steps=max_episode_steps,
            backend="pgkit",
            vectorization="native",
            device=device,
            can_step_subset=True,
        )
        self._keys = torch.zeros(num_envs, dtype=torch.int64, device=device)  # of the random streams
        self._table = torch.zeros(6, num_envs, dtype=torch.float64, device=device)  # one column per environment
        self._over = torch.zeros(num_envs, dtype=torch.bool, device=device)  # episode over: the next step resets
        self._max_episode_steps = max_episode_steps
        self._was_reset = False
        self.elementwise = Elementwise(
            _elementwise_step(max_episode_steps), state=[*self._table, self._over], constants=[self._keys]
        )

    def reset(self, seeds: Sequence[int], index: Tensor | None = None) -> Tensor:
        keys = np.array(check_seeds(seeds, index, self.info.num_envs), dtype=np.uint64).view(np.int64)
        columns = slice(None) if index is None else index
        self._keys[columns] = torch.from_numpy(keys).to(self.info.device)
        self._table[:, columns] = _start_table(self._keys[columns], torch.zeros_like(self._table[RESETS, columns]))
        self._over[columns] = False
        self._was_reset = True
        return self._table[X:, columns].T.float().contiguous()

    def step(self, action: Tensor, index: Tensor | None = None) -> Transition:
        check_action(action, self.info.num_envs if index is None else len(index), ())
        if not self._was_reset:
            raise PgkitError("environment 'CartPole-v1': call reset(seeds) before the first step")
        table = self._table
        over = self._over
        keys = self._keys
        if index is not None:
            table = table.index_select(1, index)
            over = over[index]
            keys = keys[index]
        step = _compiled_step if use_compiled(torch.float64, table.device) else _tensor_step
        transition = step(self._max_episode_steps, action, table, over, keys)
        if index is not None:
            self._table.index_copy_(1, index, table)
            self._over[index] = over
        return transition

    def state(self, index: Tensor | None = None) -> dict[str, Tensor]:
        columns = slice(None) if index is None else index
        table = self._table[:, columns].T.contiguous()
        return {"keys": self._keys[columns], "table": table, "over": self._over[columns]}

    def restore(self, state: Mapping[str, Tensor], index: Tensor | None = None) -> None:
        columns = slice(None) if index is None else index
        self._keys[columns] = state["keys"]
        self._table[:, columns] = state["table"].T
        self._over[columns] = state["over"]
        self._was_reset = True

    def close(self) -> None:
        pass


# The functions below work on tensors and on the compiler's traced scalars alike.


def _integrate(action: Any, x: Any, x_velocity: Any, angle: Any, angle_velocity: Any) -> tuple[Any, ...]:
    """The four state variables after one Euler step of the dynamics, in Gymnasium's order of operations.

    Gymnasium's angular acceleration has ``HALF_LENGTH = 0.5`` as a factor of its denominator. Here that factor is left
    out, so that ``half`` is half of the acceleration: halving and doubling are exact, so no result changes.
    """
    cos = torch.cos(angle)
    sin = torch.sin(angle)
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


def _step_table(limit: int, action: Any, table: Sequence[Any], starts: Sequence[Any], over: Any) -> tuple[Any, ...]:
    """The six rows of the table after a step (a reset where ``over``), then the flags terminated and truncated."""
    resets, steps, *state = table
    stepped = [resets, steps + 1.0, *_integrate(action, *state)]
    after = [torch.where(over, start, value) for start, value in zip(starts, stepped, strict=True)]
    terminated = (torch.abs(after[X]) > POSITION_LIMIT) | (torch.abs(after[ANGLE]) > ANGLE_LIMIT)
    return *after, terminated, after[STEPS] >= limit


def _start_value(key: Any, resets: Any, component: Any) -> Any:
    """State variable ``component`` (0 to 3) after ``resets`` resets, uniform in (-START_LIMIT, START_LIMIT)."""
    return (uniform(key, resets.to(torch.int64) * 4 + component).to(torch.float64) - 0.5) * (2 * START_LIMIT)


def _start_table(keys: Tensor, resets: Tensor) -> Tensor:
    """The table ``(6, K)`` right after one more reset than ``resets (K,)``."""
    state = _start_value(keys, resets, torch.arange(4, device=keys.device)[:, None])
    return torch.cat([(resets + 1)[None], torch.zeros_like(resets)[None], state])


@lru_cache
def _elementwise_step(limit: int) -> Callable[..., list[Any]]:
    """The step of one environment, see :class:`pgkit.envs.base.Elementwise`.

    Cached, because compiled code is cached by the identity of the function that it was traced from.
    """

    def step(action: Any, *state: Any) -> list[Any]:
        *table, over, key = state
        resets = table[RESETS]
        zero = table[STEPS] * 0.0
        starts = [resets + 1.0, zero, *(_start_value(key, resets, component) for component in range(4))]
        *after, terminated, truncated = _step_table(limit, action, table, starts, over)
        obs = [value.to(torch.float32) for value in after[X:]]
        valid = ~over
        return [*after, terminated | truncated, *obs, valid.to(torch.float32), terminated, truncated, valid]

    return step


def _tensor_step(limit: int, action: Tensor, table: Tensor, over: Tensor, keys: Tensor) -> Transition:
    """Step all columns of the table with tensor operations; ``table`` and ``over`` change in place."""
    starts = _start_table(keys, table[RESETS]).unbind(0)
    *after, terminated, truncated = _step_table(limit, action, table.unbind(0), starts, over)
    valid = ~over
    torch.stack(after, out=table)
    torch.logical_or(terminated, truncated, out=over)
    return Transition(table[X:].T.float().contiguous(), valid.float(), terminated, truncated, valid)


def _compiled_step(limit: int, action: Tensor, table: Tensor, over: Tensor, keys: Tensor) -> Transition:
    """The same as :func:`_tensor_step` in one compiled loop over the columns."""
    num_envs = len(keys)
    action = action.to(table.device, torch.int64).contiguous()
    if ((action != 0) & (action != 1)).any():
        raise PgkitError(f"action: expected 0 or 1, got {sorted(set(action.tolist()) - {0, 1})}")
    obs = table.new_empty(num_envs, 4, dtype=torch.float32)
    reward = table.new_empty(num_envs, dtype=torch.float32)
    flags = over.new_empty(3, num_envs)
    state = [*_addresses(table, axis=0), over.data_ptr()]
    outputs = [*state, *_addresses(obs, axis=1), reward.data_ptr(), *_addresses(flags, axis=0)]
    loop = _compile(_elementwise_step(limit), _STEP_INPUTS, _STEP_OUTPUTS)
    loop(num_envs, action.data_ptr(), *state, keys.data_ptr(), *outputs)
    return Transition(obs, reward, *flags.unbind(0))


def _addresses(tensor: Tensor, axis: int) -> list[int]:
    """Addresses of the slices of a tensor along an axis. Making a view of each would take longer than the step."""
    first = tensor.data_ptr()
    stride = tensor.stride(axis) * tensor.element_size()
    return [first + stride * i for i in range(tensor.shape[axis])]


def _action_space() -> "Space[Any]":
    from gymnasium.spaces import Discrete

    return Discrete(2)
