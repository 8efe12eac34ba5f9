"""An environment with action masks, which raises if an action is taken that the last mask excluded."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

LENGTH = 3
REWARDS = np.array([0.0, 0.5, 1.0, 10.0])


class Masked(gymnasium.Env[Any, Any]):
    """Three steps. The observation is 1 or -1 at random; reward grows with the action, 10 for the last one.

    That one is always excluded, the third where the observation is -1. When an episode is over, nothing is allowed.

    Args:
        place: "info", "obs", or "none" for no masks at all.
        actions: "discrete"; "multi" for two components of such choices, the second of which has three and no masks.
        fault: what is wrong with the mask of the second step: "empty", "shape", "numbers", "missing".
    """

    def __init__(self, place: str = "info", actions: str = "discrete", fault: str = "") -> None:
        choices = {
            "discrete": spaces.Discrete(4),
            "multi": spaces.MultiDiscrete([4, 3]),
            "binary": spaces.MultiBinary(4),
            "box": spaces.Box(-1.0, 1.0, (4,)),
        }
        self.action_space: spaces.Space[Any] = choices[actions]
        sign = spaces.Box(-1.0, 1.0, (1,))
        self._size = 7 if actions == "multi" else 4
        with_mask = spaces.Dict({"action_mask": spaces.MultiBinary(self._size), "sign": sign})
        self.observation_space: spaces.Space[Any] = with_mask if place == "obs" else sign
        self._place, self._fault = place, fault
        self._time, self._sign = 0, 1.0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._time = 0
        return self._next()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if self.action_space.shape in ((), (2,)) and self._place != "none":
            first = int(np.ravel(action)[0])
            assert self.mask[first], f"action {first} was excluded"
            reward = float(REWARDS[first]) + float(np.ravel(action)[-1] == 1)
        else:
            reward = 0.0
        self._time += 1
        obs, info = self._next()
        return obs, reward, self._time == LENGTH, False, info

    @property
    def mask(self) -> np.ndarray:
        """Of the present state."""
        mask = np.ones(self._size, dtype=np.int8)
        mask[3] = 0
        mask[2] = self._sign > 0
        return mask * np.int8(self._time < LENGTH)

    def _next(self) -> tuple[Any, dict[str, Any]]:
        self._sign = float(self.np_random.choice([-1.0, 1.0]))
        mask: Any = self.mask
        if self._time == 2 and self._fault:
            mask = {"empty": mask * 0, "shape": mask[1:], "numbers": mask * 2, "missing": None}[self._fault]
        sign = np.array([self._sign], dtype=np.float32)
        if self._place == "obs":
            return {"action_mask": mask, "sign": sign} if mask is not None else {"sign": sign}, {}
        return sign, {} if mask is None or self._place == "none" else {"action_mask": mask}


gymnasium.register("Masked-v0", Masked)

MASKED = "helpers.masked_envs:Masked-v0"
