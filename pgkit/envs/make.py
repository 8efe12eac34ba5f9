"""From the name of an environment to K running sub-environments."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal

import torch

from pgkit.envs import envpool
from pgkit.envs.async_envs import AsyncEnvs
from pgkit.envs.base import Environments
from pgkit.envs.cartpole import CartPole
from pgkit.envs.envpool import EnvPoolEnvs
from pgkit.envs.sync_envs import SyncEnvs
from pgkit.envs.vector_env import wrap_vector_env
from pgkit.errors import PgkitError

if TYPE_CHECKING:
    from gymnasium import Env
    from gymnasium.envs.registration import EnvSpec
    from gymnasium.vector import VectorEnv

Backend = Literal["auto", "gymnasium", "pgkit", "envpool"]
Vectorization = Literal["sync", "async", "native"]


def make_envs(
    env_id: str,
    count: int,
    *,
    kwargs: Mapping[str, Any] | None = None,
    max_episode_steps: int | None = None,
    backend: Backend = "auto",
    vectorization: Vectorization = "sync",
    timeout: float | None = None,
    device: torch.device | str = "cpu",
) -> Environments:
    """``count`` sub-environments of one kind; seed and start them with ``reset(seeds)``.

    Args:
        env_id: an id registered with Gymnasium, or ``package.module:Id`` where importing the module registers it.
        count: K, at least 1.
        kwargs: arguments of the environment's constructor.
        max_episode_steps: time limit instead of the registered one.
        backend: "pgkit" (CartPole-v1 on tensors), "envpool", "gymnasium", or "auto": the first of these, in this
            order, that has the same task; ``info.backend`` tells which.
        vectorization: of the gymnasium backend: "sync" in this process, "async" in worker processes, "native" the
            vector environment that its registration names (``vector_entry_point``), which cannot step a subset.
        timeout: seconds that a worker process ("async") has for a step of all its environments; None for 300.
        device: where observations and rewards go.

    Raises:
        PgkitError: unknown id, arguments that the environment does not take, unsupported spaces, missing packages.
    """
    kwargs = dict(kwargs or {})
    device = torch.device(device)
    if count < 1:
        raise PgkitError(f"count of environments: expected at least 1, got {count}")
    if max_episode_steps is not None and max_episode_steps < 1:
        raise PgkitError(f"max_episode_steps: expected at least 1, got {max_episode_steps}")
    chosen = resolve_backend(env_id, kwargs, backend, vectorization)
    if chosen == "pgkit":
        return CartPole(count, max_episode_steps or 500, device)
    if chosen == "envpool":
        return EnvPoolEnvs(env_id, count, kwargs, max_episode_steps, device)

    spec = find_spec(env_id)
    if vectorization == "native":
        return wrap_vector_env(create_vector(spec, count, kwargs, max_episode_steps), name=env_id, device=device)

    def create_one() -> "Env":
        return create(spec, kwargs, max_episode_steps)

    if vectorization == "async":
        return AsyncEnvs(create_one, count, env_id, device, timeout)
    return SyncEnvs(create_one, count, env_id, device)


def resolve_backend(
    env_id: str, kwargs: Mapping[str, Any], backend: Backend, vectorization: Vectorization = "sync"
) -> Literal["gymnasium", "pgkit", "envpool"]:
    """What "auto" stands for here; other backends are checked and returned.

    Raises:
        PgkitError: a backend that does not have this environment.
    """
    if backend == "pgkit" and (env_id != "CartPole-v1" or kwargs):
        raise PgkitError(f"env.backend 'pgkit' has CartPole-v1 without kwargs only, not {env_id!r} with {dict(kwargs)}")
    if backend in ("pgkit", "envpool") and vectorization != "sync":
        raise PgkitError(f"env.vectorization {vectorization!r} is for env.backend 'gymnasium', not {backend!r}")
    if backend != "auto":
        return backend
    if kwargs or vectorization != "sync":
        return "gymnasium"
    if env_id == "CartPole-v1":
        return "pgkit"
    return "envpool" if env_id in envpool.AUTOMATIC and envpool.installed() else "gymnasium"


def list_envs() -> list[str]:
    """The ids that Gymnasium knows, sorted; ``package.module:Id`` may add others."""
    import gymnasium

    return sorted(gymnasium.registry)


def find_spec(env_id: str) -> "EnvSpec":
    """Gymnasium's registration of an id.

    Raises:
        PgkitError: there is none, with the closest ids there are.
    """
    import importlib

    import gymnasium

    module, _, name = env_id.rpartition(":")
    if module:
        try:
            importlib.import_module(module)
        except Exception as error:  # whatever the module does
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise PgkitError(f"environment {env_id!r}: cannot import module {module!r} ({reason})") from error
    if name in gymnasium.registry:
        return gymnasium.registry[name]
    close = get_close_matches(name, list_envs(), n=3, cutoff=0.6)
    hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
    raise PgkitError(f"unknown environment {env_id!r}: {hint}(all: pgkit list envs; others: package.module:Id)")


def create(spec: "EnvSpec", kwargs: Mapping[str, Any], max_episode_steps: int | None) -> "Env":
    """One instance.

    Raises:
        PgkitError: the environment does not take these arguments, or a package that it needs is missing.
    """
    import gymnasium

    with _one_line(spec, kwargs):
        return gymnasium.make(spec, max_episode_steps=max_episode_steps, disable_env_checker=True, **kwargs)


def create_vector(spec: "EnvSpec", count: int, kwargs: Mapping[str, Any], max_episode_steps: int | None) -> "VectorEnv":
    """The vector environment that the registration names; raises as :func:`create`."""
    import gymnasium

    arguments = dict(kwargs) | ({} if max_episode_steps is None else {"max_episode_steps": max_episode_steps})
    with _one_line(spec, kwargs):
        return gymnasium.make_vec(spec, count, "vector_entry_point", **arguments)


@contextmanager
def _one_line(spec: "EnvSpec", kwargs: Mapping[str, Any]) -> Iterator[None]:
    """Turn what constructors raise for wrong arguments or missing packages into one line."""
    try:
        with warnings.catch_warnings():
            # Box2D's SWIG module warns while it is imported; where warnings are errors, Python then crashes.
            warnings.filterwarnings("ignore", "builtin type .* has no __module__", DeprecationWarning)
            yield
    except Exception as error:  # whatever the constructor does
        message = " ".join(str(error).split())
        given = f" with {dict(kwargs)}" if kwargs else ""
        raise PgkitError(f"environment {spec.id!r} cannot be made{given}: {type(error).__name__}: {message}") from error
