"""The page of a diagnosis, and pages of sections in the same look. Equal results give equal bytes.

>>> page = render_page("A plane", "Two directions.", [Section("Plane", "Read it so.", rows=[{"x": 1.5}])])
>>> "<h1>A plane</h1>" in page, "1.5" in page
(True, True)
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jinja2

from pgkit.config.load import flatten
from pgkit.diagnose.report.figures import ALL, members, members_shown
from pgkit.diagnose.report.glossary import GLOSSARY, TOPICS, Topic
from pgkit.diagnose.report.json_file import plain
from pgkit.diagnose.report.tables import evidence
from pgkit.diagnose.results import QUANTITIES, Diagnosis, PointResult, Quantity, Row, Verdict
from pgkit.plots.columns import Cell, Column, View, word
from pgkit.plots.page import Drawing, Grid, as_texts, duration, template_environment
from pgkit.plots.style import joined, percent, short_number

MISSING = "\u2013"

OVERVIEW = {
    "return/mean": ("J", "mean return of whole episodes"),
    "post_update/1/mean": ("after 1 update", "mean return of the copies"),
    "post_update/K/mean": ("after K", "the same after K updates"),
    "post_update/K/half_share": ("fell below half", "share of copies after K updates, Wilson 95 %"),
    "parts/total": ("change", "mean change of the return by one update"),
    "noise/actor/nsr": ("NSR", "noise over signal of the actor's gradient"),
    "noise/actor/grad_norm": ("|g|", "median norm of the actor's gradient"),
    "health/policy/entropy": ("entropy", "mean entropy of the policy"),
}
"""Quantities of the first table: their headers and what they mean."""


@dataclass(frozen=True)
class Section:
    """A section of a page.

    Attributes:
        title: its heading; all of a page differ.
        text: what it means, and how to read it.
        figures: see :func:`pgkit.plots.page.drawing`; their files are expected in ``figures/`` beside the page.
        rows: a table, by column.
        grids: tables with formatted cells, folded unless their view is open.
        notes: why numbers are missing.
    """

    title: str
    text: str
    figures: Sequence[Drawing] = ()
    rows: Sequence[Row] = ()
    grids: Sequence[Grid] = ()
    notes: Sequence[str] = ()


class Said(NamedTuple):
    """A verdict as shown: where, and the numbers that it rests on."""

    verdict: Verdict
    where: str
    evidence: list[tuple[str, str]]


def render_page(title: str, summary: str, sections: Sequence[Section]) -> str:
    """Return a self-contained page of sections as HTML.

    Args:
        title: its heading.
        summary: the first paragraph, in plain words.
        sections: in their order.
    """
    template = _environment().get_template("sections.html.j2")
    return template.render(title=title, summary=summary, sections=sections)


def diagnosis_page(diagnosis: Diagnosis, drawings: Sequence[Drawing]) -> str:
    """Return the report of a diagnosis as HTML.

    Args:
        diagnosis: the results.
        drawings: its figures, see :func:`pgkit.diagnose.report.figures.draw_all`.
    """
    labels, shown = members(diagnosis), members_shown(diagnosis)
    return _environment().get_template("diagnosis.html.j2").render(
        name=Path(diagnosis.run).name or diagnosis.run,
        shown=[_member(diagnosis, label, drawings) for label in shown],
        others=[_member(diagnosis, label, ()) for label in labels if label not in shown],
        counts=_counts(diagnosis),
        from_saved=diagnosis.settings.get("from_saved", False),
        overview=_overview(diagnosis),
        together=[each for each in drawings if each.where == ALL],
        sections=[_section(diagnosis, topic, drawings) for topic in TOPICS],
        not_done=diagnosis.not_done,
        glossary=GLOSSARY.items(),
        quantities=QUANTITIES.items(),
        provenance=_provenance(diagnosis),
        tables=sorted({"points", *(["verdicts"] if diagnosis.verdicts else []), *_stored(diagnosis)}),
    )  # fmt: skip


def rows_grid(rows: Sequence[Row], caption: str) -> Grid:
    """Return a table of rows as they are: a column for each key, numbers shortened."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    texts = {name: word if any(isinstance(row.get(name), str) for row in rows) else compact for name in names}
    view = View(caption, caption, [Column(name, name, texts[name]) for name in names])
    cells = [[Cell(_text(row.get(name)), (plain(row.get(name)),)) for name in names] for row in rows]
    return Grid(view, "", cells)


