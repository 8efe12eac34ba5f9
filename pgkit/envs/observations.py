"""Observations of Gymnasium's spaces as plain arrays ``(D,)``, and checks that they are what the space says.

Shapes, the parts of composed spaces and the ranges of Discrete and MultiDiscrete are checked at every step, because a
wrong one would be broadcast, reordered or wrapped around in silence. What costs more (:func:`check_numbers`) is checked
in the first steps of each environment. Bounds of a Box are not: Gymnasium's own environments leave theirs.
"""

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pgkit.envs.errors import MalformedData
from pgkit.errors import PgkitError

if TYPE_CHECKING:
    from gymnasium import Space
    from gymnasium.spaces import Box

ObsFlattener = Callable[[Any], np.ndarray]
"""A function from an observation of the space to an array: ``(D,)`` for one, ``(K, D)`` for a batch."""

IMAGE_SIDE = 32
"""A Box of pixels with two sides of at least this length is an image."""

_PLACE = "the observation"
_INTEGERS = np.typecodes["AllInteger"] + "?"
_REALS = np.typecodes["Float"] + _INTEGERS


def observation_size(space: "Space[Any]", name: str) -> int:
    """D, the number of features of a flattened observation (one-hot for Discrete and MultiDiscrete).

    Args:
        space: observation space of one environment.
        name: name of the environment, for the message.

    Raises:
        PgkitError: the space, or a part of it, cannot be flattened to a fixed size that a network can use, or it holds
            no number.
    """
    from gymnasium import spaces

    for _, part in _parts(space, _PLACE):
        if not isinstance(part, (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)):
            raise PgkitError(
                f"environment {name!r}: observation space {type(part).__name__} is not supported: "
                "use Box, Discrete, MultiDiscrete, MultiBinary, or Dict or Tuple of these"
            )
    size = int(spaces.flatdim(space))
    if size == 0:
        raise PgkitError(f"environment {name!r}: the observation space {space} holds no number; networks need one")
    return size


def check_no_image(space: "Space[Any]", name: str) -> None:
    """Refuse images for multilayer perceptrons, which do not learn from them.

    Args:
        space: observation space of one environment.
        name: name of the environment, for the message.

    Raises:
        PgkitError: the space, or a part of it, is of pixels.
    """
    from gymnasium import spaces

    for place, part in _parts(space, _PLACE):
        if isinstance(part, spaces.Box) and _is_image(part):
            remedy = "policy.network=nature-cnn learns from images"
            if place != _PLACE:
                remedy = "a wrapper such as FilterObservation (env.wrappers) can take it out"
            raise PgkitError(
                f"environment {name!r}: {place} is an image of shape {part.shape}, and a multilayer perceptron does "
                f"not learn from its {part.low.size:,} pixels: {remedy}"
            )


def network_space(space: "Space[Any] | None", size: int) -> "Box":
    """The space of what networks see: a Box as it is, anything else flattened to ``size`` numbers."""
    from gymnasium import spaces

    return space if isinstance(space, spaces.Box) else spaces.Box(-np.inf, np.inf, (size,))


def _parts(space: "Space[Any]", place: str) -> "Iterator[tuple[str, Space[Any]]]":
    """The spaces that a space is composed of, each with its place in an observation."""
    from gymnasium import spaces

    if isinstance(space, (spaces.Dict, spaces.Tuple)):
        for key, part in _items(space):
            yield from _parts(part, f"{place}[{key!r}]")
    else:
        yield place, space


def _items(space: Any) -> "list[tuple[Any, Space[Any]]]":
    """Keys and parts of a Dict, indices and parts of a Tuple."""
    parts = space.spaces
    return list(parts.items() if isinstance(parts, Mapping) else enumerate(parts))


