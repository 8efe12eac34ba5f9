"""Self-contained HTML pages of figures and tables: templates, drawn figures, and texts for readers.

A page's template starts with ``{% extends "base.html.j2" %}`` and fills the blocks ``title`` and ``body``;
``parts.html.j2`` has macros for a table, a figure and a list of terms.
"""

import html
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
from markupsafe import Markup
from matplotlib.figure import Figure

from pgkit.plots.columns import Cell, View
from pgkit.plots.style import png, svg
from pgkit.system.files import replace_file, write_text

TEMPLATES = Path(__file__).parent / "templates"


class Drawing(NamedTuple):
    """A drawn figure.

    Attributes:
        name: name of its files, and its id in the page.
        figure: what it shows; a CSS class in the page.
        where: of what it shows that, such as the name of a case, an agent or a member.
        caption: caption and alternative text.
        svg: SVG text to embed in a page.
        png: PNG bytes.
    """

    name: str
    figure: str
    where: str
    caption: str
    svg: str
    png: bytes

    def _repr_html_(self) -> str:
        """What a notebook shows: the figure and its caption."""
        return f"<figure>{self.svg}<figcaption>{html.escape(self.caption)}</figcaption></figure>"


class Grid(NamedTuple):
    """A table of a page: its view, what it is about, and its rows."""

    view: View
    case: str
    rows: list[list[Cell]]


def drawing(figure: Figure, shows: str, where: str, caption: str) -> Drawing:
    """Return a figure as files and as a part of a page; equal figures give equal bytes."""
    name = slug(f"{where}-{shows}")
    return Drawing(name, shows, where, caption, svg(figure, name), png(figure))


def write_drawings(drawings: Sequence[Drawing], directory: Path) -> None:
    """Write ``<name>.png`` and ``<name>.svg`` of each figure.

    Raises:
        WriteError: the system refuses to write.
    """
    for each in drawings:
        replace_file(directory / f"{each.name}.png", _writer(each.png))
        write_text(directory / f"{each.name}.svg", f"{each.svg.rstrip()}\n")


def template_environment(*directories: Path) -> jinja2.Environment:
    """Return the environment of a page's templates: all texts are escaped, unknown variables are errors.

    Args:
        directories: of templates beside those of this package.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([*directories, TEMPLATES]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"slug": slug, "exact": exact, "svg": Markup, "duration": duration}
    return environment


def exact(values: Sequence[Any]) -> str:
    """Return the values of a cell with all digits, as JSON."""
    plain = [value.item() if hasattr(value, "item") else value for value in values]
    return json.dumps(plain)


def duration(seconds: float) -> str:
    """Format seconds for readers, such as ``1 h 12 min``."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes == 0:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def as_texts(entries: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return pairs (key, value as text); values that are no texts become JSON."""
    return [(key, value if isinstance(value, str) else json.dumps(value)) for key, value in entries.items()]


def slug(text: str) -> str:
    """Turn a text into a part of a file name or id."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _writer(content: bytes) -> Any:
    return lambda file: file.write(content)
