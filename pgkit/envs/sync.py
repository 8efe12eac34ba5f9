"""Gymnasium environments in a plain loop of this process, NEXT_STEP autoreset, any subset at a time."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pgkit.envs.base import EnvInfo, Transition, check_seeds
from pgkit.envs.replay import Generator, Life, bring_back, generator_of, pack, unpack, why_not
from pgkit.envs.spaces import action_shape, actions_for, check_action, flatten_one, is_flat, observation_size

if TYPE_CHECKING:
    from gymnasium import Env


class SyncEnvs:
    """K instances of a Gymnasium environment. Beside the instances' own work it costs about a microsecond a step.

    It remembers the last reset of each and the actions since, see :mod:`pgkit.envs.replay`.
    """

    def __init__(self, create: Callable[[], "Env"], count: int, name: str, device: torch.device) -> None:
        self._create = create
        self._envs = [create() for _ in range(count)]
        first = self._envs[0]
        obs_space, action_space = first.observation_space, first.action_space
        self.info = EnvInfo(
            name=name,
            count=count,
            obs_dim=observation_size(obs_space, name),
            action_space=action_space,
            autoreset="next_step",
            max_episode_steps=first.spec.max_episode_steps if first.spec else None,
            backend="gymnasium",
            vectorization="sync",
            device=device,
            can_step_subset=True,
        )
        self._action_shape = action_shape(action_space, name)
        self._actions = actions_for(action_space)
        self._flatten = flatten_one(obs_space)
        self._is_flat = is_flat(obs_space)
        self._over = [False] * count  # the episode is over: the next step is a reset
        self._seeds = [0] * count
        self._generators: list[Generator | None] = [None] * count
        self._done: list[list[Any]] = [[] for _ in range(count)]  # actions since the last reset
        self._last = np.zeros((count, self.info.obs_dim), dtype=np.float32)
        self._totals = np.zeros(count)

    def reset(self, seeds: Sequence[int], index: Tensor | None = None) -> Tensor:
        chosen = range(self.info.count) if index is None else index.tolist()
        numbers = check_seeds(seeds, index, self.info.count)
        obs = np.empty((len(chosen), self.info.obs_dim), dtype=np.float32)
        for i, (k, seed) in enumerate(zip(chosen, numbers, strict=True)):
            obs[i] = self._flatten(self._envs[k].reset(seed=seed)[0])
            self._over[k], self._seeds[k], self._generators[k], self._done[k] = False, seed, None, []
        self._last[chosen], self._totals[chosen] = obs, 0.0
        return self._tensor(obs)

    def step(self, action: Tensor, index: Tensor | None = None) -> Transition:
        chosen = range(self.info.count) if index is None else index.tolist()
        count = len(chosen)
        check_action(action, count, self._action_shape)
        envs, over, flatten, flat, done = self._envs, self._over, self._flatten, self._is_flat, self._done
        obs = np.empty((count, self.info.obs_dim), dtype=np.float32)
        reward, valid = np.zeros(count, dtype=np.float32), np.ones(count, dtype=np.bool_)
        terminated, truncated = np.zeros(count, dtype=np.bool_), np.zeros(count, dtype=np.bool_)
        actions = self._actions(action)
        kept = actions.copy()  # an environment may write into what it is given
        for i, (k, act) in enumerate(zip(chosen, actions, strict=True)):
            if over[k]:
                self._generators[k], self._totals[k], done[k] = generator_of(envs[k]), 0.0, []
                obs[i] = flatten(envs[k].reset()[0])
                valid[i] = over[k] = False
                continue
            done[k].append(kept[i])
            seen, reward[i], ended, cut, _ = envs[k].step(act)
            obs[i] = seen if flat else flatten(seen)
            if ended or cut:
                terminated[i], truncated[i], over[k] = ended, cut, True
        where = slice(None) if index is None else chosen
        self._last[where] = obs
        self._totals[where] += reward
        return Transition(
            self._tensor(obs),
            self._tensor(reward),
            self._tensor(terminated),
            self._tensor(truncated),
            self._tensor(valid),
        )

    def why_inexact(self) -> str | None:
        return why_not(self._create, self._flatten, self.info.name)

    def state(self, index: Tensor | None = None) -> dict[str, Tensor]:
        return pack(self.lives(range(self.info.count) if index is None else index.tolist()))

    def restore(self, state: Mapping[str, Tensor], index: Tensor | None = None) -> None:
        self.live_again(unpack(state), range(self.info.count) if index is None else index.tolist())

    def lives(self, chosen: Sequence[int]) -> list[Life]:
        """Those of these sub-environments."""
        return [
            Life(
                self._seeds[k],
                self._generators[k],
                list(self._done[k]),
                self._last[k].copy(),
                float(self._totals[k]),
                self._over[k],
            )
            for k in chosen
        ]

    def live_again(self, lives: Sequence[Life], chosen: Sequence[int]) -> None:
        """Lead these sub-environments through lives; raises as :meth:`restore`."""
        for k, life in zip(chosen, lives, strict=True):
            bring_back(self._envs[k], life, self._flatten, self.info.name)
            self._over[k], self._seeds[k], self._generators[k] = life.over, life.seed, life.generator
            self._done[k], self._last[k], self._totals[k] = list(life.actions), life.obs, life.total

    def close(self) -> None:
        for env in self._envs:
            env.close()

    def _tensor(self, array: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(array)
        return tensor if self.info.device.type == "cpu" else tensor.to(self.info.device)
