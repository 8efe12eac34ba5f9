"""Gymnasium environments in a plain loop of this process, NEXT_STEP autoreset, any subset at a time."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pgkit.envs.base import EnvInfo, Transition, check_seeds
from pgkit.envs.errors import ENV_EXCEPTIONS, EnvError, env_error
from pgkit.envs.replay import EnvHistory, Generator, bring_back, generator_of, pack, replay_problem, unpack
from pgkit.envs.spaces import action_shape, actions_for, check_action, flatten_one, is_flat, observation_size
from pgkit.errors import PgkitError

if TYPE_CHECKING:
    from gymnasium import Env


class SyncEnvs:
    """K instances of a Gymnasium environment. Beside the instances' own work it costs about a microsecond a step.

    It remembers the last reset of each and the actions since, see :mod:`pgkit.envs.replay`.

    Args:
        create: makes one.
        count: K.
        name: for messages and records.
        device: of the tensors.
        first: what errors call the first of them, where this is a slice of more.
    """

    def __init__(
        self, create: Callable[[], "Env"], count: int, name: str, device: torch.device, first: int = 0
    ) -> None:
        self._create = create
        self._envs = [create() for _ in range(count)]
        one = self._envs[0]
        obs_space, action_space = one.observation_space, one.action_space
        self.info = EnvInfo(
            name=name,
            num_envs=count,
            obs_dim=observation_size(obs_space, name),
            action_space=action_space,
            autoreset="next_step",
            max_episode_steps=one.spec.max_episode_steps if one.spec else None,
            backend="gymnasium",
            vectorization="sync",
            device=device,
            can_step_subset=True,
        )
        self._action_shape = action_shape(action_space, name)
        self._actions = actions_for(action_space)
        self._flatten = flatten_one(obs_space)
        self._is_flat, self._shape = is_flat(obs_space), obs_space.shape
        self._over = [False] * count  # the episode is over: the next step is a reset
        self._first, self._seeds = first, [0] * count
        self._generators: list[Generator | None] = [None] * count
        self._done: list[list[Any]] = [[] for _ in range(count)]  # actions since the last reset
        self._last = np.zeros((count, self.info.obs_dim), dtype=np.float32)
        self._totals = np.zeros(count)

    def reset(self, seeds: Sequence[int], index: Tensor | None = None) -> Tensor:
        chosen = range(self.info.num_envs) if index is None else index.tolist()
        numbers = check_seeds(seeds, index, self.info.num_envs)
        obs = np.empty((len(chosen), self.info.obs_dim), dtype=np.float32)
        for i, (k, seed) in enumerate(zip(chosen, numbers, strict=True)):
            self._over[k], self._seeds[k], self._generators[k], self._done[k] = True, seed, None, []
            try:
                obs[i] = self._row(self._envs[k].reset(seed=seed)[0])
            except ENV_EXCEPTIONS as error:
                raise self._fault(k, error) from error
            self._over[k] = False
        self._last[chosen], self._totals[chosen] = obs, 0.0
        return self._tensor(obs)

    def step(self, action: Tensor, index: Tensor | None = None) -> Transition:
        chosen = range(self.info.num_envs) if index is None else index.tolist()
        count, width = len(chosen), self.info.obs_dim
        check_action(action, count, self._action_shape)
        envs, over, flatten, flat, done = self._envs, self._over, self._flatten, self._is_flat, self._done
        obs = np.empty((count, width), dtype=np.float32)
        reward, valid = np.zeros(count), np.ones(count, dtype=np.bool_)
        terminated, truncated = np.zeros(count, dtype=np.bool_), np.zeros(count, dtype=np.bool_)
        actions = self._actions(action)
        kept = actions.copy()  # an environment may write into what it is given
        k = 0
        try:
            for i, (k, act) in enumerate(zip(chosen, actions, strict=True)):
                if over[k]:
                    self._generators[k], self._totals[k], done[k] = generator_of(envs[k]), 0.0, []
                    obs[i] = self._row(envs[k].reset()[0])
                    valid[i] = over[k] = False
                    continue
                done[k].append(kept[i])
                seen, reward[i], ended, cut, _ = envs[k].step(act)
                row = seen if flat else flatten(seen)
                if len(row) != width:  # a single number would be stretched to all
                    raise ValueError(f"an observation of shape {np.shape(seen)}, expected {self._shape}")
                obs[i] = row
                if ended or cut:
                    terminated[i], truncated[i], over[k] = ended, cut, True
        except ENV_EXCEPTIONS as error:
            raise self._fault(k, error) from error
        with np.errstate(over="ignore"):  # a reward beyond float32 is an infinite one
            rewards = reward.astype(np.float32)
        where = slice(None) if index is None else chosen
        self._last[where] = obs
        self._totals[where] += rewards
        return Transition(
            self._tensor(obs),
            self._tensor(rewards),
            self._tensor(terminated),
            self._tensor(truncated),
            self._tensor(valid),
        )

    def resume_problem(self) -> str | None:
        try:
            return replay_problem(self._create, self._flatten, self.info.name)
        except ENV_EXCEPTIONS as error:
            return f"environment {self.info.name!r} could not be tried: {error!r}"

    def state(self, index: Tensor | None = None) -> dict[str, Tensor]:
        return pack(self.lives(range(self.info.num_envs) if index is None else index.tolist()))

    def restore(self, state: Mapping[str, Tensor], index: Tensor | None = None) -> None:
        self.live_again(unpack(state), range(self.info.num_envs) if index is None else index.tolist())

    def lives(self, chosen: Sequence[int]) -> list[EnvHistory]:
        """Those of these sub-environments."""
        return [
            EnvHistory(
                self._seeds[k],
                self._generators[k],
                list(self._done[k]),
                self._last[k].copy(),
                float(self._totals[k]),
                self._over[k],
            )
            for k in chosen
        ]

    def live_again(self, lives: Sequence[EnvHistory], chosen: Sequence[int]) -> None:
        """Lead these sub-environments through lives; raises as :meth:`restore`."""
        for k, life in zip(chosen, lives, strict=True):
            try:
                bring_back(self._envs[k], life, self._flatten, self.info.name)
            except PgkitError:
                raise
            except ENV_EXCEPTIONS as error:
                raise env_error(self.info.name, f"sub-environment {self._first + k}", error, life.seed) from error
            self._over[k], self._seeds[k], self._generators[k] = life.over, life.seed, life.generator
            self._done[k], self._last[k], self._totals[k] = list(life.actions), life.obs, life.total

    def close(self) -> None:
        for env in self._envs:
            try:
                env.close()
            except ENV_EXCEPTIONS as error:  # all there was to lose is the environment's own
                warnings.warn(f"environment {self.info.name!r}: close() raised {error!r}", stacklevel=2)

    def _row(self, seen: Any) -> np.ndarray:
        """The observation of a reset, flat."""
        row = seen if self._is_flat else self._flatten(seen)
        if len(row) != self.info.obs_dim:
            raise ValueError(f"an observation of shape {np.shape(seen)}, expected {self._shape}")
        return row

    def _fault(self, k: int, error: BaseException) -> EnvError:
        """That sub-environment k has just raised this, or returned what raised it here."""
        where = f"{'reset' if self._over[k] else 'step'}() of sub-environment {self._first + k}"
        return env_error(self.info.name, where, error, self._seeds[k])

    def _tensor(self, array: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(array)
        return tensor if self.info.device.type == "cpu" else tensor.to(self.info.device)
