"""Overrides of single settings, ``key=value`` words or a dict, applied to a configuration table."""

import copy
import re
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

from pgkit.config import registry
from pgkit.config.aliases import KeyPath, canonical, from_options
from pgkit.errors import PgkitError, format_value
from pgkit.optim.around import AROUND
from pgkit.optim.registry import RESERVED, spec

Table = dict[str, Any]

Overrides = Sequence[str] | Mapping[str, Any]
"""``["optimizer.lr=3e-3"]`` as on the command line, or ``{"optimizer.lr": 3e-3}``."""

ParsedOverrides = Sequence[tuple[KeyPath, Any]]
"""The path and the value of each override, in their order."""

MAX_DEPTH = 20
"""Levels of tables and lists inside each other."""

OF_STEPS = ("rollout_steps", "epochs", "minibatches", "target_kl")
"""Keys beside the agent that belong to agents that collect steps."""

KEEP = "keep"
"""The override of a setting of agent or optimizer that holds it although another one comes in."""


def apply_overrides(table: Mapping[str, Any], overrides: Overrides) -> tuple[Table, list[str]]:
    """Return a copy of ``table`` with the overrides applied, and one note for every setting that was dropped.

    In words, a value is read as TOML; what is not TOML is text (``optimizer.name=rmsprop``). A key may have quoted
    parts (``optimizer.groups."*.bias".lr=1e-4``), in a dict as well. Words of other libraries that mean the same are
    taken (``learning_rate``, ``--seed 3``, ``env=Pendulum-v1``), see ``aliases.py``. The last of several overrides of
    one key wins.

    A hyperparameter belongs to the optimizer that it was chosen for: Adam's learning rate means nothing to SGD, and
    ``rmsprop_tf`` has no use for Adam's ``eps``. So when an override changes ``optimizer.name`` (or
    ``optimizer.critic.name``), the table's hyperparameters of the old optimizer, ``lr`` included, are dropped;
    clipping and the schedule of ``lr`` stay. ``optimizer.lr=keep`` holds a setting that would be dropped, and
    ``optimizer=keep`` all of them. When an override changes ``agent.name``, settings that the new agent
    does not have are dropped, ``rollout_steps`` among them. Dropped settings fall back to the defaults of the new
    optimizer or agent; what the overrides set themselves always stands.

    Raises:
        PgkitError: an override that is not ``key=value``, or a key that leads through a value that is not a table.
    """
    return apply_parsed(table, parse_overrides(overrides))


def apply_parsed(table: Mapping[str, Any], parsed: ParsedOverrides) -> tuple[Table, list[str]]:
    """Apply overrides like :func:`apply_overrides`."""
    _check_depth(table)
    result: Table = copy.deepcopy(dict(table))
    for path, value in parsed:
        if _holds(path, value) and lookup(table, path) is ...:
            raise PgkitError(f"{'.'.join(path)} = {KEEP}: the configuration has no {'.'.join(path)} that could be held")
    notes = _drop_for_new_optimizers(result, dict(parsed)) + _drop_for_new_agent(result, dict(parsed))
    for path, value in parsed:
        if not _holds(path, value):
            _put(result, path, value)
    _check_depth(result)
    return result, notes


def _holds(path: KeyPath, value: Any) -> bool:
    """Whether an override says that a setting stays."""
    return value == KEEP and path[0] in ("optimizer", "agent", *OF_STEPS) and path[-1] != "name"


def lookup(table: Mapping[str, Any], path: KeyPath) -> Any:
    """Return the value at a path, ``...`` if there is none."""
    value: Any = table
    for part in path:
        value = value.get(part, ...) if isinstance(value, Mapping) else ...
    return value


def _check_depth(table: Mapping[str, Any]) -> None:
    """Refuse endless nesting, which would exhaust the stack of whatever walks through the settings."""
    level: list[Any] = [table]
    for _ in range(MAX_DEPTH):
        inner = (value.values() if isinstance(value, Mapping) else value for value in level)
        level = [value for values in inner for value in values if isinstance(value, Mapping | list)]
        if not level:
            return
    raise PgkitError(f"tables and lists are nested more than {MAX_DEPTH} levels deep")


def parse_overrides(overrides: Overrides) -> ParsedOverrides:
    """Return the path and the value of each override.

    Raises:
        PgkitError: an override that is not ``key=value``.
    """
    if isinstance(overrides, Mapping):
        return [canonical(_parse_key(key, f"{key!r}"), copy.deepcopy(value)) for key, value in overrides.items()]
    if isinstance(overrides, str) or not isinstance(overrides, Sequence):
        shown = format_value(overrides)
        raise PgkitError(f'overrides must be a dict or a list such as ["optimizer.lr=3e-3"], got {shown}')
    words = from_options(overrides)
    return [canonical(*_parse_word(word, words[index + 1 :])) for index, word in enumerate(words)]


def _parse_word(word: str, following: Sequence[Any]) -> tuple[KeyPath, Any]:
    key, separator, text = word.partition("=") if isinstance(word, str) else (word, "", "")
    if not separator:
        raise PgkitError(_not_an_override(repr(word)) + _meant(word, following))
    path = _parse_key(key, repr(word))
    value = parse_value(text.strip())
    return path, text.strip() if path == ("name",) and not isinstance(value, str) else value  # name=nan is a name


