"""Rules about the shape of the source tree: layers of packages, circles, sizes, words that are no identifiers.

``python scripts/structure.py`` prints what breaks them, one line each, and exits with 1 if anything does; ``--summary``
also prints the packages on each layer, the number of modules and circles, and the length of the README's reading path.
Only the standard library is used, and nothing of pgkit is imported.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

LAYERS = (
    ("seeding", "tree", "errors", "stats"),
    ("system",),
    ("compiler", "logging", "pretrained"),
    ("kernels",),
    ("types", "losses"),
    ("nn", "envs", "optim", "returns"),
    ("rollouts", "config", "agents"),
    ("callbacks",),
    ("runs",),
    ("loggers",),
    ("training", "plots"),
    ("deploy",),
    ("diagnose",),
    ("compare",),
    ("tune",),
    ("cli",),
    ("__init__", "__main__"),
)
"""Packages, and modules at the root. Each imports from itself and from the layers above this line, from nothing
else."""

ROOT_MODULES = frozenset(["__init__", "__main__", "cli", "types", "errors", "tree", "seeding", "returns", "losses"])
"""What stands at the root of ``pgkit/``, and nothing else."""

FORBIDDEN_NAMES = frozenset(["own", "kind", "found", "here", "made", "given", "told", "aside"])
"""Words that mean too many things to name one."""

READING_PATH = (
    "configs/cartpole-actor-critic.toml",
    "pgkit/training/train.py",
    "pgkit/training/loop.py",
    "pgkit/rollouts/collector.py",
    "agents/actor_critic.py",
    "pgkit/optim/optimizers.py",
    "pgkit/training/monitor.py",
)
"""The files that show all that happens in one CartPole run, from TOML to log, as the README lists them."""

FUNCTION_LINES = 60
FILE_LINES = 400

FOLDERS = {"pgkit": "pgkit", "agents": "pgkit.agents", "configs": "pgkit.configs"}
"""Where packages live in the source tree."""


def main(arguments: list[str]) -> int:
    """Check the tree that this file belongs to."""
    root = Path(__file__).resolve().parents[1]
    problems = check(root)
    if "--summary" in arguments:
        print(summary(root))
    print("\n".join(problems) or "structure: no problems")
    return int(bool(problems))


def check(root: Path) -> list[str]:
    """Every broken rule of the source tree at ``root``, one line each."""
    return [*root_problems(root), *import_problems(root), *size_problems(root), *name_problems(root)]


def summary(root: Path) -> str:
    """Packages on each layer, modules at the root, circles, and the length of the reading path."""
    modules = find_modules(root)
    packages = sorted({package(name) for name in modules})
    lines = [f"layer {index}: {' '.join(sorted(set(names) & set(packages)))}" for index, names in enumerate(LAYERS)]
    at_root = len(list((root / "pgkit").glob("*.py")))
    lines.append(f"modules: {len(modules)}, at the root of pgkit/: {at_root}, circles: {len(circles(graph(modules)))}")
    lengths = [len((root / name).read_text(encoding="utf-8").splitlines()) for name in READING_PATH]
    return "\n".join([*lines, f"reading path: {len(lengths)} files, {sum(lengths):,} lines"])


def root_problems(root: Path) -> list[str]:
    """Modules at the root of ``pgkit/`` that belong in a package."""
    stems = sorted(path.stem for path in (root / "pgkit").glob("*.py"))
    return [f"pgkit/{stem}.py: belongs in a package" for stem in stems if stem not in ROOT_MODULES]


def import_problems(root: Path) -> list[str]:
    """Imports from a layer that is not below, packages without a layer, and circles of modules."""
    modules = find_modules(root)
    problems = []
    for name, path in modules.items():
        place = path.relative_to(root)
        if layer(name) is None:
            problems.append(f"{place}: pgkit.{name} has no layer, see LAYERS in scripts/structure.py")
            continue
        for line, target in imports(name, path, modules):
            if not may_import(name, target):
                level, target_level = layer(name), layer(target)
                problems.append(
                    f"{place}:{line}: pgkit.{name} (layer {level}) imports pgkit.{target} (layer {target_level})"
                )
    return problems + [f"imports in a circle: {' -> '.join(circle)}" for circle in circles(graph(modules))]


def may_import(name: str, target: str) -> bool:
    """Whether the target is in the same package or on a layer above this line."""
    level, target_level = layer(name), layer(target)
    return package(name) == package(target) or level is None or target_level is None or target_level < level


def size_problems(root: Path) -> list[str]:
    """Functions and files that are too long."""
    problems = []
    for place, text, tree in sources(root):
        if (lines := len(text.splitlines())) > FILE_LINES:
            problems.append(f"{place}: {lines} lines, at most {FILE_LINES}")
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > FUNCTION_LINES:
                    problems.append(f"{place}:{node.lineno}: {node.name} has {length} lines, at most {FUNCTION_LINES}")
    return problems


def name_problems(root: Path) -> list[str]:
    """Identifiers among :data:`FORBIDDEN_NAMES`."""
    return [
        f"{place}:{line}: {name!r} is no identifier, say what it is"
        for place, _, tree in sources(root)
        for line, name in sorted(set(identifiers(tree)))
        if name in FORBIDDEN_NAMES
    ]


def identifiers(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, name) of every variable, argument, attribute, function and class; keywords belong to whom they call."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                yield node.lineno, name
            case ast.arg(arg=name):
                yield node.lineno, name


def sources(root: Path) -> Iterator[tuple[Path, str, ast.Module]]:
    """(place, text, syntax tree) of every Python file but the tests."""
    for path in sorted(path for folder in (*FOLDERS, "scripts") for path in (root / folder).rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        yield path.relative_to(root), text, ast.parse(text)


def find_modules(root: Path) -> dict[str, Path]:
    """Files by module name below pgkit: ``optim.base``; a package has the name of its folder."""
    modules = {}
    for folder, top in FOLDERS.items():
        for path in sorted((root / folder).rglob("*.py")):
            parts = [*top.split("."), *path.relative_to(root / folder).with_suffix("").parts][1:]
            if parts[-1] == "__init__" and len(parts) > 1:
                parts.pop()
            modules[".".join(parts)] = path
    return modules


def package(module: str) -> str:
    """The package at the root that holds a module, or the module itself if it stands there."""
    return module.partition(".")[0]


def layer(module: str) -> int | None:
    """The layer of a module's package; ``configs`` holds no code."""
    if module == "configs":
        return 0
    return next((index for index, names in enumerate(LAYERS) if package(module) in names), None)


