"""Read configurations from TOML files and write them."""

import tomllib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import ValidationError

from pgkit.config import names, registry
from pgkit.config.effects import check_effects
from pgkit.config.overrides import Overrides, ParsedOverrides, apply_parsed, parse_overrides
from pgkit.config.schema import TrainConfig
from pgkit.errors import PgkitError, PgkitWarning, explain_validation_error, format_value


def parse_config(table: Mapping[str, Any], source: str = "config") -> TrainConfig:
    """Validate a table as read from TOML.

    Args:
        table: keys and values of the configuration.
        source: what error messages call it, such as the name of its file.

    Raises:
        PgkitError: one line about the first mistake.
    """
    if not isinstance(table, Mapping):
        raise PgkitError(f"{source} must be a table of settings (a dict), got {format_value(table)}")
    try:
        return TrainConfig.model_validate(table)
    except ValidationError as error:
        raise PgkitError(f"{source}: {explain_validation_error(error, TrainConfig)}") from None


def load_config(name_or_path: str | Path, overrides: Overrides = ()) -> TrainConfig:
    """Load a configuration file, or a shipped configuration by its name.

    >>> import pgkit
    >>> config = pgkit.load_config("cartpole-reinforce", {"optimizer.lr": 0.1, "seeds": 20})
    >>> config.optimizer["name"], config.optimizer["lr"]
    ('adam', 0.1)

    Args:
        name_or_path: ``"my/config.toml"`` or ``"cartpole-reinforce"``; a file of that path comes first.
        overrides: ``{"optimizer.lr": 3e-3}`` or, as on the command line, ``["optimizer.lr=3e-3"]``. A new
            ``optimizer.name`` or ``agent.name`` drops settings that were chosen for the old one, with a
            :class:`~pgkit.errors.PgkitWarning` for each; ``{"optimizer.lr": "keep"}`` holds one, see
            :func:`pgkit.config.overrides.apply_overrides`.

    Raises:
        PgkitError: one line about the first mistake.
    """
    config, notes = read_config(name_or_path, overrides)
    for note in notes:
        warnings.warn(note, PgkitWarning, stacklevel=2)
    return config


def read_config(name_or_path: str | Path, overrides: Overrides = ()) -> tuple[TrainConfig, list[str]]:
    """Load a configuration like :func:`load_config`; also return one line for each setting that an override dropped."""
    return override_config(read_training_table(name_or_path), parse_overrides(overrides), str(name_or_path))


def read_training_table(name_or_path: str | Path) -> dict[str, Any]:
    """Read a TOML file like :func:`read_table`, and refuse a comparison.

    Raises:
        PgkitError: as :func:`read_table`, or the file is a comparison.
    """
    settings = read_table(name_or_path)
    if names.is_comparison(settings):
        raise PgkitError(f"{name_or_path} is a comparison: pgkit compare {name_or_path}")
    return settings


def override_config(
    settings: Mapping[str, Any], overrides: ParsedOverrides, source: str
) -> tuple[TrainConfig, list[str]]:
    """Validate a table with overrides; also return one line for each setting that an override dropped.

    Args:
        settings: as :func:`read_table` gives it.
        overrides: as :func:`pgkit.config.overrides.parse_overrides` gives them.
        source: what error messages call the table.

    Raises:
        PgkitError: one line about the first mistake.
    """
    table, notes = apply_parsed(settings, overrides)
    config = parse_config(table, source)
    with_effect = check_effects(config, settings, table, [path for path, _ in overrides])
    return (config if with_effect == table else parse_config(with_effect, source)), notes


def read_table(name_or_path: str | Path) -> dict[str, Any]:
    """Read a TOML file, or a shipped configuration by its name; ``name`` defaults to that of the file.

    Raises:
        PgkitError: there is no such file, or it cannot be read.
    """
    file = names.find_config(name_or_path)
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # not TOML, not UTF-8, an integer of thousands of digits
        raise PgkitError(f"{name_or_path} is not valid TOML: {error}") from None
    except OSError as error:
        raise PgkitError(f"{name_or_path} cannot be read: {error.strerror}") from None
    return {"name": file.name.removesuffix(".toml")} | table


def to_table(config: TrainConfig) -> dict[str, Any]:
    """Return the complete configuration as plain data, without settings that are None.

    ``logger`` is left out at its default, too, as no stored configuration had it before there were others.
    """
    table = config.model_dump(exclude_none=True)
    if config.logger == registry.DEFAULT_LOGGER:
        del table["logger"]
    return table


def flatten(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten a table of tables: ``{"env": {"id": 1}}`` becomes ``{"env.id": 1}``."""
    entries: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            entries |= flatten(value, f"{prefix}{key}.")
        else:
            entries[prefix + key] = value
    return entries


def to_toml(config: TrainConfig) -> str:
    """Return the complete configuration as TOML; loading it gives an equal configuration."""
    return tomli_w.dumps(to_table(config))
