"""Environments of two numbers and five steps an episode that are odd in one way; importing this module registers them."""

import ctypes
import random
from typing import Any

import gymnasium
import numpy as np
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


for cls in (Plain, OtherGenerator, NoGenerator, OldSeed):
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