def _is_image(space: "Box") -> bool:
    """Whether a Box is of pixels: two sides or more of 32, bytes or bounds from 0 to 1 or 255."""
    if sum(side >= IMAGE_SIDE for side in space.shape) < 2:
        return False
    return space.dtype == np.uint8 or (bool((space.low == 0).all()) and float(space.high.max()) in (1.0, 255.0))


def obs_flattener(space: "Space[Any]", place: str = _PLACE) -> ObsFlattener:
    """A function that flattens one observation of the space to ``(D,)``.

    It raises :class:`MalformedData` if shape, parts or the range of a Discrete or MultiDiscrete are not the space's.

    Args:
        space: observation space of one environment, whose size is known (:func:`observation_size`).
        place: what messages call the observation.
    """
    from gymnasium import spaces

    if isinstance(space, (spaces.Dict, spaces.Tuple)):
        return _composed_flattener(space, place)
    if isinstance(space, spaces.Discrete):
        return _discrete_flattener(int(space.n), int(space.start), place)
    assert space.shape is not None
    if isinstance(space, spaces.MultiDiscrete):
        return _multi_discrete_flattener(space.nvec, space.start, place)
    return _array_flattener(space.shape, None if place == _PLACE else space.dtype, place)


def _array_flattener(shape: tuple[int, ...], dtype: np.dtype[Any] | None, place: str) -> ObsFlattener:
    """Of Box and MultiBinary; parts of composed observations are cast to ``dtype``, as Gymnasium does it."""
    is_flat = len(shape) == 1

    def check(obs: Any) -> np.ndarray:
        array = np.asarray(obs)
        if array.shape == shape:
            return array
        raise MalformedData(f"{place} is {shown(obs)}, expected shape {shape}")

    def flatten(obs: Any) -> np.ndarray:
        array = check(obs)
        if dtype is not None:
            array = array.astype(dtype, copy=False)
        return array if is_flat else array.ravel()

    return check if is_flat and dtype is None else flatten  # most environments need no more than the check


def _discrete_flattener(count: int, start: int, place: str) -> ObsFlattener:
    def flatten(obs: Any) -> np.ndarray:
        try:
            number = operator.index(obs) - start
        except TypeError:
            raise MalformedData(f"{place} is {shown(obs)}, expected a whole number") from None
        if not 0 <= number < count:
            raise MalformedData(f"{place} is {shown(obs)}, expected {start} to {start + count - 1}")
        row = np.zeros(count, dtype=np.float32)
        row[number] = 1.0
        return row

    return flatten


def _multi_discrete_flattener(counts: np.ndarray, starts: np.ndarray, place: str) -> ObsFlattener:
    limits = counts.ravel()
    offsets = np.cumsum(limits) - limits
    size = int(limits.sum())

    def flatten(obs: Any) -> np.ndarray:
        array = np.asarray(obs)
        if array.shape != counts.shape or array.dtype.char not in _INTEGERS:
            raise MalformedData(f"{place} is {shown(obs)}, expected whole numbers of shape {counts.shape}")
        numbers = (array - starts).ravel()
        if (numbers < 0).any() or (numbers >= limits).any():
            low, high = starts.tolist(), (starts + counts - 1).tolist()
            raise MalformedData(f"{place} is {array.tolist()}, expected numbers from {low} to {high}")
        row = np.zeros(size, dtype=np.float32)
        row[offsets + numbers] = 1.0
        return row

    return flatten


def _composed_flattener(space: Any, place: str) -> ObsFlattener:
    """Of Dict and Tuple."""
    parts = [(key, obs_flattener(part, f"{place}[{key!r}]")) for key, part in _items(space)]
    is_dict = isinstance(space.spaces, Mapping)
    expected = f"a dict of {', '.join(map(str, space.spaces))}" if is_dict else f"a tuple of {len(parts)}"

    def flatten(obs: Any) -> np.ndarray:
        right_type = isinstance(obs, Mapping) if is_dict else isinstance(obs, (tuple, list)) and len(obs) == len(parts)
        if not right_type:
            raise MalformedData(f"{place} is {shown(obs)}, expected {expected}")
        try:
            return np.concatenate([flatten_part(obs[key]) for key, flatten_part in parts])
        except KeyError as error:
            raise MalformedData(f"{place} is a dict without {error}, expected {expected}") from None

    return flatten


