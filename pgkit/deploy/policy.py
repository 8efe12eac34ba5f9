"""One trained policy: actions for observations."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pgkit.config.load import to_toml
from pgkit.config.schema import TrainConfig
from pgkit.deploy.module import PolicyModule, acting_params
from pgkit.deploy.spaces import PolicySpaces
from pgkit.envs import normalize
from pgkit.envs.action_masks import KEY
from pgkit.errors import PgkitError, format_value
from pgkit.nn.action_masks import append_mask
from pgkit.nn.policy import Policy
from pgkit.seeding import stream_seed, uniform
from pgkit.system.files import absolute
from pgkit.system.tensor_files import save_tensors
from pgkit.types import Params


@dataclass(eq=False)
class TrainedPolicy:
    """A trained member of a run: see :func:`pgkit.load`.

    >>> import numpy as np
    >>> import pgkit
    >>> policy = pgkit.load(pgkit.pretrained.path("cartpole-ppo"))
    >>> falling = np.array([[0.0, 0.0, 0.1, 0.5], [0.0, 0.0, -0.1, -0.5]])  # two observations
    >>> policy.predict(falling, deterministic=True)[0]
    array([1, 0])
    >>> logits, action = policy.to_module()(policy.flatten(falling))
    >>> logits.shape, action
    (torch.Size([2, 2]), tensor([1, 0]))

    Attributes:
        config: the member's configuration.
        policy: the networks and the action distribution.
        params: leaves ``(1, ...)``.
        obs_stats: statistics that observations are normalized with, leaves ``(1, ...)``; None if they are not.
        spaces: what the environment observes and takes.
        source: where the policy is from, for people.
    """

    config: TrainConfig
    policy: Policy
    params: Params
    obs_stats: normalize.Stats | None
    spaces: PolicySpaces
    source: str
    _key: Tensor = field(init=False, repr=False)
    _counter: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.set_random_seed(0)

    def set_random_seed(self, seed: int) -> None:
        """Restart the random numbers that sampled actions are drawn with.

        Raises:
            PgkitError: the seed is no whole number of at least 0.
        """
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise PgkitError(f"seed must be a whole number of at least 0, got {format_value(seed)}")
        key = np.array([stream_seed(self.config.seed, "predict_action", seed)], dtype=np.uint64).view(np.int64)
        self._key = torch.from_numpy(key).to(self.spaces.info.device)
        self._counter = 0

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
        action_masks: Any = None,
    ) -> tuple[Any, Any]:
        """Choose actions, as ``predict`` of Stable-Baselines3 does.

        Observations are flattened and normalized as in training; actions are clipped and rescaled as in pgkit's own
        evaluation, which takes the same deterministic actions.

        Args:
            observation: one observation, or a batch of them with one more axis, in the environment's form: NumPy
                arrays, tensors, numbers, or dicts and tuples of these.
            state: memory of a recurrent policy, ``(K, M)``, which the last call returned; None at the first step of
                episodes. Others return it as it is.
            episode_start: bool ``(K,)``, where a recurrent policy forgets its memory; others ignore it.
            deterministic: take the most likely actions instead of sampled ones.
            action_masks: ``(K, M)``, or ``(M,)`` for one observation: 1 for each choice that is allowed, 0 for the
                others, as in sb3-contrib. Masks that are part of the observation are found there.

        Returns:
            One action in the environment's form, or an array of K actions ``(K, ...)``, with the NumPy type of the
            action space; and the state.

        Raises:
            PgkitError: it is no observation of the environment, or a mask or state does not fit.
        """
        rows, is_batch = self.spaces.flatten(observation)
        obs = self._normalized(torch.from_numpy(rows).to(self.spaces.info.device)[None])
        if action_masks is None and isinstance(observation, Mapping) and self.config.env.action_mask:
            action_masks = observation.get(KEY)
        if action_masks is not None:
            obs = append_mask(obs, self._masks(action_masks, len(rows)))
        with torch.no_grad():
            memory = self._memory(state, episode_start, len(rows))
            outputs, memory = self.policy.step(self.params, obs, memory)
            head = self.policy.head
            action = head.mode(outputs) if deterministic else head.sample(outputs, self._noise(len(rows)))
        actions = self.spaces.convert_actions(action[0])
        if self.policy.memory:
            state = memory[0].numpy(force=True)
        return (actions if is_batch else self.spaces.first_action(actions)), state

    def to_module(self) -> PolicyModule:
        """Return the policy as a plain ``torch.nn.Module`` with its own copy of the parameters.

        Its input are observations ``(B, D)``, flattened but not normalized; see :class:`PolicyModule` for its outputs.
        """
        return PolicyModule(self.policy, self.params, self.obs_stats, self.spaces).to(self.spaces.info.device).eval()

    def flatten(self, observation: Any) -> Tensor:
        """Return one observation, or a batch of them, as :meth:`to_module` takes it: ``(K, D)`` float32.

        Raises:
            PgkitError: it is no observation of the environment.
        """
        return torch.from_numpy(self.spaces.flatten(observation)[0])

    def save(self, path: str | Path, about: Mapping[str, str] | None = None) -> None:
        """Write what acting needs to a safetensors file, which :func:`pgkit.load` reads: no critic, no optimizer.

        Args:
            path: of the file, ``.safetensors``.
            about: further texts beside the configuration and pgkit's version.

        Raises:
            PgkitError: the path does not end in ``.safetensors``, or the system refuses to write.
        """
        from importlib.metadata import version

        target = absolute(Path(path))
        if target.suffix != ".safetensors":
            raise PgkitError(f"the path of a policy must end in .safetensors, got {path}")
        tensors = {f"params.{name}": leaf[0] for name, leaf in acting_params(self.params).items()}
        tensors |= {f"obs_stats.{name}": leaf[0] for name, leaf in (self.obs_stats or {}).items()}
        texts = {"config": to_toml(self.config), "pgkit_version": version("pgkit-rl")}
        save_tensors(target, tensors, texts | dict(about or {}))

    def _normalized(self, obs: Tensor) -> Tensor:
        return obs if self.obs_stats is None else normalize.apply(self.obs_stats, obs)

    def _masks(self, action_masks: Any, count: int) -> Tensor:
        """Action masks ``(1, K, M)``."""
        size = sum(self.policy.head.choices)
        masks = torch.as_tensor(np.asarray(action_masks), device=self.spaces.info.device)
        if not size:
            raise PgkitError(f"action_masks have no effect on the actions of {self.spaces.action}")
        if masks.numel() != count * size:
            raise PgkitError(f"action_masks must be {(count, size)}, got {tuple(masks.shape)}")
        return masks.view(1, count, size)

    def _memory(self, state: Any, episode_start: Any, count: int) -> Tensor:
        """The memory ``(1, K, M)`` that a step begins with."""
        memory = torch.zeros(1, count, self.policy.memory, device=self.spaces.info.device)
        if not self.policy.memory:
            return memory
        if state is not None:
            if np.shape(state) != memory.shape[1:]:
                raise PgkitError(
                    f"state must be what predict returned, {tuple(memory.shape[1:])}, got {np.shape(state)}"
                )
            memory = torch.as_tensor(state, dtype=memory.dtype, device=memory.device)[None]
        if episode_start is not None:
            begins = torch.as_tensor(np.reshape(episode_start, (1, -1, 1)), dtype=torch.bool, device=memory.device)
            memory = torch.where(begins, 0.0, memory)
        return memory

    def _noise(self, count: int) -> Tensor:
        """The next uniform numbers for this many actions, ``(1, K, noise)``."""
        noise = self.policy.head.noise
        index = torch.arange(self._counter, self._counter + count * noise, device=self._key.device)
        self._counter += count * noise
        return uniform(self._key, index).view(1, count, noise)
