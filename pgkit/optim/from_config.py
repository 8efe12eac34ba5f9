"""From ``[optimizer]`` tables of a config, one per member, to one optimizer of the population."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pgkit.errors import PgkitError
from pgkit.optim.base import Optimizer
from pgkit.optim.partition import by_member, by_name, matches
from pgkit.optim.registry import AROUND, find, make
from pgkit.optim.schedules import full_settings
from pgkit.optim.validation import PerMember, check_keys

Settings = Mapping[str, Any]
"""A table as in the config: ``name``, hyperparameters, ``schedule``, ``max_grad_norm``, ``critic``, ``groups``."""


def from_settings(settings: Sequence[Settings]) -> Optimizer:
    """The optimizer of a population, one table per member.

    Members whose tables differ in numbers only are stacked; others go through :func:`by_member`.

    Raises:
        PgkitError: unknown name or key, or a value out of range.
    """
    tables = [describe(table) for table in settings]
    if not tables:
        raise PgkitError("from_settings: no members")
    structures = [_structure(table) for table in tables]
    distinct = list(dict.fromkeys(structures))
    kinds = [distinct.index(structure) for structure in structures]
    optimizers = [
        _stacked([table for table, own in zip(tables, kinds, strict=True) if own == kind])
        for kind in range(len(distinct))
    ]
    return optimizers[0] if len(optimizers) == 1 else by_member(optimizers, kinds)


def describe(settings: Settings) -> dict[str, dict[str, Any]]:
    """The effective settings of each group of parameters, defaults filled in, by label.

    ``main`` is what no other group takes; ``critic`` the parameters ``critic.*``; ``main *.bias`` and
    ``critic *.bias`` come from ``groups``.
    """
    table = dict(settings)
    critic = table.pop("critic", None)
    groups = _groups("main", table)
    if critic is None:
        return groups
    inherited = {key: value for key, value in table.items() if key in ("groups", "schedule", *AROUND)}
    if critic.get("name", table.get("name")) == table.get("name"):
        inherited = table
    elif "schedule" in inherited:
        own = find(critic["name"]).defaults
        inherited["schedule"] = {key: value for key, value in inherited["schedule"].items() if key in own}
    return _groups("critic", {**inherited, **critic}) | groups


def _groups(label: str, table: Settings) -> dict[str, dict[str, Any]]:
    table = dict(table)
    patterns = table.pop("groups", None) or {}
    described = {
        f"{label} {pattern}": _effective(f"group {pattern!r}", {**table, **own}) for pattern, own in patterns.items()
    }
    return described | {label: _effective(label, table)}


def _effective(label: str, table: Settings) -> dict[str, Any]:
    if "name" not in table:
        raise PgkitError(f"optimizer ({label}): the key 'name' is missing")
    recipe = find(table["name"])
    check_keys(f"optimizer {recipe.name!r} ({label})", table, ["name", "schedule", *recipe.defaults, *AROUND])
    effective = {"name": recipe.name, **recipe.defaults, **AROUND, **table}
    schedule = table.get("schedule") or {}
    check_keys(f"schedule of optimizer {recipe.name!r} ({label})", schedule, recipe.defaults)
    return effective | {"schedule": {key: full_settings(key, value) for key, value in schedule.items()}}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _structure(tree: Any) -> Any:
    """The tree with its numbers left out, hashable."""
    if isinstance(tree, Mapping):
        return tuple((key, _structure(value)) for key, value in tree.items())
    return "number" if _is_number(tree) else repr(tree)


def _stack(trees: Sequence[Any]) -> Any:
    """Trees of one structure as one, with a list of numbers where they had a number."""
    first = trees[0]
    if isinstance(first, Mapping):
        return {key: _stack([tree[key] for tree in trees]) for key in first}
    return PerMember(trees) if _is_number(first) else first


def _stacked(tables: Sequence[Mapping[str, Mapping[str, Any]]]) -> Optimizer:
    groups = {label: make(**group) for label, group in _stack(tables).items()}
    if list(groups) == ["main"]:
        return groups["main"]
    return by_name({label: (_accepts(label), optimizer) for label, optimizer in groups.items()})


def _accepts(label: str) -> Callable[[str], bool]:
    """Whether a parameter name belongs to a group of :func:`describe`, unless an earlier one takes it."""
    table, _, pattern = label.partition(" ")
    of_table = matches("critic.*" if table == "critic" else "*")
    of_pattern = matches(pattern or "*")
    return lambda name: of_table(name) and of_pattern(name)
