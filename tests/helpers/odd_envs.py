"""Environments of two numbers and five steps an episode, each odd in one way; importing this module registers them."""

import ctypes
import random
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from numpy.random import PCG64, Generator

from pgkit.config.load import parse_config
from pgkit.config.schema import TrainConfig


class Plain(gymnasium.Env[Any, Any]):
    """Nothing is odd: observations are drawn from ``self.draw()``, the reward is 1."""

    observation_space: spaces.Space[Any] = spaces.Box(-1.0, 1.0, (2,))
    action_space: spaces.Space[Any] = spaces.Discrete(2)

    def __init__(self) -> None:
        self.count = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self.count = 0
        if seed is not None:
            self.start(seed)
        return self.obs(), {}

    def step(self, action: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        self.count += 1
        return self.obs(), 1.0, self.count == 5, False, {}

    def start(self, seed: int) -> None:
        super().reset(seed=seed)

    def draw(self) -> float:
        return float(self.np_random.uniform())

    def obs(self) -> Any:
        return np.array([self.draw(), self.count / 5], dtype=np.float32)


class NotJSON(PCG64):
    """A bit generator whose state cannot be written down."""

    @property
    def state(self) -> Any:
        return {"pool": object()}

    @state.setter
    def state(self, value: Any) -> None:
        raise NotImplementedError


GENERATORS: dict[str, Any] = {
    "RandomState": lambda seed: np.random.RandomState(seed % 2**32),
    "module": lambda seed: np.random,
    "Random": random.Random,
    "number": lambda seed: 7,
    "not JSON": lambda seed: Generator(NotJSON(seed)),
}


class OtherGenerator(Plain):
    """``np_random`` is something else."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.form = kind

    def start(self, seed: int) -> None:
        self.np_random = GENERATORS[self.form](seed)

    def draw(self) -> float:
        return 0.5


class NoGenerator(Plain):
    """``np_random`` cannot be asked for."""

    @property
    def np_random(self) -> Any:
        raise NotImplementedError("use rng")

    def draw(self) -> float:
        return 0.5


def _as_c_int(seed: int) -> np.random.RandomState:
    return np.random.RandomState(np.int32(seed))


def _as_old_library(seed: int) -> np.random.RandomState:
    assert 0 <= seed < 2**31, "seed"
    return np.random.RandomState(seed)


def _as_binding(seed: int) -> np.random.RandomState:
    if ctypes.c_int32(seed).value != seed:
        raise TypeError("incompatible function arguments")
    return np.random.RandomState(seed)


OLD_GENERATORS: dict[str, Any] = {
    "RandomState": np.random.RandomState,
    "C int": _as_c_int,
    "assertion": _as_old_library,
    "binding": _as_binding,
}


class OldSeed(Plain):
    """Its generator takes no seed of 64 bits."""

    def __init__(self, generator: str = "RandomState") -> None:
        super().__init__()
        self.generator = generator
        self.rng = np.random.RandomState(0)

    def start(self, seed: int) -> None:
        self.rng = OLD_GENERATORS[self.generator](seed)

    def draw(self) -> float:
        return float(self.rng.uniform())


class Odd(BaseException):
    """No ``Exception``, as some libraries raise it."""


class Raises(Plain):
    """Raises what is no ``Exception``, in one of its methods."""

    def __init__(self, where: str = "step") -> None:
        super().__init__()
        self.where = where
        self._raise("constructor")

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self._raise("reset")
        return super().reset(seed=seed)

    def step(self, action: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        self._raise("step")
        return super().step(action)

    def close(self) -> None:
        self._raise("close")

    def _raise(self, where: str) -> None:
        if where == self.where:
            raise Odd("two\nlines")


RESULTS: dict[str, Any] = {
    "reward of shape (1,)": (1, np.ones(1)),
    "reward None": (1, None),
    "reward text": (1, "3.5"),
    "reward dict": (1, {"agent": 1.0}),
    "terminated text": (2, "False"),
    "terminated None": (2, None),
    "truncated text": (3, "no"),
    "truncated of shape (2,)": (3, np.zeros(2, dtype=bool)),
}


class Returns(Plain):
    """One of the five results of a step is odd from the third step on; or all of them, or those of a reset.

    Args:
        what: which one.
        after: steps, of all episodes, before the first odd one.
    """

    def __init__(self, what: str, after: int = 0) -> None:
        super().__init__()
        self.what = what
        self.remaining = after

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        result = super().reset(seed=seed)
        return result[0] if self.what == "reset without info" else result

    def step(self, action: Any) -> Any:
        result: list[Any] = list(super().step(action))
        self.remaining -= 1
        if self.count < 3 or self.remaining >= 0:
            return tuple(result)
        if self.what == "four results":
            return tuple(result[:4])
        if self.what == "nothing":
            return None
        if self.what in RESULTS:
            position, value = RESULTS[self.what]
            result[position] = value
        return tuple(result)


OBSERVED: dict[str, tuple[spaces.Space[Any], Any]] = {
    "(4, 2) for (2, 4)": (spaces.Box(-1, 1, (2, 4)), np.zeros((4, 2))),
    "HWC for CHW": (spaces.Box(0, 255, (3, 8, 6), np.uint8), np.zeros((8, 6, 3), np.uint8)),
    "(2, 1) for (2,)": (spaces.Box(-1, 1, (2,)), np.zeros((2, 1))),
    "(1, 1) for (1,)": (spaces.Box(-1, 1, (1,)), np.zeros((1, 1))),
    "text for numbers": (spaces.Box(-1, 1, (2,)), np.array(["1", "2"])),
    "None in objects": (spaces.Box(-1, 1, (2,)), np.array([None, 1.0])),
    "-1 for Discrete": (spaces.Discrete(4), -1),
    "4 for Discrete": (spaces.Discrete(4), np.int64(4)),
    "0 for Discrete from 2": (spaces.Discrete(4, start=2), 0),
    "1.0 for Discrete": (spaces.Discrete(4), 1.0),
    "-1 in MultiDiscrete": (spaces.MultiDiscrete([3, 2]), np.array([1, -1])),
    "3 in MultiDiscrete": (spaces.MultiDiscrete([3, 2]), np.array([3, 0])),
    "2 in MultiBinary": (spaces.MultiBinary(3), np.array([0, 2, 1])),
    "part missing": (spaces.Dict({"a": spaces.Discrete(2), "b": spaces.Discrete(2)}), {"a": 1}),
    "part of another shape": (spaces.Dict({"a": spaces.Box(-1, 1, (2, 4))}), {"a": np.zeros((4, 2))}),
    "part out of range": (spaces.Tuple([spaces.Discrete(2), spaces.Discrete(2)]), (1, 2)),
    "array for tuple": (spaces.Tuple([spaces.Discrete(2)] * 2), np.zeros(2)),
}


class Observes(Plain):
    """An observation is not of the space, from the third step on, or from the first reset on."""

    def __init__(self, what: str, at: int = 3) -> None:
        super().__init__()
        self.observation_space, self.wrong = OBSERVED[what]
        self.observation_space.seed(0)
        self.at = at

    def obs(self) -> Any:
        return self.wrong if self.count >= self.at else self.observation_space.sample()


SPACES: dict[str, spaces.Space[Any]] = {
    "empty Box": spaces.Box(-1, 1, (0,)),
    "empty matrix": spaces.Box(-1, 1, (3, 0)),
    "empty Dict": spaces.Dict({}),
    "pixels HWC": spaces.Box(0, 255, (96, 96, 3), np.uint8),
    "pixels CHW": spaces.Box(0, 255, (3, 84, 84), np.uint8),
    "gray": spaces.Box(0, 255, (210, 160), np.uint8),
    "scaled": spaces.Box(0.0, 1.0, (4, 64, 64)),
    "pixels in a Dict": spaces.Dict({"camera": spaces.Box(0, 255, (64, 64, 3), np.uint8), "speed": spaces.Discrete(3)}),
    "grid of cells": spaces.Box(0, 255, (25, 25, 3), np.uint8),
    "matrix": spaces.Box(-np.inf, np.inf, (40, 40)),
    "flattened pixels": spaces.Box(0, 255, (64 * 64,), np.uint8),
}


class Shows(Plain):
    """A sample of a space is the observation, or what may be done."""

    def __init__(self, observation: str = "", action: str = "") -> None:
        super().__init__()
        if observation:
            self.observation_space = SPACES[observation]
        if action:
            self.action_space = SPACES[action]

    def obs(self) -> Any:
        return self.observation_space.sample()


ACTIONS: dict[str, spaces.Space[Any]] = {
    "Discrete": spaces.Discrete(3),
    "Discrete from -1": spaces.Discrete(3, start=-1),
    "Discrete of int32": spaces.Discrete(3, start=2, dtype=np.int32),
    "MultiDiscrete": spaces.MultiDiscrete([3, 2]),
    "MultiDiscrete of uint8": spaces.MultiDiscrete([3, 2], dtype=np.uint8),
    "MultiBinary": spaces.MultiBinary(2),
    "Box": spaces.Box(-1.0, 1.0, (2,)),
    "Box of float64": spaces.Box(-1.0, 1.0, (2, 2), np.float64),
    "Box of no axis": spaces.Box(-1.0, 1.0, ()),
}


class Acts(Plain):
    """Takes an action only if it is of the very type that the space's samples have; shows the first number of it."""

    def __init__(self, action: str = "Discrete") -> None:
        super().__init__()
        self.action_space = ACTIONS[action]
        self.last = 0.0

    def step(self, action: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        sample = self.action_space.sample()
        if (type(action), action.dtype, action.shape) != (type(sample), sample.dtype, sample.shape):
            raise TypeError(f"{action!r} of {action.dtype} is no action; {sample!r} is one")
        if action not in self.action_space:
            raise ValueError(f"{action!r} is not in {self.action_space}")
        self.last = action.reshape(-1)[0].item()
        return super().step(action)

    def obs(self) -> Any:
        return np.array([self.last, self.draw()], dtype=np.float32)


GLOBAL_DRAWS: dict[str, Any] = {
    "numpy": np.random.uniform,
    "random": random.random,
    "torch": lambda: float(torch.rand(())),
    "normal": np.random.standard_normal,
}


class DrawsGlobally(Plain):
    """Draws from a generator of the process, at every step or only in one of its methods."""

    def __init__(self, source: str, where: str = "everywhere") -> None:
        super().__init__()
        self.source = GLOBAL_DRAWS[source]
        self.where = where
        self.last = 0.0
        self._draw("constructor")

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self._draw("reset")
        return super().reset(seed=seed)

    def step(self, action: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        self._draw("step")
        return super().step(action)

    def draw(self) -> float:
        return self.last

    def _draw(self, where: str) -> None:
        if self.where in (where, "everywhere"):
            self.last = self.source()


class Bounded(Plain):
    """Continuous actions between these bounds; the observation shows the last one, as far as it goes."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float64)

    def __init__(self, low: list[float], high: list[float]) -> None:
        super().__init__()
        self.action_space = spaces.Box(np.array(low, np.float32), np.array(high, np.float32))
        self.last = np.zeros(2)

    def step(self, action: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        assert action in self.action_space, f"{action!r} is not in {self.action_space}"
        self.last = np.resize(action, 2).astype(np.float64)
        return super().step(action)

    def obs(self) -> Any:
        return self.last


for cls in (
    Plain,
    OtherGenerator,
    NoGenerator,
    OldSeed,
    Raises,
    Returns,
    Observes,
    Shows,
    Acts,
    DrawsGlobally,
    Bounded,
):
    gymnasium.register(f"Odd{cls.__name__}-v0", cls)


def odd_id(name: str) -> str:
    """The id of one of the classes above."""
    return f"helpers.odd_envs:Odd{name}-v0"


def odd_config(name: str, vectorization: str = "sync", **changes: Any) -> TrainConfig:
    """A hundred steps in one of the environments above; ``changes`` are keys of ``[env]``."""
    return parse_config(
        {
            "name": "odd",
            "steps": 100,
            "envs_per_member": 2,
            "rollout_steps": 5,
            "env": {"id": odd_id(name), "vectorization": vectorization} | changes,
            "agent": {"name": "actor-critic"},
            "policy": {"hidden": [4]},
            "optimizer": {"name": "sgd", "lr": 0.01},
            "evaluation": {"points": 0, "final_episodes": 2},
            "checkpoint_points": 2,
        }
    )
