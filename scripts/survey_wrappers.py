"""Registers environments that are no Gymnasium environments by themselves, for ``survey_environments.py``.

Importing this module registers ``survey/...-v0``, each a wrapper around what another package has. The packages are
imported only when an environment is made.
"""

import importlib
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

PORT = 45_123


class SingleInstance(gymnasium.Env[NDArray[np.float32], int]):
    """A simulator like those of Unity: it listens on a fixed port, so a machine holds one instance at a time."""

    observation_space = spaces.Box(-1, 1, (3,))
    action_space = spaces.Discrete(2)

    def __init__(self, port: int = PORT) -> None:
        self._server = socket.create_server(("127.0.0.1", port))
        self._position = 0.0
        self._time = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[NDArray[np.float32], dict[str, Any]]:
        super().reset(seed=seed)
        self._position = float(self.np_random.uniform(-0.5, 0.5))
        self._time = 0
        return self._obs(), {}

    def step(self, action: int) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        self._position += 0.2 * action - 0.1
        self._time += 1
        return self._obs(), -abs(self._position), abs(self._position) > 1, self._time >= 30, {}

    def close(self) -> None:
        self._server.close()

    def _obs(self) -> NDArray[np.float32]:
        return np.array([np.clip(self._position, -1, 1), self._time / 30, 1], np.float32)


class OneAgent(gymnasium.Env[Any, Any]):
    """A PettingZoo environment for its first agent; the others act at random.

    Args:
        game: module such as ``pettingzoo.sisl.pursuit_v5``.
        arguments: of its ``parallel_env``.
    """

    def __init__(self, game: str, arguments: Mapping[str, Any] | None = None) -> None:
        self._env = importlib.import_module(game).parallel_env(**(arguments or {}))
        self._agent = self._env.possible_agents[0]
        self.observation_space = self._env.observation_space(self._agent)
        self.action_space = self._env.action_space(self._agent)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        obs, _ = self._env.reset(seed=int(self.np_random.integers(2**31)))
        for index, agent in enumerate(self._env.possible_agents):
            self._env.action_space(agent).seed(int(self.np_random.integers(2**31)) + index)
        return obs[self._agent], {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        actions = {agent: self._env.action_space(agent).sample() for agent in self._env.agents}
        actions[self._agent] = action
        obs, reward, terminated, truncated, _ = self._env.step(actions)
        agent = self._agent
        return obs[agent], reward[agent], terminated[agent], truncated[agent], {}

    def close(self) -> None:
        self._env.close()


class AgainstRandom(gymnasium.Env[Any, Any]):
    """A turn-based PettingZoo game against an opponent that plays random legal moves; illegal moves lose.

    Args:
        game: module such as ``pettingzoo.classic.tictactoe_v3``.
    """

    def __init__(self, game: str) -> None:
        self._env = importlib.import_module(game).env()
        self._env.reset()
        self._agent = self._env.possible_agents[0]
        self.observation_space = self._env.observation_space(self._agent)["observation"]
        self.action_space = self._env.action_space(self._agent)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._env.reset(seed=int(self.np_random.integers(2**31)))
        self._play_others()
        return self._env.observe(self._agent)["observation"], {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._env.step(action)
        self._play_others()
        obs = self._env.observe(self._agent)["observation"]
        over = self._env.terminations[self._agent]
        return obs, self._env.rewards[self._agent], over, self._env.truncations[self._agent], {}

    def close(self) -> None:
        self._env.close()

    def _play_others(self) -> None:
        while self._env.agent_selection != self._agent and not any(self._env.terminations.values()):
            legal = np.flatnonzero(self._env.observe(self._env.agent_selection)["action_mask"])
            self._env.step(int(self.np_random.choice(legal)))


def minigrid_env(env_id: str) -> "gymnasium.Env[Any, Any]":
    """An environment of MiniGrid without the text of its mission, as its wrapper ``ImgObsWrapper`` shows it."""
    from minigrid.wrappers import ImgObsWrapper

    return ImgObsWrapper(gymnasium.make(env_id))


def wrapped(env_id: str, wrappers: Mapping[str, Mapping[str, Any]]) -> "gymnasium.Env[Any, Any]":
    """An environment in wrappers of ``gymnasium.wrappers``: their names and arguments, the innermost first."""
    env = gymnasium.make(env_id)
    for name, arguments in wrappers.items():
        env = getattr(gymnasium.wrappers, name)(env, **arguments)
    return env


gymnasium.register("survey/SingleInstance-v0", SingleInstance)
gymnasium.register("survey/PettingZoo-v0", OneAgent, max_episode_steps=200)
gymnasium.register("survey/PettingZooAgainstRandom-v0", AgainstRandom, max_episode_steps=200)
gymnasium.register("survey/MiniGrid-v0", minigrid_env)
gymnasium.register("survey/Wrapped-v0", wrapped)

with suppress(ImportError):
    from minatar.gym import register_envs

    register_envs()

with suppress(ImportError):
    import gym_classics

    gym_classics.register("gymnasium")
