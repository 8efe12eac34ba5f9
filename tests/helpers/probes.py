"""Environments with a known answer, learnt in seconds; importing this module registers them.

After rejax's and Andy Jones' probe environments: each isolates one thing that can be wrong.
"""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

Obs = np.ndarray


class Probe(gymnasium.Env[Obs, int]):
    """``steps`` steps, or endless; reward is 1 at the last step, or ``constant``, or what obs and action say."""

    action_space = spaces.Discrete(2)
    observation_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, rule: str, length: int | None = 1) -> None:
        self._rule, self._length = rule, length
        self._time, self._sign = 0, 1.0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Obs, dict[str, Any]]:
        super().reset(seed=seed)
        self._time = 0
        self._sign = float(self.np_random.choice([-1.0, 1.0])) if self._rule in ("obs", "match") else 1.0
        return self._obs(), {}

    def step(self, action: int) -> tuple[Obs, float, bool, bool, dict[str, Any]]:
        self._time += 1
        over = self._time == self._length
        reward = {
            "constant": 1.0,
            "obs": self._sign,
            "delayed": float(over),
            "action": 1.0 if action == 1 else -1.0,
            "match": self._sign if action == 1 else -self._sign,
        }[self._rule]
        return self._obs(), reward, over, False, {}

    def _obs(self) -> Obs:
        value = self._time if self._rule == "delayed" else self._sign
        return np.array([value], dtype=np.float32)


class Target(gymnasium.Env[Obs, np.ndarray]):
    """One step; the best of the actions, which are bounded by 1 and 3, is 2 plus half the observation, 1 or -1."""

    action_space = spaces.Box(1.0, 3.0, (1,), np.float32)
    observation_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self) -> None:
        self._sign = np.ones(1, np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Obs, dict[str, Any]]:
        super().reset(seed=seed)
        self._sign = self.np_random.choice([-1.0, 1.0], 1).astype(np.float32)
        return self._sign, {}

    def step(self, action: np.ndarray) -> tuple[Obs, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        return self._sign, -float(np.square(action - 2.0 - 0.5 * self._sign).sum()), True, False, {}


for _name, _arguments in {
    "Constant": {"rule": "constant"},
    "Obs": {"rule": "obs"},
    "Delayed": {"rule": "delayed", "length": 2},
    "Action": {"rule": "action"},
    "Match": {"rule": "match"},
    "Endless": {"rule": "constant", "length": None},
}.items():
    gymnasium.register(f"Probe{_name}-v0", entry_point=Probe, kwargs=_arguments)
gymnasium.register("ProbeTarget-v0", entry_point=Target)
