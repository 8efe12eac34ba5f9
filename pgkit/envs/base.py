"""What pgkit asks of environments: K sub-environments in a row, each with its own random stream.

Sub-environments of a population are member-major, ``index = member * N + n``. All tensors live on ``info.device``.
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


@dataclass(frozen=True)
class EnvInfo:
    """What is known of the sub-environments before the first step; they are all alike.

    Attributes:
        name: the environment id.
        num_envs: K, how many sub-environments there are.
        obs_dim: D, features of a flattened observation.
        action_space: of one sub-environment, as Gymnasium declares it.
        autoreset: what happens after the last step of an episode, see :class:`Transition`.
        max_episode_steps: the time limit, None where there is none or nobody tells.
        backend: what runs it: "gymnasium", "pgkit" or "envpool".
        vectorization: "sync", "async" or "native".
        device: of all tensors that go in and come out.
        can_step_subset: ``step(action, index)`` leaves the other sub-environments untouched. Where this is False,
            all of them step (the others repeat their last action) and only the results are selected.
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


class Transition(NamedTuple):
    """One step of k sub-environments. The tensors are new at every step and belong to the caller.

    Attributes:
        obs: ``(k, D)`` float32, what the next action is chosen from.
        reward: ``(k,)`` float32.
        terminated: ``(k,)`` bool, the task ended.
        truncated: ``(k,)`` bool, a time limit cut the episode. Both may be True at once: then it terminated.
        valid: ``(k,)`` bool, False where this was no step of an episode but the reset after one ("next_step"):
            ``obs`` is the first of the new episode, the action was ignored, the reward is 0.
        final_obs: None with "next_step", where ``obs`` of a last step is the true final observation. Otherwise
            ``(k, D)``: the true next observation of this step, which differs from ``obs`` where an episode ended.
    """

    obs: Tensor
    reward: Tensor
    terminated: Tensor
    truncated: Tensor
    valid: Tensor
    final_obs: Tensor | None = None


class Elementwise(NamedTuple):
    """A step that can be written down for one environment (:mod:`pgkit.compiler.tracer`), so that rollouts are
    compiled.

    Environments with NEXT_STEP autoreset that have it say so by an attribute ``elementwise``.

    Attributes:
        step: ``step(action, *state, *constants) -> [*state, *obs, reward, terminated, truncated, valid]`` of one
            environment; the observation's D numbers and the reward are float32.
        state: what a step changes, tensors ``(K,)`` whose memory stays where it is.
        constants: what it only reads, likewise.
    """

    step: Callable[..., list[Any]]
    state: Sequence[Tensor]
    constants: Sequence[Tensor]


def check_seeds(seeds: Sequence[int], index: Tensor | None, count: int) -> list[int]:
    """The seeds as Python integers.

    Raises:
        PgkitError: not as many as there are sub-environments to reset, or a negative one.
    """
    expected = count if index is None else len(index)
    if len(seeds) != expected:
        raise PgkitError(f"reset: expected {expected} seeds, got {len(seeds)}")
    numbers = [int(seed) for seed in seeds]
    if any(not 0 <= number < 2**64 for number in numbers):
        raise PgkitError(f"reset: expected seeds from 0 to 2**64 - 1, got {numbers}")
    return numbers


class Environments(Protocol):
    """K sub-environments. :meth:`reset` must seed each of them once before it is stepped."""

    @property
    def info(self) -> EnvInfo: ...

    def reset(self, seeds: Sequence[int], index: Tensor | None = None) -> Tensor:
        """Seed sub-environments and start an episode in each: the first observations ``(k, D)``, float32.

        Args:
            seeds: k non-negative integers of up to 64 bits, one for each sub-environment; all that follows in it
                is a function of its seed and its actions.
            index: ``(k,)`` int64, which ones; None for all, in order. The others are untouched.
        """
        ...

    def step(self, action: Tensor, index: Tensor | None = None) -> Transition:
        """One step of the sub-environments ``index (k,)``, or of all of them.

        Args:
            action: ``(k,)`` int64 counted from 0 (Discrete), ``(k, A)`` int64 (MultiDiscrete, MultiBinary), or
                ``(k, A)`` float (Box), clipped into the bounds.
            index: ``(k,)`` int64, without repetition.
        """
        ...

    def resume_problem(self) -> str | None:
        """None where :meth:`state` and :meth:`restore` bring all back to the last bit; else, in one line, why not.

        May make and step instances of its own to find out.
        """
        ...

    def state(self, index: Tensor | None = None) -> dict[str, Tensor] | None:
        """What it takes to go on in another process: tensors of leading axis k; None where that is impossible."""
        ...

    def restore(self, state: Mapping[str, Tensor], index: Tensor | None = None) -> None:
        """Go on where :meth:`state` was taken, with sub-environments ``index (k,)`` of an instance made alike.

        Raises:
            PgkitError: they do not come back as they were.
        """
        ...

    def close(self) -> None:
        """Free what the environments hold (processes, windows)."""
        ...
