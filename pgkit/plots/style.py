"""The common style of all figures: one style per arm, panels, ticks, labels, and reproducible files."""

import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from pgkit.errors import PgkitError
from pgkit.system.files import replace_file

INK, FAINT, GRID = "#222222", "#6b6b6b", "#e4e4e4"
WIDTH = 5.4
"""Width in inches at which the text of a figure is as large as that of the page around it."""
DPI = 160

SETTINGS: Mapping[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Arial", "Helvetica"],
    "font.size": 8.5,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.edgecolor": FAINT,
    "axes.linewidth": 0.7,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "text.color": INK,
    "legend.frameon": False,
    "pdf.fonttype": 42,  # whole fonts, as publishers ask for
    "svg.fonttype": "none",
    "svg.hashsalt": "pgkit",
}


SOLID: tuple[float, tuple[float, ...]] = (0, ())


class ArmStyle(NamedTuple):
    """How an arm is drawn in every figure: distinct in colour, and in grey by brightness, marker and dashes."""

    color: str
    marker: str
    dashes: tuple[float, tuple[float, ...]]


_COLORS = ("#0072b2", "#c77700", "#009e73", "#7a1f4e", "#56a0d3", "#d55e00", "#555555", "#b5629a")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_DASHES = (
    SOLID,
    (0, (5, 1.5)),
    (0, (1.2, 1.2)),
    (0, (5, 1.5, 1.2, 1.5)),
    (0, (2.5, 1)),
)


def arm_styles(labels: Sequence[str]) -> dict[str, ArmStyle]:
    """Return a style for each arm; the first 280 are all different."""
    return {
        label: ArmStyle(_COLORS[k % len(_COLORS)], _MARKERS[k % len(_MARKERS)], _DASHES[k % len(_DASHES)])
        for k, label in enumerate(labels)
    }


def arms_in(labels: Sequence[str] | None, column: Any) -> list[str]:
    """Return the arms to draw: ``labels``, or the values of a table's column in their order."""
    return list(labels) if labels is not None else list(dict.fromkeys(column))


@contextmanager
def settings(more: Mapping[Any, Any] | None = None) -> Iterator[None]:
    """Use the figure settings of matplotlib inside this context, and ``more``; also a decorator."""
    with mpl.rc_context({**SETTINGS, **(more or {})}):
        yield


@settings()
def new_figure(height: float, width: float = WIDTH, wspace: float = 0.02) -> Figure:
    """Return an empty figure, sizes in inches, that is not registered with pyplot.

    Args:
        height: in inches.
        width: in inches.
        wspace: space between panels, as a share of their width.
    """
    figure = Figure(figsize=(width, height), facecolor="white")
    figure.set_layout_engine("constrained", wspace=wspace)
    FigureCanvasAgg(figure)
    return figure


@settings()
def panel(axes: Axes | None, height: float = 3.0) -> Axes:
    """Return ``axes``, or those of a new figure."""
    if axes is not None:
        return axes
    return new_figure(height).add_subplot()


