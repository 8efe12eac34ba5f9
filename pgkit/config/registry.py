"""Agents and shipped configurations by name."""

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Protocol, cast

from pydantic import BaseModel
from torch import Tensor

from pgkit.errors import PgkitError, describe_exception, format_value, unknown_name
from pgkit.types import Batch, Params, Rollout

AGENTS = {
    "reinforce": "pgkit.agents.reinforce",
    "actor-critic": "pgkit.agents.actor_critic",
    "ppo": "pgkit.agents.ppo",
}
"""Module of each shipped agent; any other agent is the dotted name of a module."""

CALLBACKS = {
    "stop-on-threshold": "pgkit.callbacks:StopTrainingOnRewardThreshold",
    "stop-without-improvement": "pgkit.callbacks:StopTrainingOnNoModelImprovement",
}
"""Class of each shipped callback; any other is ``"module:Class"``."""

LOGGERS = ("tensorboard", "wandb", "mlflow", "trackio", "csv")
"""Where a run can be logged beside ``metrics.parquet``."""

DEFAULT_LOGGER = ("tensorboard",)

DIAGNOSE = "pgkit.diagnose.while_training:DiagnoseWhileTraining"
"""Class of the callback that the table ``diagnose`` of a configuration stands for."""

_CONTRACT = ("Config", "collects", "targets", "loss")


class Agent(Protocol):
    """What a module must define to be an agent; ``agents/actor_critic.py`` is the shortest example.

    Attributes:
        Config: frozen pydantic model of the agent's settings (``agent.*``).
        collects: ``"episodes"`` for whole episodes, ``"steps"`` for rollouts of ``rollout_steps`` steps.
    """

    Config: type[BaseModel]
    collects: str

    def targets(self, policy: Any, params: Params, rollout: Rollout, config: Any) -> Batch:
        """Compute returns, advantages and masks of a rollout, without gradient."""

    def loss(self, policy: Any, params: Params, batch: Batch, config: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the loss ``(P,)`` and metrics ``(P,)`` each."""


def agent(name: str) -> Agent:
    """Import the agent called ``name``: one of :data:`AGENTS`, or a dotted module name.

    Raises:
        PgkitError: there is no such agent, or the module does not define one.
    """
    module_name = AGENTS.get(name, name)
    if name not in AGENTS and not module_exists(module_name):
        raise PgkitError(unknown_name("agent", name, AGENTS, or_else="a module such as my_package.my_agent"))
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # importing runs the user's code, which may raise anything
        raise PgkitError(f"agent {name!r} cannot be imported: {describe_exception(error)}") from error
    missing = [attribute for attribute in _CONTRACT if not hasattr(module, attribute)]
    if missing:
        raise PgkitError(f"module {module_name!r} is not an agent: it does not define {', '.join(missing)}")
    if module.collects not in ("episodes", "steps"):
        raise PgkitError(f'{module_name}.collects must be "episodes" or "steps", got {module.collects!r}')
    return cast(Agent, module)


def callback_class(name: str) -> Callable[..., object]:
    """Import what makes callbacks: one of :data:`CALLBACKS`, or ``"package.module:Class"``.

    Raises:
        PgkitError: there is no such class.
    """
    module_name, separator, attribute = CALLBACKS.get(name, name).partition(":")
    if not separator or not attribute.isidentifier() or not module_exists(module_name):
        raise PgkitError(unknown_name("callback", name, CALLBACKS, or_else="a class such as my_package.my_module:Mine"))
    try:
        imported = getattr(importlib.import_module(module_name), attribute, None)
    except Exception as error:  # importing runs the user's code, which may raise anything
        raise PgkitError(f"callback {name!r} cannot be imported: {describe_exception(error)}") from error
    if not callable(imported):
        raise PgkitError(f"callback {name!r}: module {module_name} defines no class {attribute}")
    return cast(Callable[..., object], imported)


def module_exists(name: str) -> bool:
    """Whether there is a module of this dotted name; its parent packages are imported."""
    if not all(part.isidentifier() for part in name.split(".")):
        return False
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):  # a parent package that cannot be imported; a module without a spec
        return False


def shipped_configs() -> dict[str, Traversable]:
    """Return the configuration files inside the package by name (file name without ``.toml``)."""
    entries = (entry for entry in files("pgkit.configs").iterdir() if entry.name.endswith(".toml"))
    return {entry.name.removesuffix(".toml"): entry for entry in sorted(entries, key=lambda entry: entry.name)}


def is_comparison(table: Mapping[str, Any]) -> bool:
    """Whether a table is a configuration of ``pgkit compare`` rather than ``pgkit train``."""
    return "environments" in table


def find_config(name_or_path: str | Path) -> Path | Traversable:
    """Find the configuration file of that path, or else the shipped one of that name.

    Raises:
        PgkitError: there is neither, or ``name_or_path`` is neither text nor a path.
    """
    if not isinstance(name_or_path, str | Path):
        shown = format_value(name_or_path)  # type: ignore[unreachable] # callers without type checker
        raise PgkitError(f"a configuration is the path of a TOML file or a shipped name, got {shown}")
    path = Path(name_or_path)
    try:
        if path.is_file():
            return path
    except OSError as error:
        raise PgkitError(f"configuration {format_value(str(name_or_path))} cannot be read: {error.strerror}") from None
    shipped = shipped_configs()
    name = str(name_or_path)
    if name in shipped:
        return shipped[name]
    if path.is_dir():
        raise PgkitError(f"{name} is a directory, not a configuration file")
    if path.suffix == ".toml" or len(path.parts) > 1:
        raise PgkitError(f"there is no configuration file {name}")
    raise PgkitError(unknown_name("config", name, shipped, or_else="the path of a .toml file"))
