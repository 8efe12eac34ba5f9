"""Agents and callbacks by name."""

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any, Protocol, cast

from pydantic import BaseModel
from torch import Tensor

from pgkit.config.names import AGENTS, unknown_agent
from pgkit.errors import PgkitError, describe_exception, unknown_name
from pgkit.types import Batch, Params, Rollout

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
    """Import the agent called ``name``: one of :data:`pgkit.config.names.AGENTS`, or a dotted module name.

    Raises:
        PgkitError: there is no such agent, or the module does not define one.
    """
    module_name = AGENTS.get(name, name)
    if name not in AGENTS and not module_exists(module_name):
        raise PgkitError(unknown_agent(name))
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
