"""Wrappers around environments, by Gymnasium's names: ``{ name = "FrameStackObservation", stack_size = 4 }``."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pgkit.errors import PgkitError, describe_exception, suggest
from pgkit.system.imports import import_object

if TYPE_CHECKING:
    from gymnasium import Env

Wrappers = Sequence[Mapping[str, Any]]
"""Tables of a ``name`` and the wrapper's arguments, the innermost first."""


def wrap_env(env: "Env", wrappers: Wrappers) -> "Env":
    """Put wrappers around an environment.

    >>> import gymnasium
    >>> env = wrap_env(gymnasium.make("CartPole-v1"), [{"name": "FrameStackObservation", "stack_size": 3}])
    >>> env.observation_space.shape
    (3, 4)

    Args:
        env: the environment.
        wrappers: each named as in ``gymnasium.wrappers``, or ``"package.module:Class"``.

    Raises:
        PgkitError: there is no such wrapper, or it cannot be put around this environment.
    """
    for table in wrappers:
        arguments = {key: value for key, value in table.items() if key != "name"}
        name = str(table["name"])
        wrapper = _find_wrapper(name)
        try:
            env = wrapper(env, **arguments)
        except Exception as error:  # a wrapper's constructor may raise anything
            detail = f" with {arguments}" if arguments else ""
            raise PgkitError(f"env.wrappers: {name}{detail}: {describe_exception(error)}") from error
    return env


def _find_wrapper(name: str) -> Any:
    """The wrapper's class."""
    if ":" in name:
        return import_object(name, "env.wrappers")
    from gymnasium import wrappers

    if not hasattr(wrappers, name):
        hint = suggest(name, [entry for entry in dir(wrappers) if entry[:1].isupper()])
        raise PgkitError(f"env.wrappers: gymnasium.wrappers has no {name!r}{hint}; others: package.module:Class")
    return getattr(wrappers, name)
