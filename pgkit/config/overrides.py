"""``key=value`` words of the command line, applied to a configuration table."""

import copy
import re
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

from pgkit.config import registry
from pgkit.errors import PgkitError
from pgkit.optim.registry import AROUND

Table = dict[str, Any]
Path = tuple[str, ...]

DEEPEST = 20
"""Levels of tables and lists."""

RECIPE_INDEPENDENT = ("name", "schedule", "critic", "groups", *AROUND)
"""Keys of ``[optimizer]`` that mean the same whatever the optimizer; all others belong to one recipe."""


def apply_overrides(table: Mapping[str, Any], overrides: Sequence[str]) -> tuple[Table, list[str]]:
    """A copy of ``table`` with the overrides applied, and a note for every setting that became void.

    A value is read as TOML; what is not TOML is text (``optimizer.name=rmsprop``). A key may have quoted parts
    (``optimizer.groups."*.bias".lr=1e-4``). The last of several overrides of one key wins.

    A hyperparameter belongs to the recipe it was chosen for: a learning rate of Adam's means nothing to SGD, and
    an ``eps`` of Adam's is not one of ``rmsprop_tf``. So when an override changes ``optimizer.name`` (or
    ``optimizer.critic.name``), the hyperparameters that the table held for the old recipe, ``lr`` included, are
    void; the clipping and the schedule of ``lr`` stay. When an override changes ``agent.name``, the settings
    that the new agent does not have are void, ``rollout_steps`` among them. Void settings fall back to the new
    recipe's defaults, and a setting on the same command line always stands.

    Raises:
        PgkitError: an override that is not ``key=value``, or a key that goes through something that is no table.
    """
    _check_depth(table)
    result: Table = copy.deepcopy(dict(table))
    parsed = [_parse(override) for override in overrides]
    notes = _drop_for_new_optimizers(result, dict(parsed)) + _drop_for_new_agent(result, dict(parsed))
    for path, value in parsed:
        _put(result, path, value)
    _check_depth(result)
    return result, notes


def _check_depth(table: Mapping[str, Any]) -> None:
    """No settings lie deeper; without end, they would be too deep for all that walks through them."""
    level: list[Any] = [table]
    for _ in range(DEEPEST):
        inner = (value.values() if isinstance(value, Mapping) else value for value in level)
        level = [value for values in inner for value in values if isinstance(value, Mapping | list)]
        if not level:
            return
    raise PgkitError(f"tables and lists lie in each other more than {DEEPEST} deep")


def _parse(override: str) -> tuple[Path, Any]:
    key, separator, text = override.partition("=")
    try:
        inner: Any = tomllib.loads(f"{key} = 0")
    except (ValueError, RecursionError):
        inner = 0
    path: list[str] = []
    while isinstance(inner, dict) and len(inner) == 1:
        ((part, inner),) = inner.items()
        path.append(part)
    if not separator or not 0 < len(path) <= DEEPEST or inner != 0:
        raise PgkitError(f"override {override!r} is not of the form key=value, such as optimizer.lr=3e-3")
    return tuple(path), _value(text.strip())


def _value(text: str) -> Any:
    if re.fullmatch(r"[+-]?(\d+\.|\.\d+)([eE][+-]?\d+)?", text):  # ".5" and "5.", which TOML does not allow
        return float(text)
    try:
        table = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):  # no TOML, an integer of thousands of digits, lists in lists without end
        return text
    return table["value"] if len(table) == 1 else text


def _put(table: Table, path: Path, value: Any) -> None:
    for depth, part in enumerate(path[:-1], start=1):
        inner = table.setdefault(part, {})
        if isinstance(inner, str) and "schedule" in path[: depth - 1]:  # a schedule's name is short for its table
            inner = table[part] = {"kind": inner}
        table = inner
        if not isinstance(table, dict):
            raise PgkitError(f"unknown key {'.'.join(path)!r}: {'.'.join(path[:depth])} is no table")
    table[path[-1]] = value


def _drop_for_new_optimizers(table: Table, overrides: Mapping[Path, Any]) -> list[str]:
    settings = table.get("optimizer")
    return _drop_recipe(settings, ("optimizer",), None, None, overrides) if isinstance(settings, dict) else []


def _drop_recipe(
    settings: Table, path: Path, old: str | None, new: str | None, overrides: Mapping[Path, Any]
) -> list[str]:
    """Removes what belongs to another recipe; ``old`` and ``new`` are those inherited from the parent table."""
    own = settings.get("name")
    old = own or old
    new = overrides.get((*path, "name"), own or new)
    notes = []
    if new != old:
        for key in [key for key in settings if key not in RECIPE_INDEPENDENT]:
            notes += _drop(settings, path, key, f"it was chosen for {old}, not for {new}", overrides)
        schedule = settings.get("schedule")
        for key in [key for key in schedule if key != "lr"] if isinstance(schedule, dict) else []:
            notes += _drop(settings["schedule"], (*path, "schedule"), key, f"it was chosen for {old}", overrides)
    groups = settings.get("groups")
    children: dict[Path, Any] = {("critic",): settings.get("critic")}
    children |= {("groups", name): group for name, group in groups.items()} if isinstance(groups, dict) else {}
    for name, child in children.items():
        if isinstance(child, dict):
            notes += _drop_recipe(child, (*path, *name), old, new, overrides)
    return notes


def _drop_for_new_agent(table: Table, overrides: Mapping[Path, Any]) -> list[str]:
    settings = table.get("agent")
    new = overrides.get(("agent", "name"))
    if not isinstance(settings, dict) or not isinstance(new, str) or settings.get("name") in (None, new):
        return []
    agent = registry.agent(new)
    notes = []
    for key in [key for key in settings if key != "name" and key not in agent.Config.model_fields]:
        notes += _drop(settings, ("agent",), key, f"agent {new} has no such setting", overrides)
    if agent.collects == "episodes" and "rollout_steps" in table:
        notes += _drop(table, (), "rollout_steps", f"agent {new} collects whole episodes", overrides)
    return notes


def _drop(table: Table, path: Path, key: str, reason: str, overrides: Mapping[Path, Any]) -> list[str]:
    """Removes ``key``; the note is empty when the command line gives it anew."""
    value = table.pop(key)
    return [] if (*path, key) in overrides else [f"{'.'.join((*path, key))} = {value} dropped: {reason}"]