def imports(name: str, path: Path, modules: dict[str, Path]) -> list[tuple[int, str]]:
    """(line, module) of each import of another pgkit module, also inside functions and ``if TYPE_CHECKING``."""
    targets = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = absolute(node, name, path)
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        matches = (resolve(full, modules) for full in names)
        targets += [(node.lineno, target) for target in matches if target is not None and target != name]
    return targets


def absolute(node: ast.ImportFrom, name: str, path: Path) -> str:
    """The module that ``from ... import`` names, relative imports resolved."""
    if node.level == 0:
        return node.module or ""
    parts = ["pgkit", *name.split(".")] if path.name == "__init__.py" else ["pgkit", *name.split(".")[:-1]]
    return ".".join([*parts[: len(parts) - node.level + 1], *([node.module] if node.module else [])])


def resolve(full: str, modules: dict[str, Path]) -> str | None:
    """The longest part of a dotted name below pgkit that is a module; None for other libraries."""
    top, _, rest = full.partition(".")
    if top != "pgkit":
        return None
    while rest:
        if rest in modules:
            return rest
        rest = rest.rpartition(".")[0]
    return None  # pgkit itself: its names are lazy


def graph(modules: dict[str, Path]) -> dict[str, set[str]]:
    """The modules that each module imports."""
    return {name: {target for _, target in imports(name, path, modules)} for name, path in modules.items()}


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Import circles, each once (depth first; a package's module that imports its own package counts)."""
    closed, done = [], set()

    def visit(name: str, trail: list[str]) -> None:
        if name in trail:
            closed.append([*trail[trail.index(name) :], name])
        elif name not in done:
            for target in sorted(graph.get(name, ())):
                visit(target, [*trail, name])
            done.add(name)

    for name in sorted(graph):
        visit(name, [])
    return closed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
