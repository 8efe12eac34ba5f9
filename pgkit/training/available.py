"""What a configuration needs of the machine that is to train it."""

from typing import TYPE_CHECKING, Any

from pgkit.config.device import resolve_device
from pgkit.config.effects import check_actions
from pgkit.config.schema import TrainConfig
from pgkit.envs.make import probe_action_space, resolve_backend
from pgkit.envs.rescale import describe_rescaling

if TYPE_CHECKING:
    from gymnasium import Space


def check_available(config: TrainConfig) -> tuple[str, list[str]]:
    """Check that this machine has the device and the environment.

    Returns:
        The backend that runs the environment, and in words which actions are rescaled.

    Raises:
        PgkitError: something is missing, or a setting has no effect there.
    """
    resolve_device(config.device)
    env = config.env
    backend = resolve_backend(env.id, env.kwargs, env.backend, env.vectorization, env.wrappers)
    if backend == "envpool" and not config.policy.log_std and env.rescale_actions:
        return backend, []
    space = _probe(config, backend)
    check_actions(config, space)
    return backend, describe_rescaling(space) if backend != "envpool" and env.rescale_actions else []


def action_space(config: TrainConfig) -> "Space[Any] | None":
    """The action space of a configuration's environment; None if EnvPool runs it.

    Raises:
        PgkitError: the environment cannot be created.
    """
    env = config.env
    backend = resolve_backend(env.id, env.kwargs, env.backend, env.vectorization)
    return None if backend == "envpool" else _probe(config, backend)


def _probe(config: TrainConfig, backend: str) -> "Space[Any]":
    env = config.env
    return probe_action_space(
        env.id,
        kwargs=env.kwargs,
        max_episode_steps=env.max_episode_steps,
        timeout=env.timeout,
        backend="pgkit" if backend == "pgkit" else "gymnasium",
        wrappers=env.wrappers,
    )
