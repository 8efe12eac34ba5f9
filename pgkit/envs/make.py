"""From the id of an environment to K running sub-environments."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch

from pgkit.envs import envpool, rescale, squash
from pgkit.envs.action_masks import mask_place
from pgkit.envs.async_envs import REQUEST_TIMEOUT_SECONDS, AsyncEnvs
from pgkit.envs.base import Environments
from pgkit.envs.envpool import EnvPoolEnvs
from pgkit.envs.hints import missing_package_hint, unknown_id_hint
from pgkit.envs.registry import PgkitEnv, find_pgkit_env, import_env_module, list_pgkit_envs
from pgkit.envs.replay import replay_problem
from pgkit.envs.sync_envs import SyncEnvs
from pgkit.envs.vector_env import wrap_vector_env
from pgkit.envs.wrappers import Wrappers, wrap_env
from pgkit.errors import PgkitError, describe_exception, worker_hint
from pgkit.system.processes import CopyFailed, Result, call_in_copy

if TYPE_CHECKING:
    from gymnasium import Env, Space
    from gymnasium.envs.registration import EnvSpec
    from gymnasium.vector import VectorEnv

Backend = Literal["auto", "gymnasium", "pgkit", "envpool"]
Vectorization = Literal["sync", "async", "native"]


def make_envs(
    env_id: str,
    num_envs: int,
    *,
    kwargs: Mapping[str, Any] | None = None,
    max_episode_steps: int | None = None,
    backend: Backend = "auto",
    vectorization: Vectorization = "sync",
    timeout: float | None = None,
    rescale_actions: bool = False,
    wrappers: Wrappers = (),
    squash_actions: bool = False,
    action_mask: bool = True,
    device: torch.device | str = "cpu",
) -> Environments:
    """Create ``num_envs`` sub-environments of an environment. Seed and start them with ``reset(seeds)``.

    Args:
        env_id: id registered with Gymnasium or :func:`pgkit.envs.register`; ``package.module:Id`` imports a module.
        num_envs: K, at least 1.
        kwargs: arguments of the environment's constructor.
        max_episode_steps: time limit in steps, in place of the registered one.
        backend: "pgkit" (compiled, see :mod:`pgkit.envs.registry`), "envpool", "gymnasium", or "auto": the first of
            these, in this order, that has the same task. ``info.backend`` says which one it is.
        vectorization: for backend "gymnasium": "sync" steps in this process, "async" in worker processes, "native"
            uses the vector environment of the registration (``vector_entry_point``), which cannot step a subset.
        timeout: seconds that a worker process ("async") has to step or reset all its environments; None for 300.
        wrappers: Gymnasium's, around each environment in this order, see :mod:`pgkit.envs.wrappers`.
        rescale_actions: for backend "pgkit", "sync" and "async": rescale Box actions, see :mod:`pgkit.envs.rescale`.
        squash_actions: for the same: Box actions are those before tanh, see :mod:`pgkit.envs.squash`.
        action_mask: for "sync" and "async": read action masks if there are any, see :mod:`pgkit.envs.action_masks`.
        device: device of observations, rewards and flags.

    Raises:
        PgkitError: unknown id, wrong arguments of the constructor, unsupported spaces, or a missing package.
        EnvError: an environment in a worker process cannot be created.

    Example:
        >>> from pgkit.envs import make_envs
        >>> envs = make_envs("CartPole-v1", 3)
        >>> envs.reset(seeds=[0, 1, 2]).shape
        torch.Size([3, 4])
    """
    kwargs = dict(kwargs or {})
    device = torch.device(device)
    _check_at_least_one(num_envs=num_envs, max_episode_steps=max_episode_steps)
    resolved = resolve_backend(env_id, kwargs, backend, vectorization, wrappers)
    if resolved == "pgkit":
        return _pgkit_env(env_id).make(num_envs, kwargs, max_episode_steps, device, rescale_actions, squash_actions)
    if squash_actions and (resolved == "envpool" or vectorization == "native"):
        raise PgkitError("policy.squash_output = true needs env.backend 'pgkit' or 'gymnasium'")
    if resolved == "envpool":
        return EnvPoolEnvs(env_id, num_envs, kwargs, max_episode_steps, device)
    if vectorization == "native":
        vector_env = make_vector_env(find_spec(env_id), num_envs, kwargs, max_episode_steps)
        return wrap_vector_env(vector_env, name=env_id, device=device)
    create = partial(make_env, find_spec(env_id), kwargs, max_episode_steps, rescale_actions, squash_actions, wrappers)
    if vectorization == "async":
        return AsyncEnvs(create, num_envs, env_id, device, timeout, action_mask)
    return SyncEnvs(create, num_envs, env_id, device, action_mask=action_mask)


def _check_at_least_one(**counts: int | None) -> None:
    for name, value in counts.items():
        if value is not None and value < 1:
            raise PgkitError(f"{name}: expected at least 1, got {value}")


def resolve_backend(
    env_id: str,
    kwargs: Mapping[str, Any],
    backend: Backend,
    vectorization: Vectorization = "sync",
    wrappers: Wrappers = (),
) -> Literal["gymnasium", "pgkit", "envpool"]:
    """The backend that :func:`make_envs` uses for these arguments.

    Raises:
        PgkitError: the backend does not have this environment, or does not run it in this way.

    Example:
        >>> from pgkit.envs import resolve_backend
        >>> resolve_backend("CartPole-v1", {}, "auto")
        'pgkit'
        >>> resolve_backend("CartPole-v1", {"render_mode": "rgb_array"}, "auto")
        'gymnasium'
    """
    if backend in ("pgkit", "envpool") and vectorization != "sync":
        raise PgkitError(f"env.vectorization {vectorization!r} is for env.backend 'gymnasium', not {backend!r}")
    if wrappers and vectorization == "native":
        raise PgkitError("env.wrappers are for single environments, not for vectorization 'native'")
    if wrappers and backend in ("pgkit", "envpool"):
        raise PgkitError(f"env.wrappers are for env.backend 'gymnasium', not {backend!r}")
    if backend == "pgkit":
        if problem := _pgkit_env(env_id).problem(kwargs):
            raise PgkitError(problem)
        return "pgkit"
    if backend != "auto":
        return backend
    if vectorization != "sync" or wrappers:
        return "gymnasium"
    entry = find_pgkit_env(env_id)
    if entry is not None and (entry.problem(kwargs) is None or entry.name not in list_envs()):
        return "pgkit"
    same_in_envpool = not kwargs and env_id in envpool.SAME_AS_GYMNASIUM
    return "envpool" if same_in_envpool and envpool.installed() else "gymnasium"


def _pgkit_env(env_id: str) -> PgkitEnv:
    """pgkit's own environment of an id.

    Raises:
        PgkitError: there is none.
    """
    entry = find_pgkit_env(env_id)
    if entry is None:
        names = list_pgkit_envs()
        raise PgkitError(f"env.backend 'pgkit' has no {env_id!r}: it has {', '.join(names)}; others: README.md of envs")
    return entry


class ActionProbe(NamedTuple):
    """The actions of an environment.

    Attributes:
        space: of one environment.
        mask_place: where its masks are, in words; None if it gives none at its first reset.
    """

    space: "Space[Any]"
    mask_place: str | None = None


def probe_actions(
    env_id: str,
    *,
    kwargs: Mapping[str, Any],
    max_episode_steps: int | None = None,
    timeout: float | None = None,
    backend: Literal["gymnasium", "pgkit"] = "gymnasium",
    wrappers: Wrappers = (),
) -> ActionProbe:
    """The actions of an environment that can be created, without creating Gymnasium's in this process.

    Args:
        env_id: as for :func:`make_envs`, as are ``kwargs``, ``max_episode_steps`` and ``wrappers``.
        timeout: seconds that it may take; None for 300.
        backend: that creates it.

    Raises:
        PgkitError: it cannot be created; the message says why.
    """
    if backend == "pgkit":
        envs = make_envs(env_id, 1, kwargs=kwargs, max_episode_steps=max_episode_steps, backend=backend)
        return ActionProbe(envs.info.action_space)

    def probe() -> ActionProbe:
        env = make_env(find_spec(env_id), kwargs, max_episode_steps, wrappers=wrappers)
        result = ActionProbe(env.action_space, mask_place(env))
        env.close()
        return result

    return in_copy(probe, env_id, timeout)


def resume_problem(
    env_id: str,
    *,
    kwargs: Mapping[str, Any],
    max_episode_steps: int | None = None,
    backend: Backend = "auto",
    vectorization: Vectorization = "sync",
    timeout: float | None = None,
    wrappers: Wrappers = (),
) -> str | None:
    """Why environments cannot be saved and brought back exactly, in one line; None if they can.

    It is tried with instances in another process: they could disturb those that learn, or could not exist beside them.
    Arguments are those of :func:`make_envs`.
    """
    resolved = resolve_backend(env_id, kwargs, backend, vectorization, wrappers)
    if resolved != "gymnasium":
        return envpool.not_saved(env_id) if resolved == "envpool" else None

    def probe() -> str | None:
        return replay_problem(lambda: make_env(find_spec(env_id), kwargs, max_episode_steps, wrappers=wrappers), env_id)

    try:
        return in_copy(probe, env_id, timeout)
    except PgkitError as error:
        return str(error)


def in_copy(function: Callable[[], Result], env_id: str, timeout: float | None) -> Result:
    """The result of a function that is called in a copy of this process.

    Raises:
        PgkitError: raised by the function, or because it has no result.
    """

    def call() -> Result | PgkitError:
        torch.set_num_threads(1)  # a copy has no other threads
        try:
            return function()
        except PgkitError as error:
            return PgkitError(str(error))

    try:
        result = call_in_copy(call, REQUEST_TIMEOUT_SECONDS if timeout is None else timeout)
    except CopyFailed as error:
        raise PgkitError(f"environment {env_id!r} failed in a trial: {error}") from None
    if isinstance(result, PgkitError):
        raise result
    return result


def list_envs() -> list[str]:
    """The ids that are registered with Gymnasium, sorted. Importing other packages may register more.

    Example:
        >>> from pgkit.envs import list_envs
        >>> "CartPole-v1" in list_envs()
        True
    """
    import gymnasium

    return sorted(gymnasium.registry)


def find_spec(env_id: str) -> "EnvSpec":
    """Gymnasium's registration of an id.

    Raises:
        PgkitError: the id is unknown (the message names similar ones), or its module cannot be imported.
    """
    import gymnasium

    import_env_module(env_id)
    name = env_id.rpartition(":")[2]
    if name in gymnasium.registry:
        return gymnasium.registry[name]
    close = get_close_matches(name, sorted({*list_envs(), *list_pgkit_envs()}), n=3, cutoff=0.6)
    guess = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
    hint = f"{remedy} " if (remedy := unknown_id_hint(name)) else guess
    worker = f"; {reason}" if (reason := worker_hint()) else ""
    raise PgkitError(f"unknown environment {env_id!r}: {hint}(all: pgkit list envs; others: package.module:Id){worker}")


def make_env(
    spec: "EnvSpec",
    kwargs: Mapping[str, Any],
    max_episode_steps: int | None,
    rescale_actions: bool = False,
    squash_actions: bool = False,
    wrappers: Wrappers = (),
) -> "Env":
    """Create one instance of a registered environment; arguments as of :func:`make_envs`.

    Raises:
        PgkitError: the constructor does not take these arguments, a package that it needs is missing, or there are no
            bounds to squash actions into.
    """
    import gymnasium

    with _constructor_errors(spec, kwargs):
        env = gymnasium.make(spec, max_episode_steps=max_episode_steps, disable_env_checker=True, **kwargs)
    env = wrap_env(env, wrappers)
    if squash_actions:
        return squash.squash_actions(env, spec.id)
    return rescale.rescale_actions(env) if rescale_actions else env


def make_vector_env(
    spec: "EnvSpec", num_envs: int, kwargs: Mapping[str, Any], max_episode_steps: int | None
) -> "VectorEnv":
    """Create the vector environment that a registration names; raises as :func:`make_env`."""
    import gymnasium

    arguments = dict(kwargs)
    if max_episode_steps is not None:
        arguments["max_episode_steps"] = max_episode_steps
    with _constructor_errors(spec, kwargs):
        return gymnasium.make_vec(spec, num_envs, "vector_entry_point", **arguments)


@contextmanager
def _constructor_errors(spec: "EnvSpec", kwargs: Mapping[str, Any]) -> Iterator[None]:
    """Turn whatever an environment's constructor raises into a :class:`PgkitError` of one line."""
    try:
        with warnings.catch_warnings():
            # Box2D's SWIG module warns while it is imported; where warnings are errors, Python then crashes.
            warnings.filterwarnings("ignore", "builtin type .* has no __module__", DeprecationWarning)
            yield
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        arguments = f" with {dict(kwargs)}" if kwargs else ""
        hint = f" ({remedy})" if (remedy := missing_package_hint(error, spec)) else ""
        raise PgkitError(
            f"environment {spec.id!r} cannot be created{arguments}: {describe_exception(error)}{hint}"
        ) from error
