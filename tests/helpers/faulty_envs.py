"""Environments of which one fails in the way that a test asks for; importing this module registers them."""

import os
import signal
import sys
import time
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces


class Unspeakable(Exception):
    """Its message raises."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


class Faulty(gymnasium.Env[np.ndarray, Any]):
    """Five steps an episode. Where the seed leaves this remainder, the fault happens at step ``at`` and after.

    Steps are counted over episodes, from 1; step 0 is the first reset.
    """

    observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)

    def __init__(self, fault: str = "", remainder: int = -1, at: int = 40, box: bool = False) -> None:
        self.action_space = spaces.Box(-1.0, 1.0, (2,)) if box else spaces.Discrete(2)
        self.fault, self.remainder, self.at = fault, remainder, at
        self.chosen, self.steps = False, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None:
            self.chosen, self.steps = seed % 10007 == self.remainder, 0
        self._break("reset")
        return self._obs(), {}

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action), f"{action!r} is no action"
        self.steps += 1
        self._break("step")
        broken = self.fault.startswith("reward ") and self._now()
        reward = float(self.fault.removeprefix("reward ")) if broken else float(np.sum(action))
        whole = (self._obs(), reward, self.steps % 5 == 0, False, {})
        return whole[:4] if self.fault == "four" and self._now() else whole

    def close(self) -> None:
        if self.fault == "close":
            raise OSError("cannot be closed")

    def _now(self) -> bool:
        return self.chosen and self.steps >= self.at

    def _obs(self) -> Any:
        obs = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        if not self._now():
            return obs
        if self.fault.startswith("obs "):
            return obs * float(self.fault.removeprefix("obs "))
        wrong = {"scalar": np.float32(1.0), "one": obs[:1], "three": np.append(obs, 1.0), "text": "left", "none": None}
        return wrong.get(self.fault, obs)

    def _break(self, where: str) -> None:
        if not self._now() or not self.fault.startswith(where):
            return
        how = self.fault.removeprefix(where).strip()
        if how == "raises":
            raise ZeroDivisionError("no gravity\nhere")
        if how == "unspeakable":
            raise Unspeakable
        if how == "exits":
            sys.exit(3)
        if how == "dies":
            os._exit(7)
        if how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "sleeps":
            time.sleep(600)
        if how == "blocks":  # signals cannot end it
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            time.sleep(600)


gymnasium.register("Faulty-v0", Faulty)
