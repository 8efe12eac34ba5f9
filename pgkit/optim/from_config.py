"""Make one optimizer of a population from the ``[optimizer]`` tables of its members' configs."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from pgkit.errors import PgkitError
from pgkit.optim.around import AROUND, AROUND_ALL, DETAILS, SCHEDULED, around_all
from pgkit.optim.base import Optimizer
from pgkit.optim.partition import by_member, by_name, matches
from pgkit.optim.registry import make, spec
from pgkit.optim.schedules import full_settings, schedule_of
from pgkit.optim.validation import PerMember, check_keys, is_none

Settings = Mapping[str, Any]
"""A table as in a config: ``name``, hyperparameters, ``schedule``, ``max_grad_norm``, ``critic``, ``groups``."""


def from_config(tables: Sequence[Settings]) -> Optimizer:
    """Make the optimizer of a population, one table per member.

    >>> from pgkit.optim import from_config
    >>> optimizer = from_config([{"name": "adam", "lr": 1e-3}, {"name": "adam", "lr": 1e-2}, {"name": "sgd"}])
    >>> [len(part.transforms) for part in optimizer.parts]  # members 0 and 1 are stacked
    [1, 1]

    Members whose tables differ in numbers only share one optimizer; different ones are joined by
    :func:`~pgkit.optim.partition.by_member`.

    Raises:
        PgkitError: no table, an unknown name or key, or a value out of range.
    """
    described = [describe(table) for table in tables]
    if not described:
        raise PgkitError("from_config: no members")
    groups = _number_groups(described)
    optimizers = [
        _stacked([table for table, group in zip(described, groups, strict=True) if group == index])
        for index in range(max(groups) + 1)
    ]
    return optimizers[0] if len(optimizers) == 1 else by_member(optimizers, groups)


def groups_of(tables: Sequence[Settings]) -> list[int]:
    """Return the group of each member in the optimizer that :func:`from_config` makes of these tables.

    >>> from pgkit.optim import groups_of
    >>> groups_of([{"name": "adam", "lr": 1e-3}, {"name": "sgd", "lr": 1e-2}, {"name": "adam", "lr": 1e-2}])
    [0, 1, 0]
    """
    return _number_groups([describe(table) for table in tables])


def _number_groups(described: Sequence[dict[str, dict[str, Any]]]) -> list[int]:
    structures = [
        tuple((label, _structure(group, spec(group["name"]).common)) for label, group in groups.items())
        for groups in described
    ]
    distinct = list(dict.fromkeys(structures))
    return [distinct.index(structure) for structure in structures]


def describe(settings: Settings) -> dict[str, dict[str, Any]]:
    """Fill in the defaults of a table, for each group of parameters, by label.

    >>> from pgkit.optim import describe
    >>> describe({"name": "sgd", "lr": 0.1, "critic": {"lr": 0.2}})["critic"]["lr"]
    0.2

    The group ``critic`` has the parameters ``critic.*``, ``main *.bias`` and ``critic *.bias`` come from ``groups``,
    and ``main`` has the rest.

    Raises:
        PgkitError: an unknown name or key.
    """
    table = dict(settings)
    critic = table.pop("critic", None)
    groups = _groups("main", table)
    if critic is None:
        return _with_one_around_all(groups)
    inherited = {key: value for key, value in table.items() if key in ("groups", "schedule", *AROUND)}
    if critic.get("name", table.get("name")) == table.get("name"):
        inherited = table
    elif "schedule" in inherited:
        scheduled = (*spec(critic["name"]).defaults, *SCHEDULED)
        inherited["schedule"] = {key: value for key, value in inherited["schedule"].items() if key in scheduled}
    return _with_one_around_all(_groups("critic", _inherited(inherited, critic)) | groups)


def _with_one_around_all(groups: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Leave what is around all groups (``kl_limit`` and so on) to the group ``main``.

    Raises:
        PgkitError: a group has another value of it.
    """
    for label, settings in groups.items():
        for key, default in AROUND_ALL.items():
            same = settings["schedule"].get(key) in (None, groups["main"]["schedule"].get(key))
            if not same or settings[key] not in (default, groups["main"][key]):
                raise PgkitError(f"optimizer ({label}): {key} is of the whole policy: set optimizer.{key}")
    return {label: settings if label == "main" else _without_around_all(settings) for label, settings in groups.items()}


def _without_around_all(settings: Mapping[str, Any]) -> dict[str, Any]:
    rest = {key: value for key, value in settings.items() if key not in AROUND_ALL}
    schedule = {key: value for key, value in rest["schedule"].items() if key not in AROUND_ALL}
    return rest | {"schedule": schedule}


def _inherited(table: Settings, changes: Settings) -> dict[str, Any]:
    """A table with changes; where they turn a part off, its details are not inherited."""
    off = {key for key, value in changes.items() if value is False or is_none(value, None)}
    rest = {key: value for key, value in table.items() if DETAILS.get(key) not in off}
    return {**rest, **changes}


