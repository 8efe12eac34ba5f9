"""Any ``gymnasium.vector.VectorEnv``, in each of Gymnasium's three autoreset modes."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import torch
from torch import Tensor

from pgkit.envs.base import Autoreset, EnvInfo, Transition, check_seeds
from pgkit.envs.errors import ENV_EXCEPTIONS, env_error
from pgkit.envs.spaces import action_shape, actions_for, check_action, flatten_batch, flatten_one, observation_size
from pgkit.errors import PgkitError

if TYPE_CHECKING:
    from gymnasium.vector import VectorEnv


def wrap_vector_env(
    vector: "VectorEnv", *, name: str | None = None, device: torch.device | str = "cpu"
) -> "VectorEnvs":
    """pgkit's view of a vector environment made elsewhere; it is closed with the result.

    Args:
        vector: it must declare its autoreset mode in ``metadata["autoreset_mode"]``, as Gymnasium 1.1 and later ask.
        name: for messages and records; None for the id of its registration, or its class.
        device: where observations and rewards go.

    Raises:
        PgkitError: unsupported spaces, or no declared autoreset mode.
    """
    return VectorEnvs(vector, name or _name(vector), torch.device(device))


class VectorEnvs:
    """The K sub-environments of a vector environment, which steps them all at once or not at all.

    Its sub-environments have a stream each if its ``reset`` takes a list of seeds (``SyncVectorEnv`` and
    ``AsyncVectorEnv`` do). One that takes a single seed gets one made of all: it is reproducible as a whole only.
    """

    def __init__(self, vector: "VectorEnv", name: str, device: torch.device) -> None:
        self._vector = vector
        obs_space, action_space = vector.single_observation_space, vector.single_action_space
        count = vector.num_envs
        self.info = EnvInfo(
            name=name,
            num_envs=count,
            obs_dim=observation_size(obs_space, name),
            action_space=action_space,
            autoreset=_autoreset(vector, name),
            max_episode_steps=vector.spec.max_episode_steps if vector.spec else None,
            backend="gymnasium",
            vectorization=_vectorization(vector),
            device=device,
            can_step_subset=False,
        )
        self._action_shape = action_shape(action_space, name)
        self._actions = actions_for(action_space)
        self._flatten_one = flatten_one(obs_space)
        self._flatten = flatten_batch(obs_space, lambda: vector.observation_space, count)
        dtype = torch.float32 if np.issubdtype(action_space.dtype, np.floating) else torch.int64
        self._last_action = torch.zeros(count, *self._action_shape, dtype=dtype)
        self._over = np.zeros(count, dtype=np.bool_)

    def reset(self, seeds: Sequence[int], index: Tensor | None = None) -> Tensor:
        if index is not None and not torch.equal(index.cpu(), torch.arange(self.info.num_envs)):
            raise PgkitError(
                f"environment {self.info.name!r}: a wrapped vector environment resets as a whole (no index)"
            )
        numbers = check_seeds(seeds, None, self.info.num_envs)
        self._over[:] = False
        try:
            obs = self._flatten(self._reset(numbers))
            self._check_shapes(obs)
        except ENV_EXCEPTIONS as error:
            raise env_error(self.info.name, "reset() of the vector environment", error) from error
        return self._tensor(obs)

    def step(self, action: Tensor, index: Tensor | None = None) -> Transition:
        if index is not None:
            check_action(action, len(index), self._action_shape)
            self._last_action[index.cpu()] = action.cpu().to(self._last_action.dtype)
            return _select(self.step(self._last_action), index)
        check_action(action, self.info.num_envs, self._action_shape)
        self._last_action = action.cpu().clone()
        actions = np.asarray(self._actions(action), dtype=self._vector.action_space.dtype)
        try:
            obs, reward, terminated, truncated, infos = self._vector.step(actions)
            obs, reward = self._flatten(obs), np.array(reward, dtype=np.float32)
            terminated, truncated = np.array(terminated, dtype=np.bool_), np.array(truncated, dtype=np.bool_)
            self._check_shapes(obs, reward, terminated, truncated)
        except ENV_EXCEPTIONS as error:
            raise env_error(self.info.name, "step() of the vector environment", error) from error
        valid, final_obs = np.ones_like(terminated), None
        if self.info.autoreset == "next_step":
            valid = ~self._over
            reward, terminated, truncated = reward * valid, terminated & valid, truncated & valid
            self._over = terminated | truncated
        else:
            obs, final_obs = self._begin_next(obs, terminated | truncated, infos)
        return Transition(
            obs=self._tensor(obs),
            reward=self._tensor(reward),
            terminated=self._tensor(terminated),
            truncated=self._tensor(truncated),
            valid=self._tensor(valid),
            final_obs=None if final_obs is None else self._tensor(final_obs),
        )

    def resume_problem(self) -> str:
        return f"the vector environment {self.info.name!r} was made elsewhere and cannot be saved"

    def state(self, index: Tensor | None = None) -> None:
        return None

    def restore(self, state: Mapping[str, Tensor], index: Tensor | None = None) -> None:
        raise PgkitError(self.resume_problem())

    def close(self) -> None:
        self._vector.close()

    def _check_shapes(self, obs: np.ndarray, *others: np.ndarray) -> None:
        count, width = self.info.num_envs, self.info.obs_dim
        if obs.shape != (count, width) or any(other.shape != (count,) for other in others):
            given = ", ".join(str(array.shape) for array in (obs, *others))
            raise ValueError(f"arrays of shape {given}, expected ({count}, {width}){f', ({count},)' * len(others)}")

    def _begin_next(self, obs: np.ndarray, over: np.ndarray, infos: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        """The first observations of new episodes where one is over, and the true next observations everywhere."""
        if not over.any():
            return obs, obs.copy()
        if self.info.autoreset == "disabled":
            return self._flatten(self._vector.reset(options={"reset_mask": over})[0]), obs
        if "final_obs" not in infos:
            raise PgkitError(f"environment {self.info.name!r}: autoreset is SAME_STEP, but info has no 'final_obs'")
        final, true = infos["final_obs"], obs.copy()
        if isinstance(final, np.ndarray) and final.dtype == np.object_:  # one observation each, None where none ended
            for k in np.flatnonzero(over):
                true[k] = self._flatten_one(final[k])
        else:
            true[over] = self._flatten(final)[over]
        return obs, true

    def _reset(self, seeds: list[int]) -> Any:
        from gymnasium.error import Error

        try:
            return self._vector.reset(seed=cast(Any, seeds))[0]
        except (Error, TypeError, ValueError):  # it takes a single seed
            return self._vector.reset(seed=int(np.random.SeedSequence(seeds).generate_state(1)[0]))[0]

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self.info.device)


def _select(result: Transition, index: Tensor) -> Transition:
    obs, reward, terminated, truncated, valid = (field[index] for field in result[:5])
    final_obs = None if result.final_obs is None else result.final_obs[index]
    return Transition(obs, reward, terminated, truncated, valid, final_obs)


def _autoreset(vector: "VectorEnv", name: str) -> Autoreset:
    from gymnasium.vector import AutoresetMode

    modes: dict[AutoresetMode, Autoreset] = {
        AutoresetMode.NEXT_STEP: "next_step",
        AutoresetMode.SAME_STEP: "same_step",
        AutoresetMode.DISABLED: "disabled",
    }
    declared = vector.metadata.get("autoreset_mode")
    try:
        return modes[AutoresetMode(declared)]
    except ValueError:
        allowed = ", ".join(f"AutoresetMode.{mode.name}" for mode in modes)
        raise PgkitError(
            f"vector environment {name!r}: metadata['autoreset_mode'] is {declared!r}, expected one of {allowed}"
        ) from None


def _vectorization(vector: "VectorEnv") -> Literal["sync", "async", "native"]:
    from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv

    if isinstance(vector.unwrapped, SyncVectorEnv):
        return "sync"
    return "async" if isinstance(vector.unwrapped, AsyncVectorEnv) else "native"


def _name(vector: "VectorEnv") -> str:
    return vector.spec.id if vector.spec else type(vector.unwrapped).__name__
