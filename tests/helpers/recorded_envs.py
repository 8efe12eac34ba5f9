"""Environments with all sorts of spaces that keep what they observed and which actions they were sent."""

from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces

ACTIONS: dict[str, spaces.Space[Any]] = {
    "discrete": spaces.Discrete(3, start=5),
    "box": spaces.Box(-1.0, 1.0, (2,)),
    "far box": spaces.Box(np.array([-1.0, 100.0]), np.array([1.0, 200.0]), dtype=np.float64),
    "multi-discrete": spaces.MultiDiscrete([3, 2], start=[0, 7]),
    "multi-binary": spaces.MultiBinary(3),
}

OBSERVATIONS: dict[str, spaces.Space[Any]] = {
    "vector": spaces.Box(-5.0, 5.0, (3,)),
    "matrix": spaces.Box(-5.0, 5.0, (2, 2), np.float64),
    "number": spaces.Discrete(4, start=2),
    "parts": spaces.Dict({"place": spaces.Box(-5.0, 5.0, (2,)), "mode": spaces.Discrete(3)}),
}


class Recorded(gymnasium.Env[Any, Any]):
    """Random observations for ten steps, whatever is done.

    Attributes:
        log: what was observed, and the action that was sent then, of all instances.
    """

    log: ClassVar[list[tuple[Any, Any]]] = []

    def __init__(self, actions: str = "discrete", observations: str = "vector") -> None:
        self.action_space = ACTIONS[actions]
        self.observation_space = OBSERVATIONS[observations]
        self._obs: Any = None
        self._steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._steps = 0
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.log.append((self._obs, action))
        self._steps += 1
        return self._observe(), float(self.np_random.normal()), False, self._steps == 10, {}

    def _observe(self) -> Any:
        space = self.observation_space
        space.seed(int(self.np_random.integers(2**31)))
        self._obs = space.sample()
        return self._obs


gymnasium.register("Recorded-v0", Recorded)
