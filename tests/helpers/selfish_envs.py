"""Environments that change what they share with the process or the machine; importing this module registers them."""

import os
import socket
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


class Counted(Noise):
    """Pays the number of the instance, counted in the class."""

    instances = 0

    def __init__(self) -> None:
        super().__init__()
        Counted.instances += 1
        self.number = Counted.instances

    def step(self, action: int) -> tuple[Obs, float, bool, bool, dict[str, Any]]:
        obs, reward, *rest = super().step(action)
        return obs, reward + self.number, *rest


class SharedWindow(Noise):
    """All instances draw into one window, which the first that is closed takes away."""

    window: list[str] | None = None

    def __init__(self) -> None:
        super().__init__()
        SharedWindow.window = []

    def step(self, action: int) -> tuple[Obs, float, bool, bool, dict[str, Any]]:
        assert SharedWindow.window is not None, "display Surface quit"
        return super().step(action)

    def close(self) -> None:
        SharedWindow.window = None


class GlobalGenerator(Noise):
    """Pays what NumPy's global generator says, which every instance draws from."""

    def step(self, action: int) -> tuple[Obs, float, bool, bool, dict[str, Any]]:
        obs, _, *rest = super().step(action)
        return obs, float(np.random.uniform()), *rest  # noqa: NPY002 the legacy generator is what all share


class Server(Noise):
    """A simulator that serves a port, so that there can be only one at a time."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self.socket.bind(("127.0.0.1", port))
            self.socket.listen()
        except OSError:
            self.socket.close()
            raise

    def close(self) -> None:
        self.socket.close()


class Licensed(Noise):
    """There are as many as there are licences."""

    licences = 2
    open = 0
    most = 0

    def __init__(self) -> None:
        super().__init__()
        if Licensed.open == Licensed.licences:
            raise RuntimeError("no licence is left")
        Licensed.open += 1
        Licensed.most = max(Licensed.most, Licensed.open)

    def close(self) -> None:
        Licensed.open -= 1


for cls in (Noise, Wandering, Counted, SharedWindow, GlobalGenerator, Server, Licensed):
    gymnasium.register(f"Selfish{cls.__name__}-v0", cls)