def _groups(label: str, settings: Settings) -> dict[str, dict[str, Any]]:
    """Describe the patterns in ``groups`` of one table, and the rest."""
    table = dict(settings)
    patterns = table.pop("groups", None) or {}
    described = {
        f"{label} {pattern}": _effective(f"group {pattern!r}", _inherited(table, changes))
        for pattern, changes in patterns.items()
    }
    return described | {label: _effective(label, table)}


def _effective(label: str, table: Settings) -> dict[str, Any]:
    """Check one group's table, and fill in its defaults."""
    if "name" not in table:
        raise PgkitError(f"optimizer ({label}): the key 'name' is missing")
    entry = spec(table["name"])
    check_keys(f"optimizer {entry.name!r} ({label})", table, ["name", "schedule", *entry.defaults, *AROUND])
    effective = {"name": entry.name, **entry.with_defaults(table)}
    schedule = table.get("schedule") or {}
    check_keys(f"schedule of optimizer {entry.name!r} ({label})", schedule, [*entry.defaults, *SCHEDULED])
    return effective | {"schedule": {key: full_settings(key, value) for key, value in schedule.items()}}


def check_groups(table: Settings, parameters: Iterable[str]) -> None:
    """Check that every pattern in ``groups`` of a table is obeyed by at least one parameter.

    >>> from pgkit.optim.from_config import check_groups
    >>> check_groups({"name": "sgd", "groups": {"bias": {"lr": 0.1}}}, ["actor.bias"])
    Traceback (most recent call last):
        ...
    pgkit.errors.PgkitError: optimizer.groups."bias" matches no parameter, did you mean "*.bias"? (actor.bias)

    Args:
        table: an ``[optimizer]`` table.
        parameters: the names of the policy's parameters.

    Raises:
        PgkitError: a pattern matches none, or only such that belong to patterns before it.
    """
    names = list(parameters)
    critic = table.get("critic") or {}
    patterns = [("optimizer.groups", pattern) for pattern in table.get("groups") or {}]
    patterns += [("optimizer.critic.groups", pattern) for pattern in critic.get("groups") or {}]
    if not patterns:
        return
    labels = list(describe(table))
    used = {next(label for label in labels if _accepts(label)(name)) for name in names}
    for key, pattern in patterns:
        tables = ("main", "critic") if key == "optimizer.groups" else ("critic",)
        if used.isdisjoint(f"{table_name} {pattern}" for table_name in tables):
            raise PgkitError(_explain_pattern(key, pattern, names))


def _explain_pattern(key: str, pattern: str, names: Sequence[str]) -> str:
    """Say why a pattern has no parameter."""
    if key == "optimizer.critic.groups":
        names = [name for name in names if matches("critic.*")(name)]
    if any(map(matches(pattern), names)):
        return f'{key}."{pattern}" has no effect: patterns before it match all of its parameters'
    guesses = [guess for guess in (f"*.{pattern}", f"{pattern}.*", f"*{pattern}*") if any(map(matches(guess), names))]
    hint = f', did you mean "{guesses[0]}"?' if guesses else ""
    return f'{key}."{pattern}" matches no parameter{hint} ({", ".join(names)})'


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _structure(tree: Any, common: Collection[str] = ()) -> Any:
    """Return the tree without its numbers, except ``common`` ones, hashable: equal for tables that can be stacked."""
    if isinstance(tree, Mapping):
        return tuple((key, repr(value) if key in common else _structure(value)) for key, value in tree.items())
    return "number" if _is_number(tree) else repr(tree)


def _stack(trees: Sequence[Any]) -> Any:
    """Merge trees of one structure into one, with a list of numbers in place of each number."""
    first = trees[0]
    if isinstance(first, Mapping):
        return {key: _stack([tree[key] for tree in trees]) for key in first}
    return PerMember(trees) if _is_number(first) else first


def _stacked(tables: Sequence[Mapping[str, Mapping[str, Any]]]) -> Optimizer:
    """Make one optimizer for members whose tables differ in numbers only.

    What is around all parameters, such as ``kl_limit``, is around all groups of them.
    """
    stacked = _stack(tables)
    main = stacked["main"]
    whole = {key: main[key] for key in AROUND_ALL}
    for key, settings in main["schedule"].items():
        if key in AROUND_ALL:
            whole[key] = schedule_of(key, main[key], settings)
    groups = {label: make(**_without_around_all(group)) for label, group in stacked.items()}
    names = {label: (_accepts(label), optimizer) for label, optimizer in groups.items()}
    return around_all(groups["main"] if list(groups) == ["main"] else by_name(names), **whole)


def _accepts(label: str) -> Callable[[str], bool]:
    """Return a predicate: does a parameter name belong to this group of :func:`describe`?

    Groups are asked in order, so ``main`` gets only what no group before it accepts.
    """
    table, _, pattern = label.partition(" ")
    in_table = matches("critic.*" if table == "critic" else "*")
    in_pattern = matches(pattern or "*")
    return lambda name: in_table(name) and in_pattern(name)
