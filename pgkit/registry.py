"""Names that users type, what they stand for, and what can be said about each: agents, configurations and more."""

import importlib
import importlib.util
import inspect
import tomllib
from collections.abc import Callable, Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Literal, Protocol, cast, get_args, get_origin

from pydantic import BaseModel
from torch import Tensor

from pgkit import envs, optim
from pgkit.explain import show, unknown
from pgkit.optim.registry import AROUND
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
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever the module does
        raise PgkitError(f"agent {name!r} cannot be imported: {type(error).__name__}: {error}") from error
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
    except (ImportError, ValueError):  # a package above it that cannot be imported; a module without a specification
        return False


def shipped_configs() -> dict[str, Traversable]:
    """The configuration files inside the package, by name (file name without ``.toml``)."""
    found = (entry for entry in files("pgkit.configs").iterdir() if entry.name.endswith(".toml"))
    return {entry.name.removesuffix(".toml"): entry for entry in sorted(found, key=lambda entry: entry.name)}


def is_comparison(table: Mapping[str, Any]) -> bool:
    """Whether a configuration is one of ``pgkit compare``, not of ``pgkit train``."""
    return "environments" in table


def find_config(name_or_path: str | Path) -> Path | Traversable:
    """The configuration file of that path, or else the shipped one of that name.

    Raises:
        PgkitError: there is neither.
    """
    path = Path(name_or_path)
    try:
        if path.is_file():
            return path
    except OSError as error:
        raise PgkitError(f"configuration {show(str(name_or_path))} cannot be looked for: {error.strerror}") from None
    shipped = shipped_configs()
    name = str(name_or_path)
    if name in shipped:
        return shipped[name]
    if path.is_dir():
        raise PgkitError(f"{name} is a directory, not a configuration file")
    if path.suffix == ".toml" or len(path.parts) > 1:
        raise PgkitError(f"there is no configuration file {name}")
    raise PgkitError(unknown("config", name, shipped, or_else="the path of a .toml file"))


Row = dict[str, str]


def overview(kind: str) -> list[Row]:
    """One row for each of the ``kind``: "agents", "optimizers", "configs" or "envs".

    Raises:
        PgkitError: another kind.
    """
    return _kind(kind)[0]()


def describe(kind: str, name: str) -> str:
    """All about one of the ``kind``, as text.

    Raises:
        PgkitError: there is no such kind, or none of that name.
    """
    return _kind(kind)[1](name)


def _kind(kind: str) -> tuple[Callable[[], list[Row]], Callable[[str], str]]:
    kinds = {
        "agents": (_agent_rows, _agent_text),
        "optimizers": (_optimizer_rows, _optimizer_text),
        "configs": (_config_rows, _config_text),
        "envs": (_env_rows, _env_text),
    }
    if kind not in kinds:
        raise PgkitError(unknown("kind", kind, kinds))
    return kinds[kind]


def _agent_rows() -> list[Row]:
    return [
        {"name": name, "collects": agent(name).collects, "what": _doc(agent(name)).partition("\n")[0]}
        for name in AGENTS
    ]


def _agent_text(name: str) -> str:
    module = agent(name)
    lines = [_doc(module), "", f"Collects {module.collects}. Settings (agent.*), with defaults:"]
    for field, info in module.Config.model_fields.items():
        choices = map(show, get_args(info.annotation)) if get_origin(info.annotation) is Literal else ()
        kind = " | ".join(choices) or inspect.formatannotation(info.annotation)
        limits = [f"{_SIGNS[name]} {bound:g}" for limit in info.metadata for name, bound in _bounds(limit)]
        about = f"{', '.join([kind, *limits])}: {info.description or ''}".removesuffix(": ")
        lines.append(f"  {field} = {show(info.default)}  ({about})")
    return "\n".join(lines)


_SIGNS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}


def _bounds(limit: Any) -> list[tuple[str, float]]:
    """The bounds in a piece of pydantic's field metadata, such as ``Ge(ge=0)``."""
    return [(name, getattr(limit, name)) for name in _SIGNS if hasattr(limit, name)]


def _doc(module: Any) -> str:
    return inspect.getdoc(module) or ""


def _config_rows() -> list[Row]:
    rows = []
    for name, file in shipped_configs().items():
        table = tomllib.loads(file.read_text(encoding="utf-8"))
        comparison = is_comparison(table)
        what = (
            (table["environments"], table["agents"], table["optimizers"])
            if comparison
            else ([table["env"]["id"]], [table["agent"]["name"]], [table["optimizer"]["name"]])
        )
        columns = zip(("environment", "agent", "optimizer"), map(", ".join, what), strict=True)
        rows.append({"name": name, "command": "compare" if comparison else "train", **dict(columns)})
    return rows


def _config_text(name: str) -> str:
    configs = shipped_configs()
    if name not in configs:
        raise PgkitError(unknown("config", name, configs))
    return configs[name].read_text(encoding="utf-8").rstrip()


def _optimizer_rows() -> list[Row]:
    rows = []
    for recipe in optim.recipes().values():
        formula = " ".join(recipe.formula.partition("\n\n")[0].split())
        defaults = _assignments(recipe.defaults)
        rows.append({"name": recipe.name, "formula": formula, "defaults": defaults, "source": recipe.source})
    return rows


def _optimizer_text(name: str) -> str:
    recipes = optim.recipes()
    if name not in recipes:
        raise PgkitError(unknown("optimizer", name, recipes))
    recipe = recipes[name]
    return (
        f"{recipe.formula}\n\nSource: {recipe.source}\n\nHyperparameters (optimizer.*), with defaults:\n  "
        f"{_assignments(recipe.defaults)}\nWith any optimizer:\n  {_assignments(AROUND)}, schedule, critic, groups"
    )


def _assignments(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in settings.items())


def _env_rows() -> list[Row]:
    return [{"name": name} for name in envs.list_envs()]


def _env_text(name: str) -> str:
    made = envs.make_envs(name, 1)
    try:
        info = made.info
        limit = info.max_episode_steps or "none"
        return (
            f"{info.name}\n  observations: {info.obs_dim} numbers\n  actions: {info.action_space}\n"
            f"  time limit: {limit}\n  backend: {info.backend}"
        )
    finally:
        made.close()
