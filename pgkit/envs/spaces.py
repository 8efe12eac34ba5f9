"""Conversions between Gymnasium's spaces and the plain tensors of the learner."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from pgkit.errors import PgkitError

if TYPE_CHECKING:
    from gymnasium import Space

ObsFlattener = Callable[[Any], np.ndarray]
"""A function from an observation of the space to an array: ``(D,)`` for one, ``(K, D)`` for a batch."""

ActionConverter = Callable[[Tensor], Any]
"""A function from the learner's actions ``(k, ...)`` to a sequence of k actions of the space."""


def observation_size(space: "Space[Any]", name: str) -> int:
    """D, the number of features of a flattened observation (one-hot for Discrete and MultiDiscrete).

    Args:
        space: observation space of one environment.
        name: name of the environment, for the message.

    Raises:
        PgkitError: the space, or a part of it, cannot be flattened to a fixed size that a network can use.
    """
    from gymnasium import spaces

    parts = [space]
    while parts:
        part = parts.pop()
        if isinstance(part, spaces.Dict):
            parts.extend(part.spaces.values())
        elif isinstance(part, spaces.Tuple):
            parts.extend(part.spaces)
        elif not isinstance(part, (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)):
            raise PgkitError(
                f"environment {name!r}: observation space {type(part).__name__} is not supported: "
                "use Box, Discrete, MultiDiscrete, MultiBinary, or Dict or Tuple of these"
            )
    return int(spaces.flatdim(space))


def is_flat(space: "Space[Any]") -> bool:
    """Whether observations are already arrays ``(D,)``."""
    from gymnasium import spaces

    return isinstance(space, spaces.Box) and len(space.shape) == 1


def obs_flattener(space: "Space[Any]") -> ObsFlattener:
    """A function that flattens one observation of the space to ``(D,)``."""
    from gymnasium import spaces

    if isinstance(space, (spaces.Box, spaces.MultiBinary)):
        return np.ravel
    return lambda obs: np.asarray(spaces.flatten(space, obs))


def batch_flattener(space: "Space[Any]", make_batched_space: Callable[[], "Space[Any]"], count: int) -> ObsFlattener:
    """A function that flattens a batch of observations to ``(count, D)`` float32, always in new memory.

    Args:
        space: observation space of one environment.
        make_batched_space: makes the space of the whole batch. It is called only if it is needed, because making a
            batched space takes longer than a step.
        count: number of sub-environments.
    """
    from gymnasium import spaces
    from gymnasium.vector.utils import iterate

    if isinstance(space, (spaces.Box, spaces.MultiBinary)):
        return lambda obs: np.array(obs, dtype=np.float32).reshape(count, -1)
    batched_space = make_batched_space()
    return lambda obs: np.array([spaces.flatten(space, one) for one in iterate(batched_space, obs)], np.float32)


def action_shape(space: "Space[Any]", name: str) -> tuple[int, ...]:
    """Shape of one action of the learner: ``()`` for Discrete, ``(A,)`` for the other spaces.

    Args:
        space: action space of one environment.
        name: name of the environment, for the message.

    Raises:
        PgkitError: the space is neither Discrete, MultiDiscrete, MultiBinary, nor a Box of floats.
    """
    from gymnasium import spaces

    if isinstance(space, spaces.Discrete):
        return ()
    if isinstance(space, (spaces.Box, spaces.MultiDiscrete, spaces.MultiBinary)):
        if isinstance(space, spaces.Box) and not np.issubdtype(space.dtype, np.floating):
            raise PgkitError(f"environment {name!r}: a Box action space of {space.dtype} is not supported: use floats")
        return (math.prod(space.shape),)
    raise PgkitError(
        f"environment {name!r}: action space {type(space).__name__} is not supported: "
        "use Discrete, Box, MultiDiscrete or MultiBinary"
    )


def action_converter(space: "Space[Any]") -> ActionConverter:
    """A function that converts the learner's actions ``(k, ...)`` to k actions of the space.

    Discrete and MultiDiscrete actions, which the learner counts from 0, are shifted to the space's start. Box actions
    are clipped to the bounds.
    """
    from gymnasium import spaces

    if isinstance(space, spaces.Discrete):
        start = int(space.start)
        return (lambda action: (action + start).tolist()) if start else (lambda action: action.tolist())
    if isinstance(space, spaces.Box):
        return _box_converter(space)
    shape = space.shape
    dtype = space.dtype
    assert shape is not None
    assert dtype is not None
    starts = space.start if isinstance(space, spaces.MultiDiscrete) else 0
    return lambda action: (_as_array(action, shape) + starts).astype(dtype)


def _box_converter(space: Any) -> ActionConverter:
    # A policy that has diverged chooses NaN, which survives clipping, and simulators such as Box2D crash the whole
    # process on NaN. Such entries become 0, or the bound that is closest to 0.
    neutral = np.zeros(space.shape, space.dtype).clip(space.low, space.high)

    def clip(action: Tensor) -> np.ndarray:
        clipped = _as_array(action, space.shape).astype(space.dtype).clip(space.low, space.high)
        return np.where(np.isfinite(clipped), clipped, neutral)

    return clip


def _as_array(action: Tensor, shape: tuple[int, ...]) -> np.ndarray:
    return action.cpu().numpy().reshape(len(action), *shape)


def check_action(action: Tensor, count: int, shape: tuple[int, ...]) -> None:
    """Raise :class:`PgkitError` unless ``action`` has shape ``(count, *shape)``."""
    if action.shape != (count, *shape):
        raise PgkitError(f"action: expected shape {(count, *shape)}, got {tuple(action.shape)}")