def batch_flattener(space: "Space[Any]", make_batched_space: Callable[[], "Space[Any]"], count: int) -> ObsFlattener:
    """A function that flattens a batch of observations to ``(count, D)`` float32, always in new memory.

    It raises :class:`MalformedData` as :func:`obs_flattener` does.

    Args:
        space: observation space of one environment.
        make_batched_space: makes the space of the whole batch. It is called only if it is needed, because making a
            batched space takes longer than a step.
        count: number of sub-environments.
    """
    from gymnasium import spaces
    from gymnasium.vector.utils import iterate

    if isinstance(space, (spaces.Box, spaces.MultiBinary)):
        shape = (count, *space.shape)

        def flatten(obs: Any) -> np.ndarray:
            array = np.array(obs, dtype=np.float32)
            if array.shape != shape:
                raise MalformedData(f"the batch of observations is {shown(array)}, expected shape {shape}")
            return array.reshape(count, -1)

        return flatten
    batched_space = make_batched_space()
    flatten_one = obs_flattener(space)
    return lambda obs: np.array([flatten_one(one) for one in iterate(batched_space, obs)], np.float32)


def check_numbers(space: "Space[Any]", obs: Any, place: str = _PLACE) -> None:
    """Raise :class:`MalformedData` unless an observation, which could be flattened, consists of numbers."""
    from gymnasium import spaces

    if isinstance(space, (spaces.Dict, spaces.Tuple)):
        for key, part in _items(space):
            check_numbers(part, obs[key], f"{place}[{key!r}]")
    elif isinstance(space, (spaces.Box, spaces.MultiBinary)):
        array = np.asarray(obs)
        if not is_numeric(array):
            raise MalformedData(f"{place} is {shown(obs)}, expected numbers")
        if isinstance(space, spaces.MultiBinary) and not ((array == 0) | (array == 1)).all():
            raise MalformedData(f"{place} is {array.tolist()}, expected each to be 0 or 1")


def is_numeric(array: np.ndarray) -> bool:
    """Whether the elements are real numbers; an array of objects may hold some, too."""
    dtype = np.asarray(array.tolist()).dtype if array.dtype.hasobject else array.dtype
    return dtype.char in _REALS


def shown(value: Any) -> str:
    """What an environment returned, in a few words."""
    if isinstance(value, (np.ndarray, np.generic)) and np.ndim(value):
        return f"an array of shape {value.shape} and type {value.dtype}"
    text = " ".join(repr(value).split())
    return f"{text[:60]}{'...' * (len(text) > 60)} ({type(value).__name__})"


def check_scalar(name: str, value: Any, expected: str, shapes: Sequence[tuple[int, ...]] = ((),)) -> None:
    """Raise :class:`MalformedData` unless a reward or a flag is a number of one of these shapes."""
    array = np.asarray(value)
    if array.shape not in shapes or not is_numeric(array):
        raise MalformedData(f"{name} is {shown(value)}, expected {expected}")


def check_flags(*flags: Any) -> None:
    """Raise :class:`MalformedData` unless ``terminated`` and ``truncated``, in this order, are true or false."""
    for name, flag in zip(("terminated", "truncated"), flags, strict=True):
        if type(flag) is not bool and type(flag) is not np.bool_:  # the rule, and this runs once per episode
            check_scalar(name, flag, "True or False", shapes=((), (1,)))


def reward_problem(reward: Any) -> MalformedData | None:
    """What is wrong with a reward, if anything is."""
    try:
        check_scalar("the reward", reward, "a number")
    except MalformedData as error:
        return error
    return None
