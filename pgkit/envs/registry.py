"""Environments of pgkit's own by name: those that it brings, and those that other modules register."""

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from pgkit.envs.base import Environments
from pgkit.envs.definition import EnvDefinition
from pgkit.envs.elementwise import ElementwiseEnvs
from pgkit.errors import PgkitError, describe_exception

Build = Callable[..., EnvDefinition | Environments]
"""``build(**kwargs) -> EnvDefinition``; or a class of environments, ``build(num_envs, max_episode_steps=None,
device="cpu", rescale_actions=False, **kwargs)``, whose arguments behind ``num_envs`` have defaults. One that can take
actions before tanh has an argument ``squash_actions=False``, too."""

SHIPPED = {
    "Acrobot-v1": ("pgkit.envs.acrobot:acrobot", 500),
    "CartPole-v0": ("pgkit.envs.cartpole:cartpole", 200),
    "CartPole-v1": ("pgkit.envs.cartpole:cartpole", 500),
    "LunarLander-v3": ("pgkit.envs.lunarlander:LunarLander", 1000),
    "MountainCar-v0": ("pgkit.envs.mountain_car:mountain_car", 200),
    "MountainCarContinuous-v0": ("pgkit.envs.mountain_car_continuous:mountain_car_continuous", 999),
    "Pendulum-v1": ("pgkit.envs.pendulum:pendulum", 200),
}
"""Where each of pgkit's environments is built, as ``"module:build"``, and its time limit in steps."""

_ENV_ARGUMENTS = ("num_envs", "max_episode_steps", "device", "rescale_actions", "squash_actions")
"""Arguments of a class of environments that are not the task's."""


@dataclass(frozen=True)
class PgkitEnv:
    """An environment of pgkit's own.

    Attributes:
        name: as in a config, without a module.
        build: see :data:`Build`.
        max_episode_steps: time limit in steps; None for that of the definition.
    """

    name: str
    build: Build
    max_episode_steps: int | None = None

    @property
    def parameters(self) -> list[str]:
        """Names of the task's keyword arguments."""
        return [name for name in inspect.signature(self.build).parameters if name not in _ENV_ARGUMENTS]

    def problem(self, kwargs: Mapping[str, Any]) -> str | None:
        """Why it cannot be made with such arguments, in one line; None if it can as far as their names say."""
        unknown = [key for key in kwargs if key not in self.parameters]
        if not unknown:
            return None
        takes = f"takes {', '.join(self.parameters)}" if self.parameters else "takes no arguments"
        return f"env.kwargs {', '.join(unknown)}: pgkit's {self.name!r} {takes}"

    def make(
        self,
        num_envs: int,
        kwargs: Mapping[str, Any],
        max_episode_steps: int | None = None,
        device: torch.device | str = "cpu",
        rescale_actions: bool = False,
        squash_actions: bool = False,
    ) -> Environments:
        """Create ``num_envs`` environments; arguments as of :func:`pgkit.envs.make_envs`.

        Raises:
            PgkitError: there are no such arguments, it fails, or it does not take actions before tanh.
        """
        if problem := self.problem(kwargs):
            raise PgkitError(problem)
        limit = max_episode_steps or self.max_episode_steps
        if not isinstance(self.build, type):
            definition = self._definition(kwargs)
            return ElementwiseEnvs(definition, self.name, num_envs, limit, device, rescale_actions, squash_actions)
        if squash_actions and "squash_actions" not in inspect.signature(self.build).parameters:
            raise PgkitError(f"policy.squash_output = true: the class of {self.name!r} takes no squash_actions")
        squash = {"squash_actions": True} if squash_actions else {}
        envs: Environments = self.build(
            num_envs, max_episode_steps=limit, device=device, rescale_actions=rescale_actions, **squash, **kwargs
        )
        return envs

    def _definition(self, kwargs: Mapping[str, Any]) -> EnvDefinition:
        """The definition, always the same object for the same arguments: compiled code is cached by it."""
        key = (self.build, repr(sorted(kwargs.items())))
        if key not in _DEFINITIONS:
            try:
                definition = self.build(**kwargs)
            except Exception as error:
                raise PgkitError(
                    f"environment {self.name!r} cannot be created with {dict(kwargs)}: {describe_exception(error)}"
                ) from error
            if not isinstance(definition, EnvDefinition):
                raise PgkitError(
                    f"environment {self.name!r}: expected an EnvDefinition, got a {type(definition).__name__}"
                )
            _DEFINITIONS[key] = definition
        return _DEFINITIONS[key]


_DEFINITIONS: dict[tuple[Build, str], EnvDefinition] = {}

_REGISTERED: dict[str, PgkitEnv] = {}


def register(name: str, build: Build) -> None:
    """Make an environment known as ``name``, and as ``package.module:name`` in configurations.

    README.md shows a whole environment.

    >>> from pgkit.envs import EnvDefinition, register
    >>> def corridor(length: float = 3.0) -> EnvDefinition:
    ...     ...
    >>> register("Corridor-v0", corridor)  # doctest: +SKIP

    Args:
        name: as in a config; without a colon.
        build: ``build(**kwargs) -> EnvDefinition``, whose arguments, each with a default, are ``env.kwargs``.

    Raises:
        PgkitError: the name is taken or has a colon, or an argument has no default.
    """
    if ":" in name:
        raise PgkitError(f"environment {name!r}: a name with ':' means a module to import")
    if name in SHIPPED:
        raise PgkitError(f"environment {name!r}: pgkit has one of that name already")
    before = _REGISTERED.get(name)
    if before is not None and _origin(before.build) != _origin(build):
        raise PgkitError(f"environment {name!r}: {_origin(before.build)} has registered one of that name already")
    env = PgkitEnv(name, build)
    parameters = inspect.signature(build).parameters
    without_default = [key for key in env.parameters if parameters[key].default is inspect.Parameter.empty]
    if without_default:
        raise PgkitError(f"environment {name!r}: every argument needs a default, {without_default[0]!r} has none")
    _REGISTERED[name] = env


def find_pgkit_env(env_id: str) -> PgkitEnv | None:
    """pgkit's own environment of this id, if there is one.

    Args:
        env_id: a name, or ``package.module:name`` to import the module first.

    Raises:
        PgkitError: the module cannot be imported.
    """
    import_env_module(env_id)
    name = env_id.rpartition(":")[2]
    if name in SHIPPED:
        return _shipped(name)
    return _REGISTERED.get(name)


def list_pgkit_envs() -> list[str]:
    """The names of all environments that pgkit brings or that modules have registered, sorted."""
    return sorted([*SHIPPED, *_REGISTERED])


def registered_module(name: str) -> str:
    """The module of the function that builds an environment of other code; empty if none is registered as ``name``."""
    return str(getattr(_REGISTERED[name].build, "__module__", "")) if name in _REGISTERED else ""


def import_env_module(env_id: str) -> None:
    """Import the module that an id names, if it names one, so that it registers its environments.

    Raises:
        PgkitError: it cannot be imported.
    """
    module = env_id.rpartition(":")[0]
    if not module:
        return
    try:
        importlib.import_module(module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a user's module may raise anything
        reason = describe_exception(error)
        raise PgkitError(f"environment {env_id!r}: cannot import module {module!r} ({reason})") from error


@cache
def _shipped(name: str) -> PgkitEnv:
    path, max_episode_steps = SHIPPED[name]
    module, _, build = path.partition(":")
    return PgkitEnv(name, getattr(importlib.import_module(module), build), max_episode_steps)


def _origin(build: Build) -> str:
    return f"{getattr(build, '__module__', '')}.{getattr(build, '__qualname__', '')}"
