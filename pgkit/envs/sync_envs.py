"""Gymnasium environments, stepped one after the other in this process, with "next_step" autoreset."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pgkit.envs.action_masks import MaskSource, find_masks, without_masks
from pgkit.envs.actions import action_shape, action_splitter, check_action
from pgkit.envs.base import EnvInfo, Transition, check_seeds
from pgkit.envs.errors import EnvError, TooManyEnvs, env_error
from pgkit.envs.generators import EnvGenerators
from pgkit.envs.guard import GuardedEnv
from pgkit.envs.observations import check_flags, obs_flattener, observation_size, reward_problem
from pgkit.envs.replay import (
    EnvHistory,
    GeneratorState,
    generator_state,
    pack_histories,
    replay,
    unpack_histories,
)
from pgkit.errors import PgkitError

if TYPE_CHECKING:
    from gymnasium import Env


class SyncEnvs:
    """K instances of a Gymnasium environment; see :class:`pgkit.envs.Environments`.

    It costs about a microsecond per step beside the environment's own work. Any subset of the environments can step.
    The last reset of each environment and the actions since are remembered, so that it can be resumed exactly (see
    :mod:`pgkit.envs.replay`).

    Args:
        create: makes one instance.
        num_envs: K.
        name: name of the environment, for messages and records.
        device: device of the tensors.
        first: number that messages give to the first environment; a worker process has a slice of a larger K.
        action_mask: read the masks of actions, if the first reset gives one, see :mod:`pgkit.envs.action_masks`.

    Raises:
        PgkitError: unsupported observation or action space.
    """

    def __init__(
        self,
        create: Callable[[], "Env"],
        num_envs: int,
        name: str,
        device: torch.device,
        first: int = 0,
        action_mask: bool = True,
    ) -> None:
        self._create = create
        watched = EnvGenerators(first)
        generators = [watched, *(EnvGenerators(k, watched) for k in range(first + 1, first + num_envs))]
        self._envs = _create_all(create, generators)
        self._first = first
        env = self._envs[0]
        self._action_mask = action_mask
        self._masks: MaskSource | None = None
        self._was_reset = False
        obs_space = without_masks(env.observation_space) if action_mask else env.observation_space
        self.info = EnvInfo(
            name=name,
            num_envs=num_envs,
            obs_dim=observation_size(obs_space, name),
            action_space=env.action_space,
            autoreset="next_step",
            max_episode_steps=env.spec.max_episode_steps if env.spec else None,
            backend="gymnasium",
            vectorization="sync",
            device=device,
            can_step_subset=True,
            observation_space=obs_space,
        )
        self._on_cpu = device.type == "cpu"
        self._action_shape = action_shape(env.action_space, name)
        self._split_actions = action_splitter(env.action_space)
        self._flatten = obs_flattener(obs_space)
        guarded = zip(self._envs, generators, strict=True)
        self._guards = [GuardedEnv(env, self._flatten, view, obs_space) for env, view in guarded]
        # What EnvHistory describes, one entry per environment:
        self._seeds = [0] * num_envs
        self._generators: list[GeneratorState | None] = [None] * num_envs
        self._actions: list[list[Any]] = [[] for _ in range(num_envs)]
        self._last_obs = np.zeros((num_envs, self.info.obs_dim), dtype=np.float32)
        self._totals = np.zeros(num_envs)
        self._over = [False] * num_envs

    def reset(self, seeds: Sequence[int], index: Tensor | None = None) -> Tensor:
        chosen = self._chosen(index)
        rows = []
        for k, seed in zip(chosen, check_seeds(seeds, index, self.info.num_envs), strict=True):
            self._seeds[k] = seed
            self._generators[k] = None
            self._actions[k] = []
            self._over[k] = True  # until the reset has succeeded
            try:
                first_obs, info = self._guards[k].reset(seed)
                self._find_masks(k, info)
                rows.append(np.array(self._row(first_obs, info), np.float32))  # a copy: instances may share a buffer
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                raise self._error(k, error) from error
            self._over[k] = False
        obs = np.array(rows, np.float32).reshape(len(rows), self._last_obs.shape[1])
        self._last_obs[chosen] = obs
        self._totals[chosen] = 0.0
        return torch.from_numpy(obs).to(self.info.device)

    def step(self, action: Tensor, index: Tensor | None = None) -> Transition:
        chosen = self._chosen(index)
        check_action(action, len(chosen), self._action_shape)
        batch = _Batch.allocate(len(chosen), self._last_obs.shape[1])
        env_actions, remembered = self._split_actions(action)
        # This loop runs once per environment step of every run: attributes are looked up before it.
        over, guards, flatten, history = self._over, self._guards, self._flatten, self._actions
        batch_obs = batch.obs
        masks = self._masks
        batch_reward = batch.reward.data  # an element of this buffer takes real numbers only; an array reads texts
        reward: Any = 0.0
        k = 0
        try:
            for row, (k, env_action) in enumerate(zip(chosen, env_actions, strict=True)):
                if over[k]:
                    batch_obs[row] = self._autoreset(k)
                    batch.valid[row] = False
                    over[k] = False
                    continue
                history[k].append(remembered[row])
                obs, reward, terminated, truncated, info = guards[k].step(env_action)
                batch_reward[row] = reward
                if masks is None:
                    batch_obs[row] = flatten(obs)
                else:
                    batch_obs[row] = np.concatenate([flatten(obs), masks.read(obs, info, terminated or truncated)])
                if terminated or truncated:
                    check_flags(terminated, truncated)
                    batch.terminated[row] = terminated
                    batch.truncated[row] = truncated
                    over[k] = True
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise self._error(k, reward_problem(reward) or error) from error
        rewards = torch.from_numpy(batch.reward).float()  # one beyond float32 becomes infinite; NumPy would warn
        columns = slice(None) if index is None else chosen
        self._last_obs[columns] = batch.obs
        self._totals[columns] += rewards.numpy()
        tensors = [rewards if array is batch.reward else torch.from_numpy(array) for array in batch]
        return Transition(*(tensors if self._on_cpu else (tensor.to(self.info.device) for tensor in tensors)))

    def state(self, index: Tensor | None = None) -> dict[str, Tensor]:
        return pack_histories(self.histories(self._chosen(index)))

    def restore(self, state: Mapping[str, Tensor], index: Tensor | None = None) -> None:
        self.restore_histories(unpack_histories(state), self._chosen(index))

    def histories(self, chosen: Sequence[int]) -> list[EnvHistory]:
        """Histories of the environments with these numbers."""
        return [
            EnvHistory(
                seed=self._seeds[k],
                generator=self._generators[k],
                actions=list(self._actions[k]),
                obs=self._last_obs[k].copy(),
                total=float(self._totals[k]),
                over=self._over[k],
            )
            for k in chosen
        ]

    def restore_histories(self, histories: Sequence[EnvHistory], chosen: Sequence[int]) -> None:
        """Replay histories in the environments with these numbers; raises as :meth:`restore`."""
        for k, history in zip(chosen, histories, strict=True):
            try:
                without_mask = replace(history, obs=history.obs[: self.info.obs_dim])
                replay(self._envs[k], without_mask, self._flatten, self.info.name)
            except (PgkitError, KeyboardInterrupt):
                raise
            except BaseException as error:
                where = f"replay of sub-environment {self._first + k}"
                raise env_error(self.info.name, where, error, history.seed) from error
            self._seeds[k] = history.seed
            self._generators[k] = history.generator
            self._actions[k] = list(history.actions)
            self._last_obs[k] = history.obs
            self._totals[k] = history.total
            self._over[k] = history.over

    def close(self) -> None:
        for env in self._envs:
            try:
                env.close()
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # nothing is lost that pgkit needs: not worth ending a run for
                warnings.warn(f"environment {self.info.name!r}: close() raised {error!r}", stacklevel=2)

    def _chosen(self, index: Tensor | None) -> Sequence[int]:
        return range(self.info.num_envs) if index is None else index.tolist()

    def _autoreset(self, k: int) -> np.ndarray:
        """Begin the next episode of environment k; its first observation ``(D,)``, with its mask ``(D + M,)``."""
        self._generators[k] = generator_state(self._envs[k])
        self._totals[k] = 0.0
        self._actions[k] = []
        return self._row(*self._guards[k].reset())

    def _find_masks(self, k: int, info: Any) -> None:
        """Look for masks in environment k, if nothing has been reset yet: the first reset of all decides."""
        if self._was_reset:
            return
        if self._action_mask:
            self._masks = find_masks(self._envs[k], info)
        if self._masks is not None:
            self._last_obs = np.zeros((self.info.num_envs, self.info.obs_dim + self._masks.size), dtype=np.float32)
        self._was_reset = True

    def _row(self, obs: Any, info: Any) -> np.ndarray:
        """The first observation of an episode, with its mask if there are masks."""
        features = self._flatten(obs)
        return features if self._masks is None else np.concatenate([features, self._masks.read(obs, info)])

    def _error(self, k: int, error: BaseException) -> EnvError:
        """What a call of environment k has just raised, or what raised when its result was used."""
        call = "reset" if self._over[k] else "step"
        where = f"{call}() of sub-environment {self._first + k}"
        return env_error(self.info.name, where, error, self._seeds[k], None if self._over[k] else len(self._actions[k]))


class _Batch(NamedTuple):
    """The arrays of a :class:`Transition` while they are filled, row by row; rewards in float64."""

    obs: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    valid: np.ndarray

    @classmethod
    def allocate(cls, count: int, obs_dim: int) -> "_Batch":
        terminated, truncated, valid = np.zeros((3, count), dtype=np.bool_)
        valid.fill(True)
        return cls(np.empty((count, obs_dim), dtype=np.float32), np.zeros(count), terminated, truncated, valid)


def _create_all(create: Callable[[], "Env"], generators: Sequence[EnvGenerators]) -> list["Env"]:
    """Create one instance for each generator; if there cannot be so many, close those that could be created.

    Raises:
        PgkitError: not even the first can be created.
        TooManyEnvs: the first can be.
    """
    envs: list[Env] = []
    for view in generators:
        try:
            envs.append(view.call(create))
        except PgkitError as error:
            for env in envs:
                with suppress(Exception):  # the reason above matters more
                    env.close()
            if not envs:
                raise
            raise TooManyEnvs(f"{error} (after {len(envs)} of {len(generators)})") from error
    return envs
