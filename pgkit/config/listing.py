"""The tables of `pgkit list`."""

import inspect
import tomllib
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args, get_origin

from pgkit import envs, optim
from pgkit.config.registry import AGENTS, agent, is_comparison, shipped_configs
from pgkit.errors import PgkitError, show, unknown
from pgkit.optim.registry import AROUND

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
