"""What an environment observes and takes, and the conversions to what networks see."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pgkit.config.schema import TrainConfig
from pgkit.envs.actions import action_converter, action_rows
from pgkit.envs.base import EnvInfo
from pgkit.envs.errors import MalformedData
from pgkit.envs.make import resolve_backend
from pgkit.envs.observations import ObsFlattener, network_space, obs_flattener
from pgkit.envs.rescale import far_components, rescaling
from pgkit.envs.squash import squashed
from pgkit.errors import PgkitError
from pgkit.training.population import build_envs

if TYPE_CHECKING:
    from gymnasium import Space


@dataclass(frozen=True)
class PolicySpaces:
    """The spaces of an environment, and how a policy sees them.

    Attributes:
        info: of the environment as the learner sees it; ``info.action_space`` is what the networks choose from.
        observation: Gymnasium's space of one observation.
        action: Gymnasium's space of one action, as the environment takes it.
        squashes: whether the learner's actions are those before tanh (:mod:`pgkit.envs.squash`).
    """

    info: EnvInfo
    observation: "Space[Any]"
    action: "Space[Any]"
    squashes: bool = False

    @property
    def rescales(self) -> bool:
        """Whether some components of an action range from -1 to 1 for the learner (:mod:`pgkit.envs.rescale`)."""
        is_scaled = not self.squashes and self.info.action_space != self.action
        return bool(is_scaled and far_components(self.action).any())

    @cached_property
    def convert_actions(self) -> Callable[[Tensor], np.ndarray]:
        """The function from the learner's actions ``(K, ...)`` to K actions of the environment, as in evaluations."""
        convert = action_converter(self.info.action_space)
        space: Any = self.action
        if self.squashes:
            return lambda action: squashed(convert(action), space)
        if not self.rescales:
            return convert
        rescale = rescaling(self.action)
        return lambda action: rescale(convert(action))

    @cached_property
    def _flatten_one(self) -> ObsFlattener:
        return obs_flattener(self.observation)

    def first_action(self, actions: np.ndarray) -> Any:
        """The first of K actions, as the environment takes it: a NumPy scalar of Discrete, else an array."""
        return next(iter(action_rows(self.action, actions)))

    def flatten(self, observation: Any) -> tuple[np.ndarray, bool]:
        """Observations ``(K, D)`` float32, and whether they are a batch; one alone has K = 1.

        Args:
            observation: one or a batch, as the environment or a vector of them returns it: arrays, tensors, numbers,
                or dicts and tuples of these.

        Raises:
            PgkitError: it is no observation of the space.
        """
        arrays = _as_arrays(observation)
        is_batch = _is_batch(self.observation, arrays)
        try:
            rows = [arrays] if not is_batch else [_row(arrays, k) for k in range(_batch_size(arrays))]
            flat = [np.asarray(self._flatten_one(row), dtype=np.float32) for row in rows]
        except (MalformedData, IndexError, ValueError) as error:
            raise PgkitError(f"{error} (one observation of {self.info.name}, or a batch of them)") from None
        return np.stack(flat) if flat else np.zeros((0, self.info.obs_dim), dtype=np.float32), is_batch


def find_spaces(config: TrainConfig, device: torch.device) -> PolicySpaces:
    """The spaces of a configuration's environment; instances of it are created and closed.

    Raises:
        PgkitError: it cannot be created.
    """
    env = config.env
    backend = resolve_backend(env.id, env.kwargs, env.backend, env.vectorization, env.wrappers)
    info = _info(config, device, backend=backend, vectorization="sync")  # no process for a look at the spaces
    unsquashed = config.model_copy(update={"policy": config.policy.model_copy(update={"squash_output": False})})
    as_it_is = _info(unsquashed, device, backend=backend, vectorization="sync", rescale_actions=False)
    observation = info.observation_space or network_space(None, info.obs_dim)
    return PolicySpaces(info, observation, as_it_is.action_space, config.policy.squash_output)


def _info(config: TrainConfig, device: torch.device, **changes: Any) -> EnvInfo:
    """What an environment says of itself, with changes of its settings."""
    changed = config.model_copy(update={"env": config.env.model_copy(update=changes)})
    envs = build_envs(changed, 1, device)
    envs.close()
    return envs.info


def _as_arrays(observation: Any) -> Any:
    """An observation with arrays in place of tensors and lists of numbers."""
    if isinstance(observation, Mapping):
        return {key: _as_arrays(part) for key, part in observation.items()}
    if isinstance(observation, tuple):
        return tuple(_as_arrays(part) for part in observation)
    if isinstance(observation, Tensor):
        return observation.detach().cpu().numpy()
    return np.asarray(observation)


def _is_batch(space: "Space[Any]", observation: Any) -> bool:
    """Whether the arrays of an observation have an axis more than the space."""
    from gymnasium import spaces

    if isinstance(space, (spaces.Dict, spaces.Tuple)):
        parts: Any = space.spaces
        key = next(iter(parts)) if isinstance(parts, Mapping) else 0
        try:
            return _is_batch(parts[key], observation[key])
        except (KeyError, IndexError, TypeError):
            return False  # it is malformed, which flattening explains
    return bool(np.ndim(observation) > len(space.shape or ()))


def _batch_size(observation: Any) -> int:
    while isinstance(observation, (Mapping, tuple)):
        observation = next(iter(observation.values() if isinstance(observation, Mapping) else observation))
    return len(observation)


def _row(observation: Any, k: int) -> Any:
    """Observation k of a batch."""
    if isinstance(observation, Mapping):
        return {key: _row(part, k) for key, part in observation.items()}
    if isinstance(observation, tuple):
        return tuple(_row(part, k) for part in observation)
    return observation[k]
