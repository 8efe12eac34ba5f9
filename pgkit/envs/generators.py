"""The process-wide generators of ``random``, ``numpy.random`` and ``torch``, for environments that draw from them.

Such an environment would draw what its copy in another forked worker draws, and its numbers would depend on what else
draws in this process. So it gets states of these generators of its own, seeded with its seed, which are in place while
it runs. Exchanging states takes a fraction of a millisecond, so only environments that draw pay for it: the first one
of many that are alike is watched during its first calls.
"""

import random
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

WATCHED_CALLS = 20
"""Calls of an environment, its constructor's first, in which it is found out whether it draws."""

# ruff: noqa: NPY002 -- NumPy's old generator is what such environments draw from

Result = TypeVar("Result")


class GlobalState(NamedTuple):
    """States of the three generators."""

    python: tuple[Any, ...]
    numpy: dict[str, Any]
    torch: Tensor

    @classmethod
    def current(cls) -> "GlobalState":
        """The present states."""
        return cls(random.getstate(), np.random.get_state(legacy=False), torch.default_generator.get_state())

    def put(self) -> None:
        """Put these states in place."""
        random.setstate(self.python)
        np.random.set_state(self.numpy)
        torch.default_generator.set_state(self.torch)

    def equals(self, other: "GlobalState") -> bool:
        """Whether nothing was drawn between the two."""
        same_numpy = [_same(value, other.numpy.get(name)) for name, value in self.numpy.items()]
        return self.python == other.python and all(same_numpy) and torch.equal(self.torch, other.torch)


def _same(value: Any, other: Any) -> bool:
    if isinstance(value, dict):
        return all(_same(part, other[name]) for name, part in value.items())
    return bool(np.array_equal(value, other))


def seed_global_generators(seed: int) -> None:
    """Seed the three generators with an integer from 0 to 2**64 - 1; those of GPUs are left alone."""
    random.seed(seed)
    np.random.seed([seed & 0xFFFFFFFF, seed >> 32])
    torch.default_generator.manual_seed(seed)


class EnvGenerators:
    """The global generators as one environment sees them.

    Args:
        seed: what they are seeded with until the environment is reset with a seed.
        watched: the environment of the same loop that is watched for all; None if it is this one.

    Attributes:
        drawn: whether environments like this one are known to draw.
    """

    def __init__(self, seed: int, watched: "EnvGenerators | None" = None) -> None:
        self._seed = seed
        self._state: GlobalState | None = None  # None: freshly seeded
        self._watched = watched or self
        self._watched_calls = 0 if watched else WATCHED_CALLS
        self._drawn = False

    @property
    def drawn(self) -> bool:
        return self._watched._drawn

    def seed(self, seed: int) -> None:
        """Begin anew, with the seed of a reset."""
        self._seed = seed
        self._state = None

    def call(self, function: Callable[..., Result], *args: Any) -> Result:
        """Call a function of the environment's; if such environments draw, with its own states in place."""
        if not (self._watched_calls or self.drawn):
            return function(*args)
        outside = GlobalState.current()
        if self._state is None:
            seed_global_generators(self._seed)
        else:
            self._state.put()
        before = GlobalState.current() if self._watched_calls else None
        try:
            return function(*args)
        finally:
            self._state = GlobalState.current()
            outside.put()
            if before is not None:
                self._watched_calls -= 1
                self._drawn = self._drawn or not before.equals(self._state)