def compact(value: float) -> str:
    """Format a number of any size: 1.31, 49.9k, 1.5e-23, with a real minus; a dash for NaN.

    >>> [compact(number) for number in (1.3149, 49_900.0, 1.5e-23, float("inf"), float("nan"), 0.0)]
    ['1.31', '49.9k', '1.5e-23', '\u221e', '\u2013', '0']
    """
    if math.isnan(value):
        return MISSING
    if math.isinf(value):
        return "\u221e" if value > 0 else "\u2212\u221e"
    text = f"{value:.3g}" if abs(value) < 1000 else short_number(value)
    return text.replace("-", "\u2212", 1) if value < 0 else text


def quantity_text(quantity: Quantity) -> str:
    """Format a quantity with its interval.

    >>> quantity_text(Quantity(1.31, 1.04, 1.71, 64))
    '1.31 [1.04, 1.71]'
    """
    text = compact(quantity.value)
    if math.isnan(quantity.low) and math.isnan(quantity.high):
        return text
    return f"{text} [{compact(quantity.low)}, {compact(quantity.high)}]"


def quantity_cell(quantity: Quantity | None) -> Cell:
    """Return the cell of a quantity, with all digits behind it."""
    if quantity is None:
        return Cell(MISSING, (None,))
    return Cell(quantity_text(quantity), tuple(plain(float(number)) for number in quantity[:3]))


def _environment() -> jinja2.Environment:
    environment = template_environment(Path(__file__).parent / "templates")
    environment.filters["grids"] = _grids
    return environment


def _grids(section: Section) -> list[Grid]:
    return [*([rows_grid(section.rows, f"Numbers: {section.title}")] if section.rows else []), *section.grids]


def _text(value: Any) -> str:
    value = value.item() if hasattr(value, "item") else value
    if value is None:
        return MISSING
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return compact(value) if is_number else word(value)


def _member(diagnosis: Diagnosis, label: str, drawings: Sequence[Drawing]) -> dict[str, Any]:
    """The template's variables for one member."""
    points = [point for point in diagnosis.points if point.member == label]
    verdicts = [verdict for verdict in diagnosis.verdicts if verdict.member == label]
    return {
        "label": label,
        "summary": diagnosis.summary.get(label, "Nothing is said of it."),
        "timeline": [each for each in drawings if each.where == label and each.figure == "timeline"],
        "said": [_said(verdict, points) for verdict in verdicts],
    }


def _said(verdict: Verdict, points: Sequence[PointResult]) -> Said:
    places = joined(short_number(step) for step in verdict.env_steps)
    numbers = [(name, _at_steps(by_steps)) for name, by_steps in evidence(verdict, points).items()]
    return Said(verdict, f"at {places} steps" if places else "", numbers)


def _at_steps(by_steps: Mapping[float, Quantity]) -> str:
    """Quantities of one name: ``0.31 [0.21, 0.37]``, with the environment steps where there are several."""
    if len(by_steps) == 1:
        return quantity_text(*by_steps.values())
    return ", ".join(f"{quantity_text(quantity)} at {short_number(step)}" for step, quantity in by_steps.items())


