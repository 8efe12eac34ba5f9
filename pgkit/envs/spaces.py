"""Between Gymnasium's spaces and the plain tensors of the learner."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from pgkit.errors import PgkitError

if TYPE_CHECKING:
    from gymnasium import Space

Flatten = Callable[[Any], np.ndarray]
ToEnv = Callable[[Tensor], Any]


def observation_size(space: "Space[Any]", name: str) -> int:
    """D, the features of a flattened observation (one-hot for Discrete and MultiDiscrete).

    Raises:
        PgkitError: the space, or a part of it, has no fixed-size flattening that makes sense to a network.
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
    """Whether observations are arrays ``(D,)`` already."""
    from gymnasium import spaces

    return isinstance(space, spaces.Box) and len(space.shape) == 1


def flatten_one(space: "Space[Any]") -> Flatten:
    """A function from one observation of the space to ``(D,)``."""
    from gymnasium import spaces

    if isinstance(space, (spaces.Box, spaces.MultiBinary)):
        return np.ravel
    return lambda obs: np.asarray(spaces.flatten(space, obs))


def flatten_batch(space: "Space[Any]", batched: Callable[[], "Space[Any]"], count: int) -> Flatten:
    """A function from a batched observation of ``count`` sub-environments to ``(count, D)`` float32, always a copy.

    The batched space is asked for only if it is needed: making one takes longer than a step.
    """
    from gymnasium import spaces
    from gymnasium.vector.utils import iterate

    if isinstance(space, (spaces.Box, spaces.MultiBinary)):
        return lambda obs: np.array(obs, dtype=np.float32).reshape(count, -1)
    whole = batched()
    return lambda obs: np.array([spaces.flatten(space, one) for one in iterate(whole, obs)], np.float32)


def action_shape(space: "Space[Any]", name: str) -> tuple[int, ...]:
    """Shape of one action of the learner: ``()`` for Discrete, ``(A,)`` otherwise.

    Raises:
        PgkitError: the space is none of Discrete, Box, MultiDiscrete and MultiBinary.
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


def actions_for(space: "Space[Any]") -> ToEnv:
    """A function from the learner's actions ``(k, ...)`` to a sequence of k actions of the space.

    Box actions are clipped into the bounds; what is not finite even then, the action of a policy that has diverged,
    becomes 0 or the bound closest to it, for simulators may crash of NaN. Discrete and
    MultiDiscrete actions are shifted to the space's start.
    """
    from gymnasium import spaces

    if isinstance(space, spaces.Discrete):
        start = int(space.start)
        return (lambda action: (action + start).tolist()) if start else (lambda action: action.tolist())
    shape, dtype = space.shape, space.dtype
    assert shape is not None
    assert dtype is not None
    if isinstance(space, spaces.Box):
        low, high = space.low, space.high
        harmless = np.zeros(shape, dtype).clip(low, high)

        def clipped(action: Tensor) -> np.ndarray:
            inside = _array(action, shape).astype(dtype).clip(low, high)
            return np.where(np.isfinite(inside), inside, harmless)

        return clipped
    first = space.start if isinstance(space, spaces.MultiDiscrete) else 0
    return lambda action: (_array(action, shape) + first).astype(dtype)


def _array(action: Tensor, shape: tuple[int, ...]) -> np.ndarray:
    return action.cpu().numpy().reshape(len(action), *shape)


def check_action(action: Tensor, count: int, shape: tuple[int, ...]) -> None:
    """Raise PgkitError unless ``action`` is ``(count, *shape)``."""
    if action.shape != (count, *shape):
        raise PgkitError(f"action: expected shape {(count, *shape)}, got {tuple(action.shape)}")
