"""Conversion of the learner's actions, which are plain tensors, to actions of Gymnasium's spaces."""

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from pgkit.errors import PgkitError

if TYPE_CHECKING:
    from gymnasium import Space

ActionConverter = Callable[[Tensor], np.ndarray]
"""A function from the learner's actions ``(k, ...)`` to k actions of the space."""

ActionSplitter = Callable[[Tensor], tuple[list[Any], list[Any]]]
"""A function from the learner's actions ``(k, ...)`` to k actions of the space for environments, and k to remember."""


def action_shape(space: "Space[Any]", name: str) -> tuple[int, ...]:
    """Shape of one action of the learner: ``()`` for Discrete, ``(A,)`` for the other spaces.

    Args:
        space: action space of one environment.
        name: name of the environment, for the message.

    Raises:
        PgkitError: the space is neither Discrete, MultiDiscrete, MultiBinary, nor a Box of floats; or it holds no
            number.
    """
    from gymnasium import spaces

    if isinstance(space, spaces.Discrete):
        return ()
    if isinstance(space, (spaces.Box, spaces.MultiDiscrete, spaces.MultiBinary)):
        if isinstance(space, spaces.Box) and not np.issubdtype(space.dtype, np.floating):
            raise PgkitError(f"environment {name!r}: a Box action space of {space.dtype} is not supported: use floats")
        size = math.prod(space.shape)
        if size == 0:
            raise PgkitError(
                f"environment {name!r}: the action space {space} holds no number; there is nothing to learn"
            )
        return (size,)
    raise PgkitError(
        f"environment {name!r}: action space {type(space).__name__} is not supported: "
        "use Discrete, Box, MultiDiscrete or MultiBinary"
    )


def action_converter(space: "Space[Any]") -> ActionConverter:
    """A function that converts the learner's actions ``(k, ...)`` to a NumPy array of k actions of the space.

    Its rows have the type and the shape of the space's samples: :func:`action_rows`. Discrete and MultiDiscrete
    actions, which the learner counts from 0, are shifted to the space's start. Box actions are clipped to the bounds.
    """
    from gymnasium import spaces

    if isinstance(space, spaces.Box):
        return _box_converter(space)
    shape = space.shape
    dtype = space.dtype
    assert shape is not None
    assert dtype is not None
    starts = space.start if isinstance(space, (spaces.Discrete, spaces.MultiDiscrete)) else 0
    return lambda action: (_as_array(action, shape) + starts).astype(dtype, copy=False)


def action_splitter(space: "Space[Any]") -> ActionSplitter:
    """A function that converts the learner's actions ``(k, ...)`` to k actions of the space, twice.

    Environments receive those of the first list, which they may modify; those of the second are remembered.
    """
    from gymnasium import spaces

    if isinstance(space, spaces.Discrete):
        scalar = space.dtype.type  # what the space samples, which nobody can modify
        choices = [scalar(space.start + number) for number in range(int(space.n))]

        def choose(action: Tensor) -> tuple[list[Any], list[Any]]:
            chosen = [choices[number] for number in action.tolist()]
            return chosen, chosen

        return choose
    convert = action_converter(space)

    def split(action: Tensor) -> tuple[list[Any], list[Any]]:
        actions = convert(action)
        return _array_rows(actions), _array_rows(actions.copy())

    return split


def action_rows(space: "Space[Any]", actions: np.ndarray) -> Iterable[Any]:
    """The k actions of a batch, each as the space has it: NumPy scalars of Discrete, arrays of the other spaces."""
    from gymnasium import spaces

    return actions if isinstance(space, spaces.Discrete) else _array_rows(actions)


def _array_rows(actions: np.ndarray) -> list[np.ndarray]:
    """The rows as arrays, where iterating gives scalars, too."""
    return [actions[row, ...] for row in range(len(actions))]


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
