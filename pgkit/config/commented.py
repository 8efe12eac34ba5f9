"""A resolved configuration as TOML with a comment for each key, for ``pgkit config``."""

import textwrap
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import tomli_w
from pydantic import BaseModel

from pgkit import optim
from pgkit.config.listing import field_type, inner_model
from pgkit.config.schema import TrainConfig
from pgkit.optim.around import AROUND, describe_around

WIDTH = 100
"""Columns of a comment."""

UNSAID = ("text", "table", "true or false")
"""Types that the value itself shows."""


class Entry(NamedTuple):
    """A key as it is printed.

    Attributes:
        key: its name in its table.
        value: None where it is not set.
        about: the comment above it.
        unset: what holds where it is not set.
    """

    key: str
    value: Any
    about: str
    unset: str = "not set"


def to_commented_toml(config: TrainConfig) -> str:
    """Return the complete configuration as TOML, with a comment for each key; loading it gives an equal configuration.

    Keys that are not set are comments, so that all of them can be seen.

    >>> import pgkit
    >>> from pgkit.config.commented import to_commented_toml
    >>> "# Parallel environments of each run (integer >= 1)." in to_commented_toml(pgkit.load_config("cartpole-ppo"))
    True
    """
    fields = type(config).model_fields
    tables = {name: getattr(config, name) for name, field in fields.items() if inner_model(field) is not None}
    tables = {name: table for name, table in tables.items() if table is not None}
    top = [entry for entry in _model_entries(config) if entry.key not in (*tables, "agent", "optimizer")]
    blocks = [_lines(top)]
    for name, table in tables.items():
        blocks.append(_table(name, fields[name].description or "", _model_entries(table)))
    blocks.append(_table("agent", "The agent, one of pgkit list agents or a module.", _agent_entries(config)))
    blocks += _optimizer_tables(config.optimizer)
    return "\n\n".join("\n".join(block) for block in blocks) + "\n"


def _model_entries(model: BaseModel) -> Iterator[Entry]:
    """The keys of a table, by its model."""
    for name, field in type(model).model_fields.items():
        values = field_type(field)
        yield Entry(name, getattr(model, name), _sentence(field.description or "", "" if values in UNSAID else values))


def _agent_entries(config: TrainConfig) -> Iterator[Entry]:
    yield Entry("name", config.agent["name"], "")
    yield from _model_entries(config.agent_config)


def _optimizer_tables(settings: Mapping[str, Any]) -> Iterator[list[str]]:
    """The tables ``[optimizer]``, with all keys that it may have, and ``[optimizer.critic]``."""
    table = {key: value for key, value in settings.items() if key != "critic"}
    spec = optim.spec(table["name"])
    about = f"The optimizer, one of pgkit list optimizers or a class: {spec.formula.partition(chr(10) * 2)[0]}"
    others = {key: default for key, default in {**spec.defaults, **AROUND}.items() if key not in table}
    yield _table("optimizer", about, [*_optimizer_entries(table), *_optimizer_entries(others, are_set=False)])
    if "critic" in settings:
        about = "The optimizer of the critic; what is not stated is as above."
        yield _table("optimizer.critic", about, _optimizer_entries(settings["critic"]))


def _optimizer_entries(table: Mapping[str, Any], are_set: bool = True) -> Iterator[Entry]:
    """The keys of an optimizer's table, or those that it lacks with their defaults."""
    texts = describe_around() | {
        "name": "",
        "lr": "learning rate",
        "schedule": "schedule of any hyperparameter, such as linear",
        "groups": "settings of the parameters whose names match, such as *.bias",
    }
    for key, value in table.items():
        about = _sentence(texts.get(key, "see the formula above"))
        yield Entry(key, value if are_set else None, about, f"default {'none' if value is None else _literal(value)}")


def _table(name: str, about: str, entries: Iterable[Entry]) -> list[str]:
    return [*_comment(about), f"[{name}]", *_lines(entries)]


def _lines(entries: Iterable[Entry]) -> list[str]:
    """Each entry below its comment, and a comment alone for what is not set."""
    lines: list[str] = []
    for key, value, about, unset in entries:
        if value is None:
            lines += _comment(f"{key}, {unset}: {about}")
        else:
            lines += [*_comment(about), f"{_key(key)} = {_literal(value)}"]
    return lines


def _sentence(text: str, values: str = "") -> str:
    """A description as a sentence, with the allowed values in brackets."""
    text = text.removesuffix(".") + (f" ({values})" if values else "")
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _comment(text: str) -> list[str]:
    text = " ".join(text.replace("``", "`").split())
    return textwrap.wrap(text, WIDTH, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)


def _literal(value: Any) -> str:
    """A value as TOML on one line."""
    if isinstance(value, Mapping):
        inner = ", ".join(f"{_key(key)} = {_literal(entry)}" for key, entry in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_literal, value))}]"
    return tomli_w.dumps({"x": value}).removeprefix("x = ").rstrip("\n")


def _key(key: str) -> str:
    """A key, in quotes where it needs them."""
    return tomli_w.dumps({key: 0}).removesuffix(" = 0\n")