def _counts(diagnosis: Diagnosis) -> list[tuple[str, str]]:
    points = diagnosis.points
    closely = sum(point.critical for point in points)
    counts = [("points", f"{len(points)}, {closely} of them looked at closely")]
    settings = diagnosis.settings
    sizes = [f"{compact(settings[name])} {name}" for name in ("copies", "episodes") if name in settings]
    counts += [("sizes", joined(sizes))] if sizes else []
    cost = diagnosis.cost
    counts += [("environment steps", short_number(cost["env_steps"]))] if "env_steps" in cost else []
    return counts + ([("time", duration(cost["seconds"]))] if math.isfinite(cost.get("seconds", math.nan)) else [])


def _overview(diagnosis: Diagnosis) -> Grid:
    """The table of all points with what matters most."""
    names = [name for name in OVERVIEW if any(name in point.quantities for point in diagnosis.points)]
    columns = [
        Column("member", "member", word),
        Column("env_steps", "env steps", short_number),
        Column("share", "%", percent, "share of training"),
        *(Column(name, OVERVIEW[name][0], compact, OVERVIEW[name][1]) for name in names),
    ]
    rows = [
        [
            Cell(f"{point.member}{' *' if point.critical else ''}", (point.member,)),
            Cell(short_number(point.env_steps), (plain(point.env_steps),)),
            Cell(percent(point.share), (plain(point.share),)),
            *(quantity_cell(point.quantities.get(name)) for name in names),
        ]
        for point in diagnosis.points
    ]
    return Grid(View("points", "All points (*: looked at closely)", columns, open=True), "", rows)


def _section(diagnosis: Diagnosis, topic: Topic, drawings: Sequence[Drawing]) -> Section:
    """A section of the page, with the numbers of the members that have figures."""
    shown = members_shown(diagnosis)
    by_member = {label: [point for point in diagnosis.points if point.member == label] for label in shown}
    grids = [_numbers(label, points, topic) for label, points in by_member.items()]
    grids = [grid for grid in grids if grid.rows]
    text = topic.text if grids else f"{topic.text} It was not measured."
    figures = [each for label in shown for each in drawings if each.where == label and each.figure in topic.figures]
    notes = [note for label, points in by_member.items() for note in _reasons(label, points, topic)]
    return Section(topic.title, text, figures, grids=grids, notes=notes)


def _numbers(label: str, points: Sequence[PointResult], topic: Topic) -> Grid:
    """All quantities of a section at the points of a member: a row for each, a column for each point."""
    names = dict.fromkeys(name for point in points for name in point.quantities if _belongs(name, topic))
    having = [point for point in points if any(name in point.quantities for name in names)]
    columns = [Column("quantity", "quantity", word)]
    columns += [Column(f"at-{p.env_steps:.0f}", short_number(p.env_steps), compact) for p in having]
    rows = [[Cell(name, (name,)), *(quantity_cell(p.quantities.get(name)) for p in having)] for name in names]
    caption = f"Every number of {label}, by environment steps"
    return Grid(View(f"quantities-{topic.sections[0]}", caption, columns), label, rows)


def _reasons(label: str, points: Sequence[PointResult], topic: Topic) -> list[str]:
    """Why quantities of a section are missing, each reason once at each point."""
    names: dict[tuple[float, str], list[str]] = {}
    for point in points:
        for name, quantity in point.quantities.items():
            if quantity.reason and _belongs(name, topic):
                names.setdefault((point.env_steps, quantity.reason), []).append(name)
    return [f"{label} at {short_number(step)}: {reason} ({joined(of)})" for (step, reason), of in names.items()]


def _belongs(name: str, topic: Topic) -> bool:
    return name.partition("/")[0] in topic.sections


def _provenance(diagnosis: Diagnosis) -> list[tuple[str, str]]:
    entries: Mapping[str, Any] = {
        "run": diagnosis.run,
        "settings": diagnosis.settings,
        "versions": diagnosis.versions,
        "cost": diagnosis.cost,
    }
    return as_texts(flatten(json.loads(json.dumps(plain(entries)))))


def _stored(diagnosis: Diagnosis) -> list[str]:
    return [name for name, rows in diagnosis.tables.items() if rows]
