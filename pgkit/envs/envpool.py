"""EnvPool: many environments in C++ threads (an optional dependency)."""

import importlib.util
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pgkit.envs.base import EnvInfo, Transition, check_seeds
from pgkit.envs.spaces import Flatten, action_shape, actions_for, check_action, flatten_batch, observation_size
from pgkit.errors import PgkitError

if TYPE_CHECKING:
    from gymnasium import Space

AUTOMATIC = ("LunarLander-v3",)
"""Ids whose EnvPool version is the same task as Gymnasium's; backend "auto" takes it for these."""


def installed() -> bool:
    """Whether the package envpool can be imported."""
    return importlib.util.find_spec("envpool") is not None


class EnvPoolEnvs:
    """K environments of EnvPool, NEXT_STEP autoreset.

    EnvPool takes seeds only when a pool is made, so every :meth:`reset` makes a new pool (about a millisecond)
    for the environments that it names; ``_slots`` says where each environment now lives.
    """

    def __init__(
        self, env_id: str, count: int, kwargs: Mapping[str, Any], max_episode_steps: int | None, device: torch.device
    ) -> None:
        self._options = dict(kwargs) | ({} if max_episode_steps is None else {"max_episode_steps": max_episode_steps})
        self._id = env_id
        probe = self._make([0])
        self.info = EnvInfo(
            name=env_id,
            num_envs=count,
            obs_dim=observation_size(probe.single_observation_space, env_id),
            action_space=probe.single_action_space,
            autoreset="next_step",
            max_episode_steps=int(probe.config["max_episode_steps"]),
            backend="envpool",
            vectorization="native",
            device=device,
            can_step_subset=True,
        )
        self._action_shape = action_shape(self.info.action_space, env_id)
        self._actions = actions_for(self.info.action_space)
        self._flat = _flattener(probe.single_observation_space)
        self._pools: dict[int, Any] = {}
        self._slots = np.full((count, 2), -1, dtype=np.int64)  # pool, and place in it
        self._over = np.zeros(count, dtype=np.bool_)

    def reset(self, seeds: Sequence[int], index: Tensor | None = None) -> Tensor:
        chosen = np.arange(self.info.num_envs) if index is None else index.cpu().numpy()
        pool = self._make([_fold(seed) for seed in check_seeds(seeds, index, self.info.num_envs)])
        number = max(self._pools, default=-1) + 1
        self._pools[number] = pool
        self._slots[chosen, 0], self._slots[chosen, 1] = number, np.arange(len(chosen))
        self._over[chosen] = False
        self._pools = {key: self._pools[key] for key in np.unique(self._slots[:, 0]).tolist() if key >= 0}
        return self._tensor(self._flat(len(chosen))(pool.reset()[0]))

    def step(self, action: Tensor, index: Tensor | None = None) -> Transition:
        chosen = np.arange(self.info.num_envs) if index is None else index.cpu().numpy()
        check_action(action, len(chosen), self._action_shape)
        actions = np.asarray(self._actions(action), dtype=self.info.action_space.dtype)
        obs = np.empty((len(chosen), self.info.obs_dim), dtype=np.float32)
        reward = np.empty(len(chosen), dtype=np.float32)
        flags = np.empty((3, len(chosen)), dtype=np.bool_)
        slots = self._slots[chosen]
        if (slots < 0).any():
            raise PgkitError(f"environment {self._id!r}: reset(seeds) must come before the first step")
        for number, pool in self._pools.items():
            own = slots[:, 0] == number
            rows = slice(None) if own.all() else np.flatnonzero(own)
            places = slots[rows, 1].astype(np.int32)
            if len(places):
                seen, reward[rows], flags[0, rows], flags[1, rows], _ = pool.step(actions[rows], places)
                obs[rows] = self._flat(len(places))(seen)
        flags[2] = ~self._over[chosen]
        self._over[chosen] = flags[0] | flags[1]
        return Transition(self._tensor(obs), self._tensor(reward), *self._tensor(flags).unbind(0))

    def resume_problem(self) -> str:
        return f"EnvPool cannot save an environment ({self._id}); env.backend=gymnasium can"

    def state(self, index: Tensor | None = None) -> None:
        return None

    def restore(self, state: Mapping[str, Tensor], index: Tensor | None = None) -> None:
        raise PgkitError(self.resume_problem())

    def close(self) -> None:
        for pool in self._pools.values():
            pool.close()
        self._pools = {}

    def _make(self, seeds: list[int]) -> Any:
        if not installed():
            raise PgkitError("env.backend 'envpool' needs the package envpool: pip install 'pgkit-rl[envpool]'")
        import envpool

        try:
            with warnings.catch_warnings():  # EnvPool declares spaces in float64, Gymnasium warns of the cast
                warnings.simplefilter("ignore")
                pool = envpool.make(self._id, env_type="gymnasium", num_envs=len(seeds), seed=seeds, **self._options)
                _ = pool.single_observation_space
        except (AssertionError, TypeError, ValueError) as error:
            message = " ".join(str(error).split())
            raise PgkitError(f"EnvPool cannot make {self._id!r} with {self._options}: {message}") from error
        return pool

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self.info.device)


def _flattener(space: "Space[Any]") -> Callable[[int], Flatten]:
    """By the number of environments, the function that flattens their observations."""
    from gymnasium.vector.utils import batch_space

    return lru_cache(lambda count: flatten_batch(space, partial(batch_space, space, count), count))


def _fold(seed: int) -> int:
    """64 bits to the 31 of EnvPool's seeds; small seeds stay what they are."""
    return (seed ^ seed >> 31 ^ seed >> 62) & 0x7FFFFFFF
