"""The interface of environments: K sub-environments behind one object, each with its own random stream.

In a population of P members with N environments each, sub-environments are member-major:
``index = member * N + n``, K = P * N. All tensors live on ``info.device``.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from pgkit.errors import PgkitError

if TYPE_CHECKING:
    from gymnasium import Space

Autoreset = Literal["next_step", "same_step", "disabled"]
"""What follows the last step of an episode, in Gymnasium's words (``gymnasium.vector.AutoresetMode``)."""


LONGEST_EPISODE = 108_000
"""Steps that an episode without a time limit may take: as many as the frames of one of Atari's, the longest there are.
A policy that never ends an episode would otherwise act for ever."""


@dataclass(frozen=True)
class EnvInfo:
    """Static description of the sub-environments, which are all alike.

    Attributes:
        name: the environment's id.
        num_envs: K, the number of sub-environments.
        obs_dim: D, the number of features of a flattened observation.
        action_space: Gymnasium's space of one sub-environment's actions.
        autoreset: what follows the last step of an episode, see :class:`Transition`.
        max_episode_steps: time limit in steps; None if there is none, or if it is unknown.
        backend: the implementation: "gymnasium", "pgkit" or "envpool".
        vectorization: "sync" (a loop in this process), "async" (worker processes) or "native" (vectorized code).
        device: device of all tensors that go in and come out.
        observation_space: Gymnasium's space of one observation; None if it is D numbers.
        can_step_subset: whether ``step(action, index)`` leaves the other sub-environments untouched. If False, all
            sub-environments step (the others repeat their last action) and only the results are selected.

    Example:
        >>> from pgkit.envs import make_envs
        >>> info = make_envs("CartPole-v1", 3).info
        >>> info.num_envs, info.obs_dim, info.max_episode_steps, info.backend
        (3, 4, 500, 'pgkit')
    """

    name: str
    num_envs: int
    obs_dim: int
    action_space: "Space[Any]"
    autoreset: Autoreset
    max_episode_steps: int | None
    backend: Literal["gymnasium", "pgkit", "envpool"]
    vectorization: Literal["sync", "async", "native"]
    device: torch.device
    can_step_subset: bool
    observation_space: "Space[Any] | None" = None

    @property
    def longest_episode(self) -> int:
        """Steps after which an episode that has not ended is given up: a time limit ends it before."""
        return max(LONGEST_EPISODE, self.max_episode_steps or 0)


class Transition(NamedTuple):
    """One step of k sub-environments. The tensors are new at every step and belong to the caller.

    Attributes:
        obs: ``(k, D)`` float32, the observation that the next action is chosen from; ``(k, D + M)`` where environments
            give action masks, see :mod:`pgkit.nn.action_masks`.
        reward: ``(k,)`` float32.
        terminated: ``(k,)`` bool, True where the task ended.
        truncated: ``(k,)`` bool, True where a time limit cut the episode. If both are True, the episode terminated.
        valid: ``(k,)`` bool. False marks the reset step that follows an episode with "next_step" autoreset: the
            action was ignored, the reward is 0, and ``obs`` is the first observation of the new episode.
        final_obs: ``(k, D)`` float32, the true next observation of this step; it differs from ``obs`` where an
            episode ended. None with "next_step", where ``obs`` itself is the true next observation.

    Example:
        >>> import torch
        >>> from pgkit.envs import make_envs
        >>> envs = make_envs("CartPole-v1", 2, max_episode_steps=1)
        >>> obs = envs.reset([0, 1])
        >>> [envs.step(torch.tensor([0, 1])).valid.tolist() for _ in range(3)]  # step, reset step, step
        [[True, True], [False, False], [True, True]]
    """

    obs: Tensor
    reward: Tensor
    terminated: Tensor
    truncated: Tensor
    valid: Tensor
    final_obs: Tensor | None = None


class Elementwise(NamedTuple):
    """The step of one environment as a function of scalars, so that pgkit compiles whole rollouts of it.

    An environment with "next_step" autoreset offers it as an attribute ``elementwise``. The function is traced by
    :mod:`pgkit.compiler.tracer`: it may use arithmetic, comparisons and the functions of torch that the tracer knows.

    Attributes:
        step: ``step(*action, *state, *constants) -> [*state, *obs, reward, terminated, truncated, valid]`` of one
            environment. The action is one int64 (Discrete), or A float32 components (Box), which the step clips to the
            space's bounds. The D features of the observation and the reward are float32.
        state: tensors ``(K,)`` that a step changes in place: they are never reallocated.
        constants: tensors ``(K,)`` that a step only reads; they are never reallocated either.
    """

    step: Callable[..., list[Any]]
    state: Sequence[Tensor]
    constants: Sequence[Tensor]


