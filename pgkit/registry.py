"""Names that users type, and what they stand for: agents and shipped configurations."""

import importlib
import importlib.util
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any, Protocol, cast

from pydantic import BaseModel
from torch import Tensor

from pgkit.explain import unknown
from pgkit.types import Batch, Params, PgkitError, Rollout

AGENTS = {"reinforce": "pgkit.agents.reinforce", "actor-critic": "pgkit.agents.actor_critic"}
"""Agents that come with pgkit; any other dotted module name stands for itself."""

_CONTRACT = ("Config", "collects", "targets", "loss")


class Agent(Protocol):
    """What a module must define to be an agent: see ``agents/reinforce.py``.

    Attributes:
        Config: frozen pydantic model of the agent's settings.
        collects: ``"episodes"`` or ``"steps"``.
    """

    Config: type[BaseModel]
    collects: str

    def targets(self, policy: Any, params: Params, rollout: Rollout, config: Any) -> Batch:
        """Returns, advantages and masks of a rollout; no gradient."""

    def loss(self, policy: Any, params: Params, batch: Batch, config: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss ``(P,)`` and metrics, each ``(P,)``."""


def agent(name: str) -> Agent:
    """The agent module called ``name``: one of ``AGENTS``, or a dotted module name of the user's own.

    Raises:
        PgkitError: no such agent, or the module is none.
    """
    module_name = AGENTS.get(name, name)
    if name not in AGENTS and not _module_exists(module_name):
        raise PgkitError(unknown("agent", name, AGENTS, or_else="a module such as my_package.my_agent"))
    module = importlib.import_module(module_name)
    missing = [attribute for attribute in _CONTRACT if not hasattr(module, attribute)]
    if missing:
        raise PgkitError(f"module {module_name!r} is no agent: it does not define {', '.join(missing)}")
    if module.collects not in ("episodes", "steps"):
        raise PgkitError(f'{module_name}.collects must be "episodes" or "steps", got {module.collects!r}')
    return cast(Agent, module)


def _module_exists(name: str) -> bool:
    if not all(part.isidentifier() for part in name.split(".")):
        return False
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def shipped_configs() -> dict[str, Traversable]:
    """The configuration files inside the package, by name (file name without ``.toml``)."""
    found = (entry for entry in files("pgkit.configs").iterdir() if entry.name.endswith(".toml"))
    return {entry.name.removesuffix(".toml"): entry for entry in sorted(found, key=lambda entry: entry.name)}
