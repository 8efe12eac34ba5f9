"""Which environments can be created here, what runs them, and how fast they are."""

import time
from dataclasses import dataclass

import torch

from pgkit.envs.base import Environments
from pgkit.envs.check import random_actions
from pgkit.envs.make import in_copy, list_envs, make_envs, resolve_backend
from pgkit.envs.registry import list_pgkit_envs

SECONDS = 0.05
"""How long an environment is stepped to measure its speed."""

BATCH = 1024
"""Environments of pgkit's own that step at once; of others there is one."""

_BLOCK = 8
"""Steps between two looks at the clock."""


@dataclass(frozen=True)
class AvailableEnv:
    """An environment that can be created with the packages that are installed.

    Attributes:
        name: its id.
        backend: that ``env.backend="auto"`` takes.
        steps_per_second: with random actions on one core; None if it was not measured.
    """

    name: str
    backend: str
    steps_per_second: float | None


def list_available_envs(measure: bool = False) -> list[AvailableEnv]:
    """All environments of which an instance can be created here, sorted by name.

    Args:
        measure: the speed of all of them; otherwise only of pgkit's own, which takes less than a second.
    """

    def available() -> list[AvailableEnv]:
        names = sorted({*list_envs(), *list_pgkit_envs()})
        return [env for name in names if (env := _try(name, measure)) is not None]

    return in_copy(available, "any", timeout=None)


def steps_per_second(envs: Environments, seconds: float = SECONDS) -> float:
    """How many steps the environments make with random actions on one core, all of them together."""
    count = envs.info.num_envs
    generator = torch.Generator().manual_seed(0)
    actions = [random_actions(envs.info.action_space, count, generator) for _ in range(_BLOCK)]
    envs.reset(range(count))
    envs.step(actions[0])  # compiles
    steps = 0
    start = time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        for action in actions:
            envs.step(action)
        steps += _BLOCK * count
    return steps / elapsed


def _try(name: str, measure: bool) -> AvailableEnv | None:
    """An environment if it can be created; some packages raise anything where something is missing."""
    try:
        backend = resolve_backend(name, {}, "auto")
        envs = make_envs(name, BATCH if backend == "pgkit" else 1)
    except Exception:
        return None
    try:
        is_measured = measure or backend == "pgkit"
        return AvailableEnv(name, backend, steps_per_second(envs) if is_measured else None)
    except Exception:  # its actions are of a kind that is not stepped here, or it fails
        return AvailableEnv(name, backend, None)
    finally:
        envs.close()