class EnvKernel(NamedTuple):
    """The step of a block of environments as a compiled function, for environments that are more than one element.

    An environment with "next_step" autoreset offers it as an attribute ``kernel``, so that whole rollouts of it are
    compiled. What a step does is up to the function: loops, branches, vectors of environments.

    Attributes:
        define: adds a function of :class:`pgkit.envs.signature.EnvStepArguments` to an LLVM module and returns it. The
            same object for the same code: compiled rollouts are cached by it.
        state: contiguous tensors ``(K, ...)`` that a step changes in place: they are never reallocated.
        constants: there are none; an environment's settings are part of the code or of the state.
    """

    define: Callable[[Any], Any]
    state: Sequence[Tensor]
    constants: Sequence[Tensor] = ()


CompiledEnvs = Elementwise | EnvKernel
"""Environments whose rollouts are compiled, in one of two forms."""


class Environments(Protocol):
    """K sub-environments with the interface of Gymnasium's vector environments, on tensors.

    :meth:`reset` must seed every sub-environment once before its first step. Each sub-environment is a function of
    its seed and its actions alone: it behaves the same whatever else is in the batch.
    """

    @property
    def info(self) -> EnvInfo:
        """Static description: sizes, action space, backend."""
        ...

    def reset(self, seeds: Sequence[int], index: Tensor | None = None) -> Tensor:
        """Seed sub-environments and start an episode in each.

        Args:
            seeds: one integer from 0 to 2**64 - 1 for each of the k sub-environments.
            index: ``(k,)`` int64, the sub-environments to reset; None for all, in order. Others are untouched.

        Returns:
            ``(k, D)`` float32, the first observations; ``(k, D + M)`` with action masks.

        Raises:
            PgkitError: the number of seeds does not match, or a seed is out of range.
            EnvError: the environment fails.
        """
        ...

    def step(self, action: Tensor, index: Tensor | None = None) -> Transition:
        """Step sub-environments once.

        Args:
            action: ``(k,)`` int64 from 0 on (Discrete), ``(k, A)`` int64 (MultiDiscrete, MultiBinary), or ``(k, A)``
                float (Box), which is clipped to the space's bounds.
            index: ``(k,)`` int64 without repetition, the sub-environments to step; None for all, in order.

        Raises:
            PgkitError: the action has the wrong shape, or a sub-environment has not been reset yet.
            EnvError: the environment fails.
        """
        ...

    def state(self, index: Tensor | None = None) -> dict[str, Tensor] | None:
        """All that is needed to continue in another process: tensors of leading axis k; None if that is impossible."""
        ...

    def restore(self, state: Mapping[str, Tensor], index: Tensor | None = None) -> None:
        """Continue from what :meth:`state` returned.

        Args:
            state: the state of k sub-environments of the same environment, perhaps from another process.
            index: ``(k,)`` int64, the sub-environments to restore; None for all, in order.

        Raises:
            PgkitError: the environments cannot be restored, or do not come back as they were.
        """
        ...

    def close(self) -> None:
        """Release what the environments hold, such as processes and windows."""
        ...


def check_seeds(seeds: Sequence[int], index: Tensor | None, num_envs: int) -> list[int]:
    """Convert seeds to Python integers.

    Args:
        seeds: as of :meth:`Environments.reset`.
        index: as of :meth:`Environments.reset`.
        num_envs: K.

    Raises:
        PgkitError: the number of seeds is not the number of sub-environments to reset, or a seed is out of range.
    """
    expected = num_envs if index is None else len(index)
    if len(seeds) != expected:
        raise PgkitError(f"reset: expected {expected} seeds, got {len(seeds)}")
    integers = [int(seed) for seed in seeds]
    if any(not 0 <= seed < 2**64 for seed in integers):
        raise PgkitError(f"reset: expected seeds from 0 to 2**64 - 1, got {integers}")
    return integers