def short_number(value: float, _: object = None) -> str:
    """Format a count: 500k, 1.5M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def rate(value: float, _: object = None) -> str:
    """Format a learning rate: 3e-3, 0.1."""
    if 0.1 <= value < 1000:
        return f"{value:.3g}"
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def percent(value: float, _: object = None) -> str:
    """Format a share: 5 %."""
    return f"{100 * value:.3g} %"


def joined(words: Iterable[str], last: str = "and") -> str:
    """Join words: a, b and c."""
    words = list(words)
    return f" {last} ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def log_axis(axes: Axes, numticks: int = 12) -> None:
    """Make the horizontal axis logarithmic, with numbers formatted as learning rates."""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(numticks=numticks))
    axes.xaxis.set_major_formatter(rate)
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="x", which="minor", length=2, color=GRID)


def rate_axis(axes: Axes) -> None:
    """Make the horizontal axis one of learning rates."""
    log_axis(axes)
    axes.set_xlabel("learning rate (log scale)")


def steps_axis(axes: Axes) -> None:
    """Make the horizontal axis one of environment steps."""
    axes.locator_params(axis="x", nbins=5)
    axes.xaxis.set_major_formatter(short_number)
    axes.set_xlabel("environment steps")
    axes.margins(x=0)


def name_rows(axes: Axes, arms: Mapping[str, ArmStyle]) -> None:
    """Name the rows of a figure with one row for each arm, the first on top."""
    axes.set_yticks(range(len(arms)), list(arms))
    axes.set_ylim(len(arms) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    for text, style in zip(axes.get_yticklabels(), arms.values(), strict=True):
        text.set(color=style.color, fontweight="bold")


def label_at_right(axes: Axes, labels: Sequence[tuple[str, float, str]], gap: float = 0.075) -> None:
    """Label lines at their right ends: (text, height in data units, colour), moved apart where they overlap.

    Args:
        gap: least distance between two labels, as a share of the height of the panel.
    """
    low, high = axes.get_ylim()
    named = sorted((((y - low) / (high - low), text, color) for text, y, color in labels if np.isfinite(y)))
    places = [max(place, k * gap) for k, place in enumerate(spread([place for place, _, _ in named], gap))]
    for place, (_, text, color) in zip(places, named, strict=True):
        axes.text(1.015, place, text, color=color, transform=axes.transAxes, va="center", fontweight="bold")


def spread(places: Sequence[float], gap: float) -> list[float]:
    """Move ascending places apart to at least ``gap``, keeping the middle of each cluster."""
    clusters: list[tuple[float, int]] = []  # middle, size
    for place in places:
        middle, size = place, 1
        while clusters and clusters[-1][0] + gap * (clusters[-1][1] + size) / 2 > middle:
            before, count = clusters.pop()
            middle, size = (before * count + middle * size) / (count + size), count + size
        clusters.append((middle, size))
    return [middle + gap * (k - (size - 1) / 2) for middle, size in clusters for k in range(size)]


def arm_legend(figure: Figure, arms: Mapping[str, ArmStyle]) -> None:
    """Add a legend of the arms in one line above all panels."""
    lines = [
        Line2D([], [], color=style.color, marker=style.marker, linestyle=style.dashes, markersize=5, label=label)
        for label, style in arms.items()
    ]
    figure.legend(handles=lines, loc="outside upper left", ncols=min(len(lines), 5), handlelength=2.8)


def freeze_layout(figure: Figure) -> Figure:
    """Compute the layout once, instead of again for every file."""
    with settings():
        figure.draw_without_rendering()
        figure.set_layout_engine(None)  # "none" leaves an engine, for which every file is drawn twice
    return figure


def png(figure: Figure) -> bytes:
    """Return the figure as PNG; equal figures give equal bytes."""
    buffer = io.BytesIO()
    with settings():
        figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()


def svg(figure: Figure, name: str) -> str:
    """Return the figure as SVG text without prolog, ids prefixed by ``name``; equal figures give equal bytes."""
    buffer = io.StringIO()
    with settings():
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{name}-", text)
    return re.sub(r"\d+\.\d{3,}", _two_decimals, text)


def save(figure: Figure, path: Path) -> None:
    """Write a figure as SVG, PDF or PNG, by the end of the file's name; equal figures give equal bytes.

    Raises:
        PgkitError: another type of file.
        WriteError: the system refuses to write.
    """
    check_figure_file(path)
    content = {".svg": lambda: svg(figure, "pgkit").encode(), ".pdf": lambda: pdf(figure), ".png": lambda: png(figure)}
    data = content[path.suffix]()
    replace_file(path, lambda file: file.write(data))


def check_figure_file(path: Path) -> None:
    """Refuse the name of a file whose end names no format of figures.

    Raises:
        PgkitError: it does not.
    """
    if path.suffix not in (".svg", ".pdf", ".png"):
        raise PgkitError(f"a figure is an .svg, .pdf or .png file, got {path}")


def pdf(figure: Figure) -> bytes:
    """Return the figure as PDF; equal figures give equal bytes."""
    buffer = io.BytesIO()
    with settings():
        figure.savefig(buffer, format="pdf", metadata=dict.fromkeys(("Creator", "Producer", "CreationDate")))
    return buffer.getvalue()


def _two_decimals(number: re.Match[str]) -> str:
    """Round to hundredths of a point, which are finer than any screen."""
    return f"{float(number[0]):.2f}".rstrip("0").rstrip(".")
