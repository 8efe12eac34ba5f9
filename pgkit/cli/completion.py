"""What the shell completes: names of configurations and runs, and the keys that a configuration sets.

Nothing is imported here that takes long to load: every press of the tab key waits for it.
"""

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import typer


def config_names(incomplete: str) -> list[str]:
    """Shipped configurations of ``pgkit train``; files are completed by the shell."""
    from pgkit.config.names import is_comparison

    return [name for name, table in _tables().items() if not is_comparison(table) and name.startswith(incomplete)]


def comparison_names(incomplete: str) -> list[str]:
    """Shipped configurations of ``pgkit compare``."""
    from pgkit.config.names import is_comparison

    return [name for name, table in _tables().items() if is_comparison(table) and name.startswith(incomplete)]


def run_names(incomplete: str) -> list[str]:
    """Runs below ``runs/``."""
    names = sorted(path.parent.name for path in Path("runs").glob("*/config.toml"))
    return [name for name in names if name.startswith(incomplete)]


def topics(incomplete: str) -> list[str]:
    """What ``pgkit list`` lists."""
    return [name for name in ("agents", "configs", "envs", "optimizers", "pretrained") if name.startswith(incomplete)]


def policy_names(incomplete: str) -> list[str]:
    """Policies that pgkit ships."""
    from pgkit import pretrained

    return [name for name in pretrained.names() if name.startswith(incomplete)]


def config_keys(context: typer.Context, incomplete: str) -> list[str]:
    """The keys that the named configuration sets, with their values, to be edited: ``optimizer.lr=0.003``."""
    table = _tables().get(context.params.get("config") or context.params.get("comparison") or "", {})
    return [word for word in _assignments(table) if word.startswith(incomplete)]


def _assignments(table: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Each number, text and truth value of a table as ``key=value``."""
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _assignments(value, f"{prefix}{key}.")
        elif isinstance(value, bool):
            yield f"{prefix}{key}={str(value).lower()}"
        elif isinstance(value, int | float | str) and " " not in str(value):
            yield f"{prefix}{key}={value}"


def _tables() -> dict[str, dict[str, Any]]:
    from pgkit.config.names import shipped_configs

    return {name: tomllib.loads(file.read_text(encoding="utf-8")) for name, file in shipped_configs().items()}
