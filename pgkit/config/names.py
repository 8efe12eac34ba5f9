"""Names of agents and shipped configurations, and what is meant by names that are neither; light, without torch."""

import re
import tomllib
from collections.abc import Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from pgkit.errors import PgkitError, format_value, unknown_name

AGENTS = {
    "reinforce": "pgkit.agents.reinforce",
    "actor-critic": "pgkit.agents.actor_critic",
    "ppo": "pgkit.agents.ppo",
}
"""Module of each shipped agent; any other agent is the dotted name of a module."""

AGENT_SYNONYMS = {"a2c": "actor-critic", "a3c": "actor-critic", "ac": "actor-critic", "vpg": "reinforce"}
"""Names of agents in other libraries."""

OFF_POLICY = frozenset(["c51", "ddpg", "dqn", "iqn", "qr-dqn", "qrdqn", "rainbow", "sac", "td3", "tqc"])
"""Agents of other libraries that pgkit has not."""

OPTIMIZER_AGENTS = ("npg", "trpo")
"""What are agents in other libraries, and optimizers here."""

EXAMPLE = "pgkit train cartpole-ppo env=Acrobot-v1 agent=a2c seed=3"

_OFF_POLICY_HINT = f"it is off-policy, and pgkit's agents are on-policy: {', '.join(AGENTS)}"


def agent_name(name: str) -> str:
    """Return pgkit's name of an agent: ``A2C`` and ``actor_critic`` are ``actor-critic``; others stand as they are."""
    lower = name.lower().replace("_", "-")
    lower = AGENT_SYNONYMS.get(lower, lower)
    return lower if lower in AGENTS else name


def unknown_agent(name: str) -> str:
    """Say that there is no such agent, and what to use instead."""
    lower = name.lower().replace("_", "-")
    if lower in OFF_POLICY:
        return f"unknown agent {name!r}: {_OFF_POLICY_HINT}"
    if lower in OPTIMIZER_AGENTS:
        return f"unknown agent {name!r}: it is an optimizer in pgkit: agent=actor-critic optimizer={lower}"
    return unknown_name("agent", name, AGENTS, or_else="a module such as my_package.my_agent")


def shipped_configs() -> dict[str, Traversable]:
    """Return the configuration files inside the package by name (file name without ``.toml``)."""
    entries = (entry for entry in files("pgkit.configs").iterdir() if entry.name.endswith(".toml"))
    return {entry.name.removesuffix(".toml"): entry for entry in sorted(entries, key=lambda entry: entry.name)}


def is_comparison(table: Mapping[str, Any]) -> bool:
    """Whether a table is a configuration of ``pgkit compare`` rather than ``pgkit train``."""
    return "environments" in table


def find_config(name_or_path: str | Path) -> Path | Traversable:
    """Find the configuration file of that path, or else the shipped one of that name.

    Raises:
        PgkitError: there is neither, or ``name_or_path`` is neither text nor a path.
    """
    if not isinstance(name_or_path, str | Path):
        shown = format_value(name_or_path)  # type: ignore[unreachable] # callers without type checker
        raise PgkitError(f"a configuration is the path of a TOML file or a shipped name, got {shown}")
    path = Path(name_or_path)
    try:
        if path.is_file():
            return path
    except OSError as error:
        raise PgkitError(f"configuration {format_value(str(name_or_path))} cannot be read: {error.strerror}") from None
    shipped = shipped_configs()
    name = str(name_or_path)
    if name in shipped:
        return shipped[name]
    if path.is_dir():
        raise PgkitError(f"{name} is a directory, not a configuration file")
    raise PgkitError(_unknown_config(name, path, shipped))


def _unknown_config(name: str, path: Path, shipped: Mapping[str, Traversable]) -> str:
    """Say that there is no such configuration; what is meant may be an agent, an environment or an override."""
    lower = name.lower().replace("_", "-")
    if name.startswith("-") or "=" in name:
        return f"the name of a configuration comes before {name}: {EXAMPLE} (names: pgkit list configs)"
    if name.removesuffix(".toml") in shipped:
        return f"there is no configuration file {name}; the shipped configuration is called {path.stem}"
    if path.suffix == ".toml" or len(path.parts) > 1:
        return f"there is no configuration file {name}"
    environment, _, agent = lower.rpartition("-")
    lower = f"{environment}-{agent_name(agent)}" if agent in AGENT_SYNONYMS else lower
    if lower in shipped:
        return f"unknown config {name!r}, did you mean {lower!r}? (all: pgkit list configs)"
    return _not_a_config(name, lower, shipped) or unknown_name("config", name, shipped, "the path of a .toml file")


def _not_a_config(name: str, lower: str, shipped: Mapping[str, Traversable]) -> str:
    """Say which configurations have the agent or the environment of this name; empty if it is neither."""
    if lower in OFF_POLICY:
        return f"unknown config {name!r}: {_OFF_POLICY_HINT}"
    tables = {each: tomllib.loads(file.read_text(encoding="utf-8")) for each, file in shipped.items()}
    trained = {each: table for each, table in tables.items() if not is_comparison(table)}
    agent = agent_name(name)
    if agent in AGENTS:
        choices = [each for each, table in trained.items() if table["agent"]["name"] == agent]
        return (
            f"{name!r} is an agent, not a configuration: pgkit train {' or '.join(choices)}, or any with agent={agent}"
        )
    choices = [each for each, table in trained.items() if lower in _names_of(table["env"]["id"])]
    if choices:
        return f"{name!r} is an environment, not a configuration: pgkit train {' or '.join(choices)}"
    if re.search(r"-v\d+$", name):
        return (
            f"{name!r} is an environment, not a configuration: pgkit train NAME env={name} (names: pgkit list configs)"
        )
    return ""


def _names_of(environment: str) -> tuple[str, str]:
    """Names under which one may look for an environment: ``cartpole-v1`` and ``cartpole``."""
    return environment.lower(), environment.lower().rpartition("-v")[0]
