"""Build the documentation site: python scripts/docs [--out DIR]; needs the extra docs.

Pages are the READMEs of packages, at the places that they have in the repository, so that their links hold; the pages
in `scripts/docs/pages`; and a reference made of docstrings. Warnings are errors. The site is in `build/docs/site`.
"""

import argparse
import importlib
import inspect
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import yaml

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
MODULES = (
    *("pgkit", "pgkit.optim", "pgkit.compare", "pgkit.diagnose", "pgkit.returns", "pgkit.losses", "pgkit.stats"),
    *("pgkit.envs", "pgkit.nn", "pgkit.callbacks", "pgkit.logging"),
)
"""Modules whose public names are the reference."""

LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:)([^)#\s]+)(#[^)\s]*)?\)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "docs")
    out = parser.parse_args().out.resolve()
    source = out / "source"
    shutil.rmtree(out, ignore_errors=True)
    copy_readmes(source)
    shutil.copytree(HERE / "pages", source, dirs_exist_ok=True)
    reference = write_reference(source)
    write_settings(out, reference)
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--config-file", str(out / "mkdocs.yml")]
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}  # an advertisement
    if subprocess.run(command, check=False, env=quiet).returncode:
        sys.exit("the documentation was not built: see the warnings above")
    print(f"built {out / 'site' / 'index.html'}")


def copy_readmes(source: Path) -> None:
    """Copy every README with its pictures; the one of the repository is the first page."""
    patterns = ("README.md", "configs/README.md", "scripts/README.md", "pgkit/**/README.md", "pgkit/**/SURVEY.md")
    for path in (path for pattern in patterns for path in ROOT.glob(pattern)):
        place = path.relative_to(ROOT)
        target = source / ("index.md" if place == Path("README.md") else place)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(mended(path, source), encoding="utf-8")


def mended(path: Path, source: Path) -> str:
    """Return the text of a README: pictures are copied, and links to files of code become the names of these."""

    def mend(match: re.Match[str]) -> str:
        picture, text, name, anchor = match.groups()
        linked = (path.parent / name).resolve()
        if picture:
            target = source / linked.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(linked, target)
        elif linked.suffix != ".md":
            return f"{text} (`{linked.relative_to(ROOT)}`)"
        elif linked == ROOT / "README.md":
            return f"[{text}]({'../' * (len(path.relative_to(ROOT).parts) - 1)}index.md{anchor or ''})"
        return match.group()

    return LINK.sub(mend, path.read_text(encoding="utf-8"))


def write_reference(source: Path) -> list[dict[str, str]]:
    """Write a page for the public names of each module, and one for optimizers; return their entries in the menu."""
    entries = []
    for name in MODULES:
        module = importlib.import_module(name)
        place = source / "reference" / f"{name}.md"
        place.parent.mkdir(parents=True, exist_ok=True)
        described = inspect.cleandoc(module.__doc__ or "").partition(">>>")[0]
        blocks = "\n\n".join(f"::: {target}" for target in public_targets(module))
        place.write_text(f"# {name}\n\n{described}\n\n{blocks}\n", encoding="utf-8")
        entries.append({name: f"reference/{name}.md"})
    (source / "reference" / "optimizers.md").write_text(optimizer_page(), encoding="utf-8")
    return [*entries, {"Optimizers and their formulas": "reference/optimizers.md"}]


def public_targets(module: ModuleType) -> Iterator[str]:
    """Yield where each public function and class of a module is defined."""
    names = getattr(module, "__all__", None) or [
        name for name, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__
    ]
    for name in sorted(name for name in names if not name.startswith("_")):
        value = getattr(module, name)
        if inspect.isfunction(value) or inspect.isclass(value):
            yield f"{value.__module__}.{value.__qualname__}"


def optimizer_page() -> str:
    """Return the formula, the defaults and the source of every optimizer, as ``pgkit list optimizers`` prints them."""
    from pgkit import optim

    parts = [
        "# Optimizers and their formulas",
        "`pgkit.optim.make(name, **settings)`; in a configuration `optimizer.name`.",
    ]
    for name in optim.list_optimizers():
        spec = optim.spec(name)
        defaults = ", ".join(f"`{key}={value}`" for key, value in spec.defaults.items())
        parts.append(f"## {name}\n\n```text\n{spec.formula}\n```\n\n{defaults}\n\nSource: {spec.source}")
    return "\n\n".join(parts) + "\n"


def write_settings(out: Path, reference: list[dict[str, str]]) -> None:
    """Write the settings of MkDocs, with the reference in the menu."""
    text = (HERE / "mkdocs.yml").read_text(encoding="utf-8")
    entries = yaml.safe_dump([{"Reference": reference}], sort_keys=False)
    indented = "".join(f"  {line}\n" for line in entries.splitlines())
    text = text.replace("  - Reference: []\n", indented).replace("EXAMPLES", str(HERE / "examples.py"))
    (out / "mkdocs.yml").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
