"""Digests of code that is not pgkit's but that a run uses: own agents, optimizers, networks, environments and
callbacks."""

import ast
import hashlib
import importlib.util
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import Any

from pgkit.config.schema import TrainConfig
from pgkit.envs.registry import registered_module
from pgkit.errors import PgkitError
from pgkit.optim import registry


def describe(configs: Sequence[TrainConfig]) -> dict[str, str]:
    """Digests of own modules, and versions of installed packages, that agents, optimizers, networks and
    environments come from.

    A module brings along the own modules that it imports. What was given as an object without a module that can be
    found, as in a notebook, is left out.
    """
    described: dict[str, str] = {}
    pending = sorted({name for config in configs for name in _modules(config)})
    seen: set[str] = set()
    while pending:
        name = pending.pop()
        if name in seen or name.partition(".")[0] in ("pgkit", "torch", "gymnasium"):
            continue
        seen.add(name)
        file = _source(name)
        if file is None:
            continue
        if _is_installed(file):
            described |= _versions(name.partition(".")[0])
        else:
            text = file.read_bytes()
            described[f"code of {name}"] = hashlib.sha256(text).hexdigest()[:16]
            pending += _imports(name, file, text)
    return dict(sorted(described.items()))


def _modules(config: TrainConfig) -> Iterator[str]:
    """Names of the modules that a configuration leads to."""
    yield str(getattr(config.agent_module, "__name__", ""))
    module, _, env_name = config.env.id.rpartition(":")
    yield module
    gymnasium: Any = sys.modules.get("gymnasium")  # environments of pgkit's own and EnvPool's do without
    registered = gymnasium.registry.get(env_name) if gymnasium is not None else None
    entry_point: Any = getattr(registered, "entry_point", None)
    yield entry_point.partition(":")[0] if isinstance(entry_point, str) else getattr(entry_point, "__module__", "")
    yield registered_module(env_name)
    for named in (config.policy.network, *(str(wrapper["name"]) for wrapper in config.env.wrappers)):
        yield named.rpartition(":")[0]
    yield from _optimizer_modules(config.optimizer)
    for callback in config.callbacks or ():
        yield callback["name"].rpartition(":")[0]


def _optimizer_modules(table: Mapping[str, Any]) -> Iterator[str]:
    """Names of the modules of an optimizer, of those inside it, and of those of groups of parameters."""
    name = table.get("name")
    if isinstance(name, str):
        try:
            build: Any = registry.spec(name).build
        except PgkitError:
            build = None
        yield name.rpartition(":")[0]
        yield str(getattr(getattr(build, "func", build), "__module__", ""))
    for value in table.values():
        if isinstance(value, Mapping):
            yield from _optimizer_modules(value)


def _source(name: str) -> Path | None:
    """The source file of a module, if it has one; a main program has it, too."""
    module = sys.modules.get(name)
    file = getattr(module, "__file__", None)
    if module is None and all(part.isidentifier() for part in name.split(".")):
        try:
            spec = _find_spec(name)
        except (ImportError, KeyError, ValueError):  # KeyError: a namespace in a package that is not imported
            return None
        file = spec.origin if spec is not None else None
    path = Path(file) if file else None
    return path if path is not None and path.suffix == ".py" and path.is_file() else None


def _find_spec(name: str) -> ModuleSpec | None:
    """Find a module as :func:`importlib.util.find_spec` does, but without importing the packages that it is in.

    What a module imports only on another operating system may raise anything here.
    """
    parent, _, _ = name.rpartition(".")
    if not parent:
        return importlib.util.find_spec(name)
    package = _find_spec(parent)
    if package is None or package.submodule_search_locations is None:
        return None
    return PathFinder.find_spec(name, package.submodule_search_locations)


def _is_installed(file: Path) -> bool:
    """Whether a file belongs to Python or to an installed package."""
    if {"site-packages", "dist-packages"} & set(file.parts):
        return True
    return file.is_relative_to(sysconfig.get_path("stdlib"))


def _versions(package: str) -> dict[str, str]:
    """Versions of the distributions that bring a package; none for Python's own."""
    return {f"version of {name}": version(name) for name in _distributions().get(package, ())}


@cache
def _distributions() -> Mapping[str, list[str]]:
    """Names of the distributions that bring each package; it takes a moment to read them all."""
    return packages_distributions()


def _imports(name: str, file: Path, text: bytes) -> Iterator[str]:
    """Names of the modules that a module imports, anywhere in its code."""
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".") if package else []
            base = parents[: len(parents) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)
