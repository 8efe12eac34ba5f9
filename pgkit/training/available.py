"""What a configuration needs of the machine that is to train it."""

from typing import TYPE_CHECKING, Any

from pgkit.config.device import resolve_device
from pgkit.config.effects import any_continuous_setting, check_actions
from pgkit.config.schema import TrainConfig
from pgkit.envs.make import ActionProbe, probe_actions, resolve_backend
from pgkit.envs.rescale import describe_rescaling
from pgkit.envs.squash import check_bounded
from pgkit.errors import PgkitError

if TYPE_CHECKING:
    from gymnasium import Space


def check_available(config: TrainConfig) -> tuple[str, list[str]]:
    """Check that this machine has the device and the environment.

    Returns:
        The backend that runs the environment, and in words how actions are masked, rescaled or squashed.

    Raises:
        PgkitError: something is missing, or a setting has no effect there.
    """
    resolve_device(config.device)
    env = config.env
    backend = _backend(config)
    if backend == "envpool" and not any_continuous_setting(config):
        return backend, []
    space, mask_place = _probe(config, backend)
    check_actions(config, space)
    if mask_place is None and not env.action_mask:
        raise PgkitError(f"env.action_mask = false has no effect: {env.id} gives no action masks")
    if mask_place is not None and env.action_mask:
        return backend, [f"masked by {mask_place} (env.action_mask=false: none is excluded)"]
    if config.policy.squash_output:
        check_bounded(space, env.id)
        return backend, ["squashed by tanh into their bounds (policy.squash_output)"]
    return backend, describe_rescaling(space) if backend != "envpool" and env.rescale_actions else []


def action_space(config: TrainConfig) -> "Space[Any] | None":
    """The action space of a configuration's environment; None if EnvPool runs it.

    Raises:
        PgkitError: the environment cannot be created.
    """
    backend = _backend(config)
    return None if backend == "envpool" else _probe(config, backend).space


def _backend(config: TrainConfig) -> str:
    env = config.env
    return resolve_backend(env.id, env.kwargs, env.backend, env.vectorization, env.wrappers)


def _probe(config: TrainConfig, backend: str) -> ActionProbe:
    env = config.env
    return probe_actions(
        env.id,
        kwargs=env.kwargs,
        max_episode_steps=env.max_episode_steps,
        timeout=env.timeout,
        backend="pgkit" if backend == "pgkit" else "gymnasium",
        wrappers=env.wrappers,
    )
