"""Compare an environment of pgkit's own with one of Gymnasium's, step by step."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pgkit.envs.base import Environments, Transition
from pgkit.envs.make import make_envs
from pgkit.envs.sync_envs import SyncEnvs
from pgkit.errors import PgkitError

if TYPE_CHECKING:
    from gymnasium import Env, Space


def check_against_gymnasium(
    env_id: str,
    reference: "str | Callable[[], Env[Any, Any]]",
    *,
    kwargs: Mapping[str, Any] | None = None,
    reference_kwargs: Mapping[str, Any] | None = None,
    seeds: Sequence[int] = range(8),
    steps: int = 1000,
    tolerance: float = 1e-6,
) -> int:
    """Step both with the same random actions from the same seeds, and stop at the first difference.

    Observations and rewards may differ by ``tolerance (1 + |expected|)``; flags and time limits must be the same.

    Args:
        env_id: as for :func:`pgkit.envs.make_envs`, of an environment of pgkit's own.
        reference: id of the same task in Gymnasium, or a function that creates it, with its time limit.
        kwargs: arguments of pgkit's environment.
        reference_kwargs: arguments of the reference; None for the same as ``kwargs``.
        seeds: one of each episode stream that is compared.
        steps: of each of them, over as many episodes as it takes.
        tolerance: largest difference between numbers.

    Returns:
        How many episodes have ended in both.

    Raises:
        PgkitError: they differ; one line says where first, and in what.

    Example:
        >>> from pgkit.envs import check_against_gymnasium
        >>> check_against_gymnasium("CartPole-v1", "CartPole-v1", steps=100) > 20
        True
    """
    kwargs = dict(kwargs or {})
    envs = make_envs(env_id, len(seeds), kwargs=kwargs, backend="pgkit")
    if isinstance(reference, str):
        arguments = kwargs if reference_kwargs is None else reference_kwargs
        other: Environments = make_envs(reference, len(seeds), kwargs=arguments, backend="gymnasium")
    else:
        other = SyncEnvs(reference, len(seeds), f"reference of {env_id}", torch.device("cpu"))
    try:
        return _Comparison(env_id, envs, other, list(seeds), tolerance).run(steps)
    finally:
        other.close()


class _Comparison:
    """Two batches of environments side by side."""

    def __init__(
        self, name: str, envs: Environments, reference: Environments, seeds: list[int], tolerance: float
    ) -> None:
        self._name = name
        self._envs = envs
        self._reference = reference
        self._seeds = seeds
        self._tolerance = tolerance
        self._episodes = [1] * len(seeds)
        self._steps = [0] * len(seeds)

    def run(self, steps: int) -> int:
        """Compare everything; returns how many episodes have ended."""
        self._check_info()
        self._check_numbers("obs", self._envs.reset(self._seeds), self._reference.reset(self._seeds))
        generator = torch.Generator().manual_seed(self._seeds[0] % 2**63)
        ended = 0
        for _ in range(steps):
            action = random_actions(self._envs.info.action_space, len(self._seeds), generator)
            step = self._envs.step(action)
            expected = self._reference.step(action)
            self._count(expected)
            self._check_step(step, expected)
            ended += int((expected.terminated | expected.truncated).sum())
        return ended

    def _check_info(self) -> None:
        for what in ("obs_dim", "action_space", "max_episode_steps"):
            values = [getattr(envs.info, what) for envs in (self._envs, self._reference)]
            if values[0] != values[1]:
                raise PgkitError(f"environment {self._name!r}: {what} is {values[0]}, the reference has {values[1]}")

    def _count(self, expected: Transition) -> None:
        """Move on to the next step of each episode, or to the next episode."""
        for row, valid in enumerate(expected.valid.tolist()):
            self._steps[row] = self._steps[row] + 1 if valid else 0
            self._episodes[row] += not valid

    def _check_step(self, step: Transition, expected: Transition) -> None:
        for flag in ("terminated", "truncated", "valid"):
            is_wrong = getattr(step, flag) != getattr(expected, flag)
            if is_wrong.any():
                row = int(is_wrong.nonzero()[0])
                raise self._difference(row, flag, getattr(step, flag)[row], getattr(expected, flag)[row])
        self._check_numbers("reward", step.reward[:, None], expected.reward[:, None])
        self._check_numbers("obs", step.obs, expected.obs)

    def _check_numbers(self, what: str, numbers: Tensor, expected: Tensor) -> None:
        """Compare ``(K, n)``."""
        is_close = (numbers - expected).abs() <= self._tolerance * (1.0 + expected.abs())
        is_close |= numbers == expected  # infinities
        if not is_close.all():
            row, column = (~is_close).nonzero()[0].tolist()
            where = f"{what}[{column}]" if what == "obs" else what
            raise self._difference(row, where, numbers[row, column], expected[row, column])

    def _difference(self, row: int, what: str, number: Tensor, expected: Tensor) -> PgkitError:
        where = f"step {self._steps[row]} of episode {self._episodes[row]} of seed {self._seeds[row]}"
        return PgkitError(
            f"environment {self._name!r} differs from the reference at {where}: {what} is {number.item()}, "
            f"expected {expected.item()}"
        )


def random_actions(space: "Space[Any]", count: int, generator: torch.Generator) -> Tensor:
    """Uniform in a Discrete space; in a Box within the bounds and a little beyond, up to 2 where there are none."""
    from gymnasium.spaces import Discrete

    if isinstance(space, Discrete):
        return torch.randint(int(space.n), (count,), generator=generator)
    low, high = (torch.from_numpy(bound.ravel()).float() for bound in (space.low, space.high))  # type: ignore[attr-defined]
    low = torch.where(low <= -1e6, -2.0, low)
    high = torch.where(high >= 1e6, 2.0, high)
    uniform = torch.rand(count, len(low), generator=generator) * 1.2 - 0.1
    return low + (high - low) * uniform