def _parse_key(key: Any, source: str) -> KeyPath:
    """Split a dotted key as TOML does, so that quoted parts may contain dots."""
    try:
        inner: Any = tomllib.loads(f"{key} = 0") if isinstance(key, str) else 0
    except (ValueError, RecursionError):
        inner = 0
    path: list[str] = []
    while isinstance(inner, dict) and len(inner) == 1:
        ((part, inner),) = inner.items()
        path.append(part)
    if not 0 < len(path) <= MAX_DEPTH or inner != 0:
        raise PgkitError(_not_an_override(source))
    return tuple(path)


def _not_an_override(source: str) -> str:
    return f"override {source} is not of the form key=value, such as optimizer.lr=3e-3"


def _meant(word: Any, following: Sequence[Any]) -> str:
    """What was meant by a word without ``=``: a key before its value, or a piece of a list that the shell has cut."""
    if str(word).endswith(("]", "}")):
        return "; a value with blanks needs quotes: 'policy.hidden=[64, 64]'"
    value = next((str(each).lstrip("=") for each in following if each != "="), "")
    is_value = value and not value.startswith("-") and "=" not in value
    return f"; did you mean {word}={value}?" if is_value and str(word).replace(".", "").isidentifier() else ""


def parse_value(text: str) -> Any:
    """Return the value of a word: as TOML has it, else the text itself.

    >>> parse_value("1e-3"), parse_value("rmsprop"), parse_value("[64, 64]")
    (0.001, 'rmsprop', [64, 64])
    """
    if text in ("True", "False"):  # as Python writes them
        return text == "True"
    if re.fullmatch(r"[+-]?(\d+\.|\.\d+)([eE][+-]?\d+)?", text):  # ".5" and "5.", which TOML does not allow
        return float(text)
    try:
        table = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):  # not TOML, an integer of thousands of digits, endlessly nested lists
        return text
    return table["value"] if len(table) == 1 else text


def _put(table: Table, path: KeyPath, value: Any) -> None:
    for depth, part in enumerate(path[:-1], start=1):
        inner = table.setdefault(part, {})
        if isinstance(inner, str) and "schedule" in path[: depth - 1]:  # a schedule's name is short for its table
            inner = {"kind": inner}
            table[part] = inner
        table = inner
        if not isinstance(table, dict):
            raise PgkitError(f"unknown key {'.'.join(path)!r}: {'.'.join(path[:depth])} is not a table")
    table[path[-1]] = value


def _drop_for_new_optimizers(table: Table, overrides: Mapping[KeyPath, Any]) -> list[str]:
    settings = table.get("optimizer")
    if not isinstance(settings, dict):
        return []
    return _drop_hyperparameters(settings, ("optimizer",), None, None, overrides)


def _drop_hyperparameters(
    settings: Table, path: KeyPath, old: str | None, new: str | None, overrides: Mapping[KeyPath, Any]
) -> list[str]:
    """Remove hyperparameters of another optimizer; ``old`` and ``new`` are the names that the parent table implies."""
    name = settings.get("name")
    old = name or old
    new = overrides.get((*path, "name"), name or new)
    notes = []
    if new != old:
        for key in [key for key in settings if key not in RESERVED]:
            notes += _drop(settings, path, key, f"it was chosen for {old}, not for {new}", overrides, _has(new, key))
        schedule = settings.get("schedule")
        schedule = schedule if isinstance(schedule, dict) else {}
        for key in [key for key in schedule if key not in ("lr", *AROUND)]:
            where = (*path, "schedule")
            notes += _drop(schedule, where, key, f"it was chosen for {old}", overrides, _has(new, key))
    groups = settings.get("groups")
    children: dict[KeyPath, Any] = {("critic",): settings.get("critic")}
    children |= {("groups", name): group for name, group in groups.items()} if isinstance(groups, dict) else {}
    for part, child in children.items():
        if isinstance(child, dict):
            notes += _drop_hyperparameters(child, (*path, *part), old, new, overrides)
    return notes


def _drop_for_new_agent(table: Table, overrides: Mapping[KeyPath, Any]) -> list[str]:
    settings = table.get("agent")
    new = overrides.get(("agent", "name"))
    if not isinstance(settings, dict) or not isinstance(new, str) or settings.get("name") in (None, new):
        return []
    agent = registry.agent(new)
    notes = []
    for key in [key for key in settings if key != "name" and key not in agent.Config.model_fields]:
        notes += _drop(settings, ("agent",), key, f"agent {new} has no such setting", overrides)
    of_steps = [key for key in OF_STEPS if key in table and (key == "rollout_steps" or table[key] != 1)]
    for key in of_steps if agent.collects == "episodes" else ():
        notes += _drop(table, (), key, f"agent {new} collects whole episodes", overrides)
    return notes


def _drop(
    table: Table, path: KeyPath, key: str, reason: str, overrides: Mapping[KeyPath, Any], may_stay: bool = False
) -> list[str]:
    """Remove ``key``, unless an override holds it; there is no note if the overrides set it anew."""
    full = (*path, key)
    if any(_holds(full[:length], overrides.get(full[:length])) for length in range(1, len(full) + 1)):
        return []
    value = table.pop(key)
    hint = f"; {'.'.join(full)}={KEEP} holds it" if may_stay else ""
    set_anew = any(full[:length] in overrides for length in range(1, len(full) + 1))
    return [] if set_anew else [f"{'.'.join(full)} = {value} dropped: {reason}{hint}"]


def _has(optimizer: Any, hyperparameter: str) -> bool:
    """Whether there is such an optimizer, and it has this hyperparameter."""
    try:
        return hyperparameter in spec(optimizer).defaults
    except (PgkitError, TypeError):
        return False
