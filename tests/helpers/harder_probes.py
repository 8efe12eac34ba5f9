"""Probe environments that need memory, or eyes; importing this module registers them."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

Obs = np.ndarray


class Recall(gymnasium.Env[Obs, int]):
    """The first observation shows a sign, the others nothing; at the last step the action must be that of the sign.

    A policy without memory gets 0 on average, the best one 1.
    """

    action_space = spaces.Discrete(2)
    observation_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, length: int = 4) -> None:
        self._length = length
        self._time = 0
        self._sign = 1.0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Obs, dict[str, Any]]:
        super().reset(seed=seed)
        self._time = 0
        self._sign = float(self.np_random.choice([-1.0, 1.0]))
        return np.array([self._sign], np.float32), {}

    def step(self, action: int) -> tuple[Obs, float, bool, bool, dict[str, Any]]:
        self._time += 1
        over = self._time == self._length
        reward = (self._sign if action == 1 else -self._sign) if over else 0.0
        return np.zeros(1, np.float32), reward, over, False, {}


class Side(gymnasium.Env[Obs, int]):
    """An image with a bright square on one side; the action names the side. The best policy gets 1, others 0."""

    action_space = spaces.Discrete(2)

    def __init__(self, side: int = 36) -> None:
        self.observation_space = spaces.Box(0, 255, (side, side, 1), np.uint8)
        self._right = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Obs, dict[str, Any]]:
        super().reset(seed=seed)
        self._right = int(self.np_random.integers(2))
        return self._image(), {}

    def step(self, action: int) -> tuple[Obs, float, bool, bool, dict[str, Any]]:
        return self._image(), float(action == self._right), True, False, {}

    def _image(self) -> Obs:
        side = self.observation_space.shape[0]
        image = np.zeros((side, side, 1), np.uint8)
        half = side // 2
        rows = slice(side // 4, half)
        start = half + 2 if self._right else 2
        image[rows, start : start + side // 4] = 255
        return image


gymnasium.register("ProbeRecall-v0", Recall)
gymnasium.register("ProbeSide-v0", Side)
