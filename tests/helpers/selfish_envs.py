"""Environments that change what they share with the process or the machine; importing this module registers them."""

import os
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

Obs = np.ndarray


class Noise(gymnasium.Env[Obs, int]):
    """Episodes of ``length`` steps, whose rewards are drawn from the environment's generator."""

    observation_space = spaces.Box(0.0, 1.0, (2,))
    action_space = spaces.Discrete(2)

    def __init__(self, length: int = 5) -> None:
        self.length = length
        self.count = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Obs, dict[str, Any]]:
        super().reset(seed=seed)
        self.count = 0
        return self.obs(), {}

    def step(self, action: int) -> tuple[Obs, float, bool, bool, dict[str, Any]]:
        self.count += 1
        obs = self.obs()
        return obs, float(obs[action]), self.count == self.length, False, {}

    def obs(self) -> Obs:
        return self.np_random.uniform(size=2).astype(np.float32)


class Wandering(Noise):
    """Changes the working directory of the process when ``call`` is called."""

    def __init__(self, call: str, to: str) -> None:
        super().__init__()
        self.call = call
        self.to = to
        self.wander("constructor")

    def reset(self, **arguments: Any) -> tuple[Obs, dict[str, Any]]:
        self.wander("reset")
        return super().reset(**arguments)

    def step(self, action: int) -> tuple[Obs, float, bool, bool, dict[str, Any]]:
        self.wander("step")
        return super().step(action)

    def close(self) -> None:
        self.wander("close")

    def wander(self, call: str) -> None:
        if call == self.call:
            os.chdir(self.to)


for cls in (Noise, Wandering):
    gymnasium.register(f"Selfish{cls.__name__}-v0", cls)
