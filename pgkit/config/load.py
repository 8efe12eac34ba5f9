"""Read configurations from TOML files and write them."""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import ValidationError

from pgkit.config import registry
from pgkit.config.overrides import apply_overrides
from pgkit.config.schema import TrainConfig
from pgkit.errors import PgkitError, explain


def parse_config(table: Mapping[str, Any], source: str = "config") -> TrainConfig:
    """Validates a table as read from TOML; ``source`` is what errors call it.

    Raises:
        PgkitError: one line for the first mistake.
    """
    try:
        return TrainConfig.model_validate(table)
    except ValidationError as error:
        raise PgkitError(f"{source}: {explain(error, TrainConfig)}") from None


def load_config(name_or_path: str | Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """The configuration of that path, or else the shipped one of that name.

    Args:
        name_or_path: ``"my/config.toml"`` or ``"cartpole-reinforce"``.
        overrides: ``"optimizer.lr=3e-3"`` and the like; see :func:`pgkit.config.overrides.apply_overrides`, also for
            what a change of ``optimizer.name`` or ``agent.name`` does to the rest of its table.

    Raises:
        PgkitError: one line for the first mistake.
    """
    return read_config(name_or_path, overrides)[0]


def read_config(name_or_path: str | Path, overrides: Sequence[str] = ()) -> tuple[TrainConfig, list[str]]:
    """As :func:`load_config`, with one line for each setting of the file that an override made void."""
    read = read_table(name_or_path)
    if registry.is_comparison(read):
        raise PgkitError(f"{name_or_path} is a comparison: pgkit compare {name_or_path}")
    table, notes = apply_overrides(read, overrides)
    return parse_config(table, str(name_or_path)), notes


def read_table(name_or_path: str | Path) -> dict[str, Any]:
    """What the file of that path, or else the shipped configuration of that name, says; ``name`` is the file's.

    Raises:
        PgkitError: there is none, or it cannot be read.
    """
    file = registry.find_config(name_or_path)
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # no TOML, no UTF-8, an integer of thousands of digits
        raise PgkitError(f"{name_or_path} is not valid TOML: {error}") from None
    except OSError as error:
        raise PgkitError(f"{name_or_path} cannot be read: {error.strerror}") from None
    return {"name": file.name.removesuffix(".toml")} | table


def to_table(config: TrainConfig) -> dict[str, Any]:
    """The configuration as plain data, complete; settings that are None are left out."""
    return config.model_dump(exclude_none=True)


def to_toml(config: TrainConfig) -> str:
    """The configuration as TOML, complete; loading it gives an equal one."""
    return tomli_w.dumps(to_table(config))
