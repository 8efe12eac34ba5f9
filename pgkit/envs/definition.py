"""How an environment of pgkit's own is written: reset, step and observation of one environment on scalars.

They are called with tensors ``(K,)``, one number of each of K environments, and once with the compiler's traced
scalars, which leaves compiled code behind. See "Writing an environment" in README.md.
"""

import inspect
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from pgkit.compiler.lazy import lazy_kernel
from pgkit.envs import pcg64
from pgkit.envs.action_inputs import component_dtype
from pgkit.envs.pcg64 import EMPTY, PCG64
from pgkit.errors import PgkitError, describe_exception

if TYPE_CHECKING:
    from gymnasium import Space

DTYPES = {bool: torch.bool, int: torch.int64, float: torch.float64}
"""Dtypes of Python's numbers in a state. A bool is an int, too, so it comes first."""

_scratch_scalars = lazy_kernel("pgkit.compiler.elementwise:scratch_scalars")


class Random:
    """The random numbers of an environment, those that Gymnasium's ``np_random`` draws after the same seed.

    Attributes:
        generator: its current state.
        buffer: int64, see :func:`pgkit.envs.pcg64.integers`; None in environments that draw no integers.
    """

    def __init__(self, generator: PCG64, buffer: Any = None) -> None:
        self.generator = generator
        self.buffer = buffer
        self.draws_integers = False

    def uniform(self, low: float = 0.0, high: float = 1.0) -> Any:
        """A float64 in [low, high), as ``np_random.uniform(low, high)``; the bounds are Python numbers."""
        self.generator, number = pcg64.uniform(self.generator, low, high)
        return number

    def integers(self, low: int, high: int) -> Any:
        """An int64 from low to high - 1, as ``np_random.integers(low, high)``; the bounds are Python numbers."""
        self.draws_integers = True
        self.generator, self.buffer, number = pcg64.integers(self.generator, self.buffer, low, high)
        return number


@dataclass(frozen=True, eq=False)
class EnvDefinition:
    """An environment: its spaces and the functions that are its dynamics.

    Numbers may be traced scalars, so the functions use arithmetic, comparisons, ``& | ~``, ``torch.where`` in place of
    branches, and the functions of torch in ``pgkit/compiler/README.md``. A state is a list or a NamedTuple of float64,
    float32, int64 or bool numbers. Where a result is the same in all environments, it may be a number of Python.

    Attributes:
        obs_dim: D, features of an observation.
        action_space: Discrete, or a Box of floats.
        max_episode_steps: time limit in steps, which truncates an episode; None if there is none.
        reset: ``reset(random) -> state``, the start of an episode; see :class:`Random`.
        step: ``step(state, action) -> (state, reward, terminated)``. A Discrete action is an int64. A Box action is a
            list of numbers of the space's dtype, clipped to its bounds.
        observe: ``observe(state) -> features``, a list of D numbers, rounded to float32.
        has_random_steps: ``step(state, action, random)`` draws random numbers, too.
    """

    obs_dim: int
    action_space: "Space[Any]"
    max_episode_steps: int | None
    reset: Callable[[Random], Sequence[Any]]
    step: Callable[..., tuple[Sequence[Any], Any, Any]]
    observe: Callable[[Any], Sequence[Any]]
    has_random_steps: bool = False


class Layout(NamedTuple):
    """What the functions of a definition work with.

    Attributes:
        dtypes: of the numbers of a state.
        pack: makes a state from a list of its numbers.
        draws_integers: whether a generator needs a buffer.
    """

    dtypes: tuple[torch.dtype, ...]
    pack: Callable[[Sequence[Any]], Sequence[Any]]
    draws_integers: bool


def as_number(value: Any, dtype: torch.dtype, like: Any) -> Any:
    """A result as a number of this dtype.

    Args:
        value: a tensor, a traced scalar, or a number of Python.
        dtype: of the result.
        like: bool, of the shape of the result.
    """
    if not isinstance(value, (bool, int, float)):
        return value.to(dtype)
    return (like & False) | bool(value) if dtype == torch.bool else like.to(dtype) * 0 + value


@lru_cache(maxsize=256)
def check_definition(definition: EnvDefinition, name: str) -> Layout:
    """Call the functions of a definition, compiled and on tensors, and check what they return.

    Raises:
        PgkitError: they cannot be compiled, or their results do not fit together.
    """
    traced = _Trial(definition, name, lambda dtype: _scratch_scalars()(dtype))
    layout = traced.run()
    on_tensors = _Trial(definition, name, lambda dtype: torch.ones(2, dtype=dtype))
    if on_tensors.run().dtypes != layout.dtypes:
        raise PgkitError(f"environment {name!r}: reset() has another state on tensors than compiled")
    return layout


