"""Any ``gymnasium.vector.VectorEnv``, in each of Gymnasium's three autoreset modes."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import torch
from torch import Tensor

from pgkit.envs.actions import action_converter, action_shape, check_action
from pgkit.envs.base import Autoreset, EnvInfo, Transition, check_seeds
from pgkit.envs.errors import MalformedData, env_error
from pgkit.envs.observations import batch_flattener, is_numeric, obs_flattener, observation_size, shown
from pgkit.envs.seeding import SEED_ERRORS, fold_seed
from pgkit.errors import PgkitError

if TYPE_CHECKING:
    from gymnasium.vector import VectorEnv


def wrap_vector_env(
    vector_env: "VectorEnv", *, name: str | None = None, device: torch.device | str = "cpu"
) -> "VectorEnvs":
    """Give a vector environment of Gymnasium's the interface of :class:`pgkit.envs.Environments`.

    All sub-environments step together. If ``reset`` of the vector environment takes a list of seeds (as those of
    ``SyncVectorEnv`` and ``AsyncVectorEnv`` do), each sub-environment is a function of its own seed. If it takes a
    single seed, that seed is derived from all of them, and only the whole is reproducible.

    Args:
        vector_env: a vector environment that declares its autoreset mode in ``metadata["autoreset_mode"]``, as
            Gymnasium asks since 1.1. Closing the result closes it.
        name: name for messages and records; default: the id of its registration, or the name of its class.
        device: device of observations, rewards and flags.

    Raises:
        PgkitError: unsupported observation or action space, or no declared autoreset mode.

    Example:
        >>> import gymnasium
        >>> from pgkit.envs import wrap_vector_env
        >>> vector_env = gymnasium.make_vec("Acrobot-v1", num_envs=2, vectorization_mode="sync")
        >>> envs = wrap_vector_env(vector_env)
        >>> envs.reset([0, 1]).shape
        torch.Size([2, 6])
        >>> envs.close()
    """
    return VectorEnvs(vector_env, name or _default_name(vector_env), torch.device(device))


class VectorEnvs:
    """The K sub-environments of a vector environment, see :func:`wrap_vector_env`."""

    def __init__(self, vector_env: "VectorEnv", name: str, device: torch.device) -> None:
        obs_space = vector_env.single_observation_space
        action_space = vector_env.single_action_space
        num_envs = vector_env.num_envs
        self._vector_env = vector_env
        self.info = EnvInfo(
            name=name,
            num_envs=num_envs,
            obs_dim=observation_size(obs_space, name),
            action_space=action_space,
            autoreset=_autoreset(vector_env, name),
            max_episode_steps=vector_env.spec.max_episode_steps if vector_env.spec else None,
            backend="gymnasium",
            vectorization=_vectorization(vector_env),
            device=device,
            can_step_subset=False,
            observation_space=obs_space,
        )
        self._action_shape = action_shape(action_space, name)
        self._convert_actions = action_converter(action_space)
        self._flatten_one = obs_flattener(obs_space)
        self._flatten = batch_flattener(obs_space, lambda: vector_env.observation_space, num_envs)
        dtype = torch.float32 if np.issubdtype(action_space.dtype, np.floating) else torch.int64
        self._last_action = torch.zeros(num_envs, *self._action_shape, dtype=dtype)
        self._over = np.zeros(num_envs, dtype=np.bool_)  # with "next_step": the next step is a reset

    def reset(self, seeds: Sequence[int], index: Tensor | None = None) -> Tensor:
        if index is not None and not torch.equal(index.cpu(), torch.arange(self.info.num_envs)):
            raise PgkitError(
                f"environment {self.info.name!r}: a wrapped vector environment resets as a whole: leave out index"
            )
        integers = check_seeds(seeds, None, self.info.num_envs)
        self._over[:] = False
        try:
            obs = self._flatten(self._reset(integers))
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise env_error(self.info.name, "reset() of the vector environment", error) from error
        return self._tensor(obs)

    def step(self, action: Tensor, index: Tensor | None = None) -> Transition:
        if index is not None:
            check_action(action, len(index), self._action_shape)
            self._last_action[index.cpu()] = action.cpu().to(self._last_action.dtype)
            return _select(self.step(self._last_action), index)
        check_action(action, self.info.num_envs, self._action_shape)
        self._last_action = action.cpu().clone()
        obs, reward, terminated, truncated, infos = self._step(action)
        valid = np.ones_like(terminated)
        final_obs = None
        if self.info.autoreset == "next_step":
            # Some vector environments report rewards and flags of their reset steps, which are steps of no episode.
            valid = ~self._over
            reward = reward * valid
            terminated = terminated & valid
            truncated = truncated & valid
            self._over = terminated | truncated
        else:
            obs, final_obs = self._split_final_obs(obs, terminated | truncated, infos)
        return Transition(
            obs=self._tensor(obs),
            reward=self._tensor(reward),
            terminated=self._tensor(terminated),
            truncated=self._tensor(truncated),
            valid=self._tensor(valid),
            final_obs=None if final_obs is None else self._tensor(final_obs),
        )

    def state(self, index: Tensor | None = None) -> None:
        return None

    def restore(self, state: Mapping[str, Tensor], index: Tensor | None = None) -> None:
        raise PgkitError(f"the vector environment {self.info.name!r} was created elsewhere and cannot be saved")

    def close(self) -> None:
        self._vector_env.close()

    def _reset(self, seeds: list[int]) -> Any:
        from gymnasium.error import Error

        for integers in (seeds, [fold_seed(seed) for seed in seeds]):
            with suppress(Error, *SEED_ERRORS):  # it refuses such seeds: try the next way; the last one raises
                return self._vector_env.reset(seed=cast(Any, integers))[0]
        seed = int(np.random.SeedSequence(seeds).generate_state(1)[0])  # it takes a single seed
        return self._vector_env.reset(seed=seed)[0]

    def _step(self, action: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step the vector environment; its results as new arrays ``(K, D)`` and ``(K,)``, and its infos."""
        actions = self._convert_actions(action).astype(self._vector_env.action_space.dtype, copy=False)
        try:
            raw_obs, raw_reward, raw_terminated, raw_truncated, infos = self._vector_env.step(actions)
            obs = self._flatten(raw_obs)
            self._check("the rewards", raw_reward)
            self._check("terminated", raw_terminated)
            self._check("truncated", raw_truncated)
            reward = np.array(raw_reward, dtype=np.float32)
            terminated = np.array(raw_terminated, dtype=np.bool_)
            truncated = np.array(raw_truncated, dtype=np.bool_)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise env_error(self.info.name, "step() of the vector environment", error) from error
        return obs, reward, terminated, truncated, infos

    def _check(self, name: str, values: Any) -> None:
        """Raise :class:`MalformedData` unless rewards or flags are one number for each sub-environment."""
        array = np.asarray(values)
        if array.shape != (self.info.num_envs,) or not is_numeric(array):
            raise MalformedData(f"{name} are {shown(values)}, expected numbers of shape ({self.info.num_envs},)")

    def _split_final_obs(
        self, obs: np.ndarray, over: np.ndarray, infos: dict[str, Any]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Observations to act on (of new episodes where one is over) and the true next observations, both ``(K, D)``.

        With SAME_STEP, ``obs`` holds the former and ``infos["final_obs"]`` the latter. With DISABLED, ``obs`` holds
        the latter, and the environments that are over have to be reset.
        """
        if not over.any():
            return obs, obs.copy()
        if self.info.autoreset == "disabled":
            return self._flatten(self._vector_env.reset(options={"reset_mask": over})[0]), obs
        if "final_obs" not in infos:
            raise PgkitError(f"environment {self.info.name!r}: autoreset is SAME_STEP, but info has no 'final_obs'")
        final = infos["final_obs"]
        final_obs = obs.copy()
        if isinstance(final, np.ndarray) and final.dtype == np.object_:  # one observation each, None where none ended
            for k in np.flatnonzero(over):
                final_obs[k] = self._flatten_one(final[k])
        else:
            final_obs[over] = self._flatten(final)[over]
        return obs, final_obs

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self.info.device)


def _select(transition: Transition, index: Tensor) -> Transition:
    """The rows ``index`` of a transition."""
    obs, reward, terminated, truncated, valid = (field[index] for field in transition[:5])
    final_obs = None if transition.final_obs is None else transition.final_obs[index]
    return Transition(obs, reward, terminated, truncated, valid, final_obs)


def _autoreset(vector_env: "VectorEnv", name: str) -> Autoreset:
    from gymnasium.vector import AutoresetMode

    modes: dict[AutoresetMode, Autoreset] = {
        AutoresetMode.NEXT_STEP: "next_step",
        AutoresetMode.SAME_STEP: "same_step",
        AutoresetMode.DISABLED: "disabled",
    }
    declared = vector_env.metadata.get("autoreset_mode")
    try:
        return modes[AutoresetMode(declared)]
    except ValueError:
        allowed = ", ".join(f"AutoresetMode.{mode.name}" for mode in modes)
        raise PgkitError(
            f"vector environment {name!r}: metadata['autoreset_mode'] is {declared!r}, expected one of {allowed}"
        ) from None


def _vectorization(vector_env: "VectorEnv") -> Literal["sync", "async", "native"]:
    from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv

    if isinstance(vector_env.unwrapped, SyncVectorEnv):
        return "sync"
    return "async" if isinstance(vector_env.unwrapped, AsyncVectorEnv) else "native"


def _default_name(vector_env: "VectorEnv") -> str:
    return vector_env.spec.id if vector_env.spec else type(vector_env.unwrapped).__name__
