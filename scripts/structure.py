"""Rules about the shape of the source tree: import layers, sizes of functions and files.

``python scripts/structure.py`` prints what breaks them, one line each, and exits with 1 if anything does.
Only the standard library is used, and nothing of pgkit is imported.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

LAYERS = (
    (
        "types",
        "packing",
        "packing_kernel",
        "seeding",
        "machine",
        "files",
        "explain",
        "llvm",
        "elementary",
        "elements",
        "product_kernel",
        "products",
        "activations",
        "scan_kernel",
        "scans",
        "capture",
        "capture_kernel",
    ),
    (
        "returns",
        "losses",
        "network_kernel",
        "compiled_passes",
        "networks",
        "categorical",
        "losses_kernel",
        "compiled_losses",
        "optim.core",
    ),
    (
        "optim",
        "policies",
        "envs",
        "checkpoint",
        "logging",
        "stats",
        "provenance",
        "progress",
        "interrupt",
        "processes",
        "rundir",
    ),
    ("counts", "rollout_kernel", "compiled_rollout", "rollout", "evaluate"),
    ("agents",),
    ("registry", "overrides", "config"),
    (
        "population",
        "signals",
        "diagnosis",
        "causes",
        "breakdown",
        "kinds",
        "stretches",
        "evaluator",
        "record",
        "observe",
        "whole",
        "slices",
        "training",
        "resuming",
        "runs",
    ),
    ("compare",),
    ("cli", "__main__", "__init__"),
)
"""Modules, and packages with all that is in them. A module imports from its own layer and from those above this line
in the tuple, never in a circle."""

FUNCTION_LINES = 60
FILE_LINES = 400

FOLDERS = {"pgkit": "pgkit", "agents": "pgkit.agents", "configs": "pgkit.configs"}
"""Where packages live in the source tree."""


def main() -> int:
    """Check the tree that this file belongs to."""
    problems = check(Path(__file__).resolve().parents[1])
    print("\n".join(problems) or "structure: sound")
    return int(bool(problems))


def check(root: Path) -> list[str]:
    """Every broken rule of the source tree at ``root``, one line each."""
    return [*layer_problems(root), *size_problems(root)]


def layer_problems(root: Path) -> list[str]:
    """Imports that go up, modules without a layer, and circles."""
    modules = find_modules(root)
    problems, graph = [], {}
    for name, path in modules.items():
        if layer(name) is None:
            problems.append(f"{path.relative_to(root)}: pgkit.{name} has no layer, see LAYERS in scripts/structure.py")
            continue
        targets = imports(name, path, modules)
        graph[name] = {target for _, target, at_start in targets if at_start}
        for line, target, _ in targets:
            own, other = layer(name), layer(target)
            if own is not None and other is not None and other > own:
                place = f"{path.relative_to(root)}:{line}"
                problems.append(f"{place}: pgkit.{name} (layer {own}) imports pgkit.{target} (layer {other})")
    return problems + [f"imports in a circle: {' -> '.join(circle)}" for circle in circles(graph)]


def size_problems(root: Path) -> list[str]:
    """Functions and files that are too long."""
    problems = []
    for path in sorted(path for folder in (*FOLDERS, "scripts") for path in (root / folder).rglob("*.py")):
        text, place = path.read_text(encoding="utf-8"), path.relative_to(root)
        if (lines := len(text.splitlines())) > FILE_LINES:
            problems.append(f"{place}: {lines} lines, at most {FILE_LINES}")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > FUNCTION_LINES:
                    problems.append(f"{place}:{node.lineno}: {node.name} has {length} lines, at most {FUNCTION_LINES}")
    return problems


def find_modules(root: Path) -> dict[str, Path]:
    """Files by module name below pgkit: ``optim.core``; a package is called after its folder."""
    found = {}
    for folder, package in FOLDERS.items():
        for path in sorted((root / folder).rglob("*.py")):
            parts = [*package.split("."), *path.relative_to(root / folder).with_suffix("").parts][1:]
            if parts[-1] == "__init__" and len(parts) > 1:
                parts.pop()
            found[".".join(parts)] = path
    return found


def layer(module: str) -> int | None:
    """The layer of a module: its own, or that of the closest package around it; ``configs`` holds no code."""
    if module == "configs":
        return 0
    while module:
        for index, names in enumerate(LAYERS):
            if module in names:
                return index
        module = module.rpartition(".")[0]
    return None


def imports(name: str, path: Path, modules: dict[str, Path]) -> list[tuple[int, str, bool]]:
    """(line, module, whether it happens when the module is loaded) of each import of another pgkit module."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    at_start = set(loaded_at_start(tree))
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = absolute(node, name, path)
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        for full in names:
            target = resolve(full, modules)
            if target is not None and target != name:
                found.append((node.lineno, target, node in at_start))
    return found


def loaded_at_start(tree: ast.Module) -> Iterator[ast.stmt]:
    """Statements outside functions and outside ``if TYPE_CHECKING``."""
    waiting: list[ast.stmt] = list(tree.body)
    while waiting:
        node = waiting.pop()
        yield node
        checked = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if not checked and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            waiting += [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)]


def absolute(node: ast.ImportFrom, name: str, path: Path) -> str:
    """The module that ``from ... import`` names, relative imports resolved."""
    if node.level == 0:
        return node.module or ""
    package = ["pgkit", *name.split(".")] if path.name == "__init__.py" else ["pgkit", *name.split(".")[:-1]]
    return ".".join([*package[: len(package) - node.level + 1], *([node.module] if node.module else [])])


def resolve(full: str, modules: dict[str, Path]) -> str | None:
    """The longest part of a dotted name below pgkit that is a module; None for other libraries."""
    package, _, rest = full.partition(".")
    if package != "pgkit":
        return None
    while rest:
        if rest in modules:
            return rest
        rest = rest.rpartition(".")[0]
    return None  # pgkit itself: its names are lazy


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Import circles, each once (depth first; a package's module that imports its own package counts)."""
    found, done = [], set()

    def visit(name: str, trail: list[str]) -> None:
        if name in trail:
            found.append([*trail[trail.index(name) :], name])
        elif name not in done:
            for target in sorted(graph.get(name, ())):
                visit(target, [*trail, name])
            done.add(name)

    for name in sorted(graph):
        visit(name, [])
    return found


if __name__ == "__main__":
    sys.exit(main())