@dataclass
class _Trial:
    """A first call of each function, with numbers from ``number(dtype)``."""

    definition: EnvDefinition
    name: str
    number: Callable[[torch.dtype], Any]

    def run(self) -> Layout:
        random = Random(PCG64(*(self.number(torch.int64) for _ in range(4))), self.number(torch.int64) * 0 + EMPTY)
        state = self._call("reset", random)
        dtypes = self._dtypes("reset", "state", state)
        pack = _packer(state)
        before = [self.number(dtype) for dtype in dtypes]
        stepped = self._step(pack(before), random)
        self._check_state(stepped[0], state, dtypes)
        self._check_outcome(*stepped[1:])
        self._check_observation(self._call("observe", pack(before)))
        return Layout(dtypes, pack, random.draws_integers)

    def _step(self, state: Any, random: Random) -> tuple[Any, Any, Any]:
        from gymnasium.spaces import Discrete

        space = self.definition.action_space
        is_discrete = isinstance(space, Discrete)
        action = self.number(torch.int64) if is_discrete else [self.number(dtype) for dtype in _component_dtypes(space)]
        result = self._call("step", state, action, *([random] if self.definition.has_random_steps else []))
        if not isinstance(result, tuple) or len(result) != 3 or hasattr(result, "_fields"):
            size = f" of {len(result)}" if isinstance(result, (tuple, list)) else ""
            raise self._error(f"step() must return (state, reward, terminated), got a {type(result).__name__}{size}")
        return result

    def _call(self, part: str, *arguments: Any) -> Any:
        function = getattr(self.definition, part)
        try:
            return function(*arguments)
        except Exception as error:
            where = _innermost_line(error, function)
            raise self._error(f"{part}() cannot be compiled: {describe_exception(error)}{where}") from error

    def _error(self, message: str) -> PgkitError:
        return PgkitError(f"environment {self.name!r}: {message}")

    def _dtypes(self, part: str, what: str, values: Any) -> tuple[torch.dtype, ...]:
        """The dtypes of a list of numbers; numbers of Python have dtypes, too."""
        if isinstance(values, Tensor) or not isinstance(values, Sequence):
            raise self._error(f"{part}() must return a list of numbers as {what}, got a {type(values).__name__}")
        return tuple(self._dtype(part, f"{what}[{index}]", value) for index, value in enumerate(values))

    def _dtype(self, part: str, what: str, value: Any) -> torch.dtype:
        dtype = _dtype_of_number(value) or getattr(value, "dtype", None)
        if dtype not in (torch.float32, torch.float64, torch.int64, torch.bool):
            raise self._error(f"{part}(): {what} must be float64, float32, int64 or bool, got {_describe(value)}")
        if isinstance(value, Tensor) and value.shape != (2,):
            raise self._error(f"{part}(): {what} of 2 environments must have shape (2,), got {tuple(value.shape)}")
        return dtype

    def _check_state(self, after: Any, first: Sequence[Any], dtypes: tuple[torch.dtype, ...]) -> None:
        after_dtypes = self._dtypes("step", "state", after)
        if len(after) != len(first):
            raise self._error(f"step() returns a state of {len(after)} numbers, reset() one of {len(first)}")
        for index, (value, now, before) in enumerate(zip(after, after_dtypes, dtypes, strict=True)):
            if now != before and _dtype_of_number(value) is None:
                what = _field(first, index)
                raise self._error(f"step() returns {what} as {_short(now)}, reset() as {_short(before)}")

    def _check_outcome(self, reward: Any, terminated: Any) -> None:
        self._dtype("step", "reward", reward)
        if self._dtype("step", "terminated", terminated) != torch.bool:
            raise self._error(f"step(): terminated must be bool, got {_describe(terminated)}")

    def _check_observation(self, features: Any) -> None:
        self._dtypes("observe", "features", features)
        if len(features) != self.definition.obs_dim:
            raise self._error(f"observe() returns {len(features)} features, obs_dim is {self.definition.obs_dim}")


def _component_dtypes(space: Any) -> list[torch.dtype]:
    return [component_dtype(space)] * int(space.low.size)


def _packer(state: Sequence[Any]) -> Callable[[Sequence[Any]], Sequence[Any]]:
    """What makes a state like this one from a list of numbers."""
    if hasattr(state, "_fields"):
        make: Callable[..., Sequence[Any]] = type(state)
        return lambda numbers: make(*numbers)
    return list


def _field(state: Sequence[Any], index: int) -> str:
    fields: Any = getattr(state, "_fields", None)
    return f"state.{fields[index]}" if fields else f"state[{index}]"


def _dtype_of_number(value: Any) -> torch.dtype | None:
    """The dtype of a number of Python; None of a tensor or a traced scalar."""
    return next((dtype for number, dtype in DTYPES.items() if isinstance(value, number)), None)


def _describe(value: Any) -> str:
    dtype = getattr(value, "dtype", None)
    return _short(dtype) if isinstance(dtype, torch.dtype) else type(value).__name__


def _short(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")


def _innermost_line(error: Exception, function: Any) -> str:
    """Where in the file of a function an error was raised, as far as that is known."""
    try:
        file = inspect.getfile(function)
    except TypeError:
        return ""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f" ({Path(file).name}, line {lines[-1]})" if lines else ""
