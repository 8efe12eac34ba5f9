"""The arguments of :func:`pgkit.train`: checks and defaults."""

from collections.abc import Sequence
from typing import Any

from pgkit.config.device import resolve_device
from pgkit.config.members import expand_seeds
from pgkit.config.schema import TrainConfig
from pgkit.envs.make import resume_problem
from pgkit.errors import PgkitError, format_value
from pgkit.system.cpu import available_cpus

MIN_MEMBERS_PER_WORKER = 8
"""A process takes as long to start as a few short runs take to train."""


def check_arguments(on_steps: Any, workers: Any) -> None:
    """Check the arguments that are plain.

    Raises:
        PgkitError: one is of another type, or out of range.
    """
    if on_steps is not None and not callable(on_steps):
        raise PgkitError(f"on_steps must be a function of the steps so far, or None, got {format_value(on_steps)}")
    if type(workers) is not int or workers < 1:
        raise PgkitError(f"workers must be a whole number of at least 1, got {format_value(workers)}")


def member_configs(config: TrainConfig | Sequence[TrainConfig]) -> list[TrainConfig]:
    """One configuration for each member: those given, with their seeds expanded.

    Raises:
        PgkitError: something else was given.
    """
    entries: Sequence[Any] = list(config) if isinstance(config, list | tuple) else [config]
    for entry in entries:
        if not isinstance(entry, TrainConfig):
            raise PgkitError(
                f"config must be a TrainConfig (pgkit.load_config returns one) or a list of them, got {_shown(entry)}"
            )
    return [member for entry in entries for member in expand_seeds(entry)]


def _shown(value: object) -> str:
    """A wrong argument in a few words: a text itself, of anything else the type."""
    return format_value(value) if isinstance(value, str) else type(value).__name__


def why_inexact(config: TrainConfig) -> str | None:
    """Why a run cannot be resumed exactly; None if it can."""
    env = config.env
    return resume_problem(
        env.id,
        kwargs=env.kwargs,
        max_episode_steps=env.max_episode_steps,
        backend=env.backend,
        vectorization=env.vectorization,
        timeout=env.timeout,
        wrappers=env.wrappers,
    )


def default_workers(config: TrainConfig) -> int:
    """One worker for each usable core, as far as several are possible and each has enough members."""
    worthwhile = len(config.seed_list) // MIN_MEMBERS_PER_WORKER
    return 1 if why_one_worker(config) else max(1, min(worthwhile, available_cpus()))


def why_one_worker(config: TrainConfig) -> str | None:
    """Why all members have to be trained in one process; None if they need not."""
    if resolve_device(config.device).type != "cpu":
        return "a GPU trains all members at once"
    if config.env.vectorization == "async":
        return "the environments run in processes already (env.vectorization)"
    return None
