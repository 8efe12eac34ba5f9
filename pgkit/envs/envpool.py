"""EnvPool: environments in C++ threads. The package ``envpool`` is an optional dependency."""

import importlib.util
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pgkit.envs.actions import action_converter, action_shape, check_action
from pgkit.envs.base import EnvInfo, Transition, check_seeds
from pgkit.envs.observations import ObsFlattener, batch_flattener, observation_size
from pgkit.envs.seeding import fold_seed
from pgkit.errors import PgkitError

if TYPE_CHECKING:
    from gymnasium import Space

SAME_AS_GYMNASIUM = ("LunarLander-v3",)
"""Environments that are the same task in EnvPool as in Gymnasium; backend "auto" takes EnvPool for these."""


def installed() -> bool:
    """Whether the package envpool can be imported."""
    return importlib.util.find_spec("envpool") is not None


def not_saved(env_id: str) -> str:
    """Why a run on an environment of EnvPool cannot be resumed exactly, in one line."""
    return f"EnvPool cannot save an environment ({env_id}); env.backend=gymnasium can"


class EnvPoolEnvs:
    """K environments of EnvPool, with "next_step" autoreset; see :class:`pgkit.envs.Environments`.

    EnvPool takes seeds only when a pool is created. So every :meth:`reset` creates a new pool (in about a millisecond)
    for the environments that it resets, and ``_slots`` says in which pool, and where in it, each environment is.

    Args:
        env_id: EnvPool's id.
        num_envs: K.
        kwargs: options of ``envpool.make``.
        max_episode_steps: time limit in steps; None for EnvPool's own.
        device: device of the tensors; the environments run on the CPU.

    Raises:
        PgkitError: envpool is not installed, or has no such environment, or does not take these options.
    """

    def __init__(
        self, env_id: str, num_envs: int, kwargs: Mapping[str, Any], max_episode_steps: int | None, device: torch.device
    ) -> None:
        self._id = env_id
        self._options = dict(kwargs)
        if max_episode_steps is not None:
            self._options["max_episode_steps"] = max_episode_steps
        pool = self._create_pool([0])
        self.info = EnvInfo(
            name=env_id,
            num_envs=num_envs,
            obs_dim=observation_size(pool.single_observation_space, env_id),
            action_space=pool.single_action_space,
            autoreset="next_step",
            max_episode_steps=int(pool.config["max_episode_steps"]),
            backend="envpool",
            vectorization="native",
            device=device,
            can_step_subset=True,
            observation_space=pool.single_observation_space,
        )
        self._action_shape = action_shape(self.info.action_space, env_id)
        self._convert_actions = action_converter(self.info.action_space)
        self._flattener = _cached_flattener(pool.single_observation_space)
        self._pools: dict[int, Any] = {}
        self._slots = np.full((num_envs, 2), -1, dtype=np.int64)  # columns: key in _pools, position in that pool
        self._over = np.zeros(num_envs, dtype=np.bool_)

    def reset(self, seeds: Sequence[int], index: Tensor | None = None) -> Tensor:
        chosen = self._chosen(index)
        pool = self._create_pool([fold_seed(seed) for seed in check_seeds(seeds, index, self.info.num_envs)])
        key = max(self._pools, default=-1) + 1
        self._pools[key] = pool
        self._slots[chosen, 0] = key
        self._slots[chosen, 1] = np.arange(len(chosen))
        self._over[chosen] = False
        used = np.unique(self._slots[:, 0]).tolist()
        self._pools = {key: self._pools[key] for key in used if key >= 0}
        return self._tensor(self._flattener(len(chosen))(pool.reset()[0]))

    def step(self, action: Tensor, index: Tensor | None = None) -> Transition:
        chosen = self._chosen(index)
        check_action(action, len(chosen), self._action_shape)
        slots = self._slots[chosen]
        if (slots < 0).any():
            raise PgkitError(f"environment {self._id!r}: call reset(seeds) before the first step")
        actions = self._convert_actions(action)
        obs = np.empty((len(chosen), self.info.obs_dim), dtype=np.float32)
        reward = np.empty(len(chosen), dtype=np.float32)
        flags = np.empty((3, len(chosen)), dtype=np.bool_)  # terminated, truncated, valid
        for key, pool in self._pools.items():
            in_pool = slots[:, 0] == key
            rows = slice(None) if in_pool.all() else np.flatnonzero(in_pool)
            positions = slots[rows, 1].astype(np.int32)
            if len(positions):
                pool_obs, reward[rows], flags[0, rows], flags[1, rows], _ = pool.step(actions[rows], positions)
                obs[rows] = self._flattener(len(positions))(pool_obs)
        flags[2] = ~self._over[chosen]
        self._over[chosen] = flags[0] | flags[1]
        return Transition(self._tensor(obs), self._tensor(reward), *self._tensor(flags).unbind(0))

    def state(self, index: Tensor | None = None) -> None:
        return None

    def restore(self, state: Mapping[str, Tensor], index: Tensor | None = None) -> None:
        raise PgkitError(not_saved(self._id))

    def close(self) -> None:
        for pool in self._pools.values():
            pool.close()
        self._pools = {}

    def _chosen(self, index: Tensor | None) -> np.ndarray:
        return np.arange(self.info.num_envs) if index is None else index.cpu().numpy()

    def _create_pool(self, seeds: list[int]) -> Any:
        if not installed():
            raise PgkitError("env.backend 'envpool' needs the package envpool: pip install 'pgkit-rl[envpool]'")
        import envpool

        try:
            with warnings.catch_warnings():  # EnvPool declares spaces in float64, and Gymnasium warns of the cast
                warnings.simplefilter("ignore")
                pool = envpool.make(self._id, env_type="gymnasium", num_envs=len(seeds), seed=seeds, **self._options)
                _ = pool.single_observation_space  # made when it is first used, with that warning
        except (AssertionError, TypeError, ValueError) as error:
            message = " ".join(str(error).split())
            raise PgkitError(f"EnvPool cannot create {self._id!r} with {self._options}: {message}") from error
        return pool

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self.info.device)


def _cached_flattener(space: "Space[Any]") -> Callable[[int], ObsFlattener]:
    """A function from the size of a batch to the function that flattens its observations."""
    from gymnasium.vector.utils import batch_space

    return lru_cache(lambda count: batch_flattener(space, partial(batch_space, space, count), count))
