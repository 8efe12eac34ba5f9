"""Tables, sentences, figures and the page of what was measured."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pgkit.diagnose.evidence import mean_quantity
from pgkit.diagnose.landscape.cuts import blocks
from pgkit.diagnose.landscape.figures import NAMES, Surface, Way, draw_lines, draw_path, draw_plane
from pgkit.diagnose.landscape.lines import ALPHAS, EPISODES, RANDOM, band
from pgkit.diagnose.landscape.measure import Measurements, PlayedPlane
from pgkit.diagnose.landscape.paths import chord, path_coordinates
from pgkit.diagnose.landscape.planes import grid_coordinates
from pgkit.diagnose.landscape.request import Request, Subject
from pgkit.diagnose.landscape.results import FORMAT, Landscape
from pgkit.diagnose.landscape.words import (
    WayWords,
    barrier_sentence,
    cliff_sentence,
    place,
    plane_sentence,
    policy_sentence,
    unit_sentence,
)
from pgkit.diagnose.points import Point
from pgkit.diagnose.report.html import Section, render_page
from pgkit.diagnose.report.json_file import plain, quantity_json
from pgkit.diagnose.report.tables import arrow_table
from pgkit.diagnose.results import Row
from pgkit.diagnose.words import first_sentence
from pgkit.logging.parquet import write_table
from pgkit.plots.page import Drawing, drawing, write_drawings
from pgkit.stats.samples import FloatArray
from pgkit.system.files import replace_entries, write_text

LINES_CAPTION = (
    "The return along lines through the policy, at multiples of an update's length (log scale to both sides). Bands: "
    "95 % intervals along the mean update and the gradient, over {episodes} episodes that all policies play alike. "
    "Grey: random directions, in which each unit's weights change in proportion to their norm. Dotted: half of what "
    "the policy earns above random actions."
)
PATH_CAPTION = (
    "The return on the straight way between two policies, with 95 % intervals over {episodes} episodes that all play "
    "alike. Dashed: the chord between the ends. The arrow: the deepest point below it."
)
PLANE_TITLES = {
    "trajectory": "Plane of the training",
    "curvature": "Plane of the curvatures",
    "random": "Random plane",
}
AXIS_NAMES = {
    "trajectory": ("first component", "second component"),
    "curvature": ("curves up most", "curves down most"),
    "random": ("random direction 1", "random direction 2"),
}


def tables_of(subject: Subject, measured: Measurements, plane_name: str) -> dict[str, list[Row]]:
    """All rows, each with the columns that name its point."""
    tables: dict[str, list[Row]] = {}
    point = subject.point
    if measured.lines is not None:
        rows = [row for name, returns in measured.lines.returns.items() for row in _line_rows(name, returns)]
        tables["lines"] = [{**_keys(point), **row} for row in rows]
    if measured.path is not None and subject.end is not None:
        end = {"to_label": subject.end.label, "to_env_steps": subject.end.env_steps}
        tables["paths"] = [{**_keys(point), **end, **row} for row in _path_rows(measured.path[0])]
    if measured.plane is not None:
        plane = measured.plane
        tables["planes"] = [{**_keys(point), "plane": plane_name, **row} for row in _plane_rows(plane)]
        if plane.way is not None:
            tables["trajectory"] = _way_rows(subject.way, plane)
    return tables


def words_of(subject: Subject, measured: Measurements, request: Request) -> dict[str, str]:
    """What was seen, in sentences."""
    words = {"policy": policy_sentence(subject.point, subject.chosen_of)}
    center = mean_quantity(measured.center)
    unit = ""
    if measured.updates is not None and measured.updates.unit > 0:
        unit = unit_sentence(measured.updates.unit, measured.updates.without_schedule)
    if measured.lines is not None:
        lines = measured.lines
        random = float(measured.random.mean())
        cliff = cliff_sentence(lines.cliff, center, lines.fallen, random, float(ALPHAS.max()))
        words["lines"] = f"{cliff} {unit}"
    if measured.path is not None and subject.end is not None:
        returns, dip = measured.path
        ends = [mean_quantity(returns[0]), mean_quantity(returns[-1])]
        names = [place(subject.point), place(subject.end)]
        two_seeds = subject.point.config.seed != subject.end.config.seed
        words["path"] = barrier_sentence(dip, ends, names, two_seeds)
    if measured.plane is not None:
        plane = measured.plane
        error = float(np.median(_errors(plane.returns)))
        name, has_unit = request.plane_name, bool(unit)
        unit = unit or "Updates have no length here, so that axes are distances in parameters."
        words["plane"] = plane_sentence(name, request.grid, request.episodes, error, unit, way_words(plane), has_unit)
    return words


def way_words(plane: PlayedPlane) -> WayWords | None:
    """How well a plane shows the checkpoints, if it shows any."""
    if plane.way is None:
        return None
    shadow = np.abs(plane.way_returns.mean(1) - plane.shadow_returns.mean(1)).max()
    extent = np.linalg.norm(plane.way.coordinates[0] - plane.way.coordinates[-1])
    shares = plane.plane.variance_shares
    return WayWords(len(plane.way_returns), shares, float(plane.way.distances.max()), float(extent), float(shadow))


def figures_of(subject: Subject, measured: Measurements, request: Request, words: Mapping[str, str]) -> list[Drawing]:
    """All figures, with captions."""
    drawn = []
    point = subject.point
    random = float(measured.random.mean())
    if measured.lines is not None:
        figure = draw_lines(measured.lines.returns, ALPHAS, measured.lines.cliff, random, place(point))
        drawn.append(drawing(figure, "lines", point.label, LINES_CAPTION.format(episodes=EPISODES)))
    if measured.path is not None and subject.end is not None:
        ends = (_short(point), _short(subject.end))
        title = f"From {point.label} to {subject.end.label}"
        figure = draw_path(measured.path[0], path_coordinates()[:, 0], measured.path[1], ends, title)
        drawn.append(drawing(figure, "path", point.label, PATH_CAPTION.format(episodes=EPISODES)))
    if measured.plane is not None:
        name, plane = request.plane_name, measured.plane
        has_unit = measured.updates is not None and measured.updates.unit > 0
        unit = "lengths of an update" if has_unit else "distance in parameters"
        mean = plane.returns.mean(1).reshape(len(plane.y), len(plane.x))
        surface = Surface(plane.x, plane.y, mean, unit, AXIS_NAMES[name])
        way = None if plane.way is None else Way(plane.way.coordinates, plane.way_returns.mean(1))
        said = way_words(plane)
        title = f"{PLANE_TITLES[name]}: {point.label} at {point.env_steps:,.0f} steps"
        figure = draw_plane(surface, way, title, "" if said is None else said.note)
        drawn.append(drawing(figure, "plane", point.label, words["plane"]))
    return drawn


def write_landscape(landscape: Landscape, directory: Path) -> Path:
    """Write ``report.html``, ``landscape.json``, ``tables/`` and ``figures/``; a killed process leaves the old ones.

    Returns:
        The path of the page.

    Raises:
        WriteError: the system refuses to write.
    """
    with replace_entries(directory) as new:
        for name, rows in landscape.tables.items():
            write_table(new / "tables" / f"{name}.parquet", arrow_table(rows))
        write_drawings(landscape.figures, new / "figures")
        write_text(new / "landscape.json", json.dumps(as_json(landscape), indent=1, allow_nan=False) + "\n")
        write_text(new / "report.html", page(landscape))
    return directory / "report.html"


def as_json(landscape: Landscape) -> dict[str, Any]:
    """All but tables and figures as plain data that strict JSON can hold."""
    return {
        "format": FORMAT,
        "run": landscape.run,
        "member": landscape.member,
        "env_steps": landscape.env_steps,
        "share": landscape.share,
        "settings": plain(landscape.settings),
        "versions": dict(landscape.versions),
        "words": dict(landscape.words),
        "quantities": {name: quantity_json(quantity) for name, quantity in landscape.quantities.items()},
        "tables": sorted(landscape.tables),
        "figures": [figure.name for figure in landscape.figures],
        "not_done": [{"what": what, "why": why} for what, why in landscape.not_done],
        "cost": plain(landscape.cost),
    }


def page(landscape: Landscape) -> str:
    """The report as HTML."""
    titles = {"lines": "Lines", "path": "Path", "plane": "Plane"}
    by_name = {figure.figure: figure for figure in landscape.figures}
    rows = {
        "lines": _pivoted(landscape.tables.get("lines", ())),
        "path": landscape.tables.get("paths", ()),
        "plane": landscape.tables.get("trajectory", ()),
    }
    sections = [
        Section(titles[name], landscape.words[name], [by_name[name]], rows[name])
        for name in titles
        if name in landscape.words
    ]
    said = [first_sentence(landscape.words[name]) for name in ("policy", "lines", "path") if name in landscape.words]
    said += [f"Not done: {what}, because {why}." for what, why in landscape.not_done]
    return render_page(f"The landscape of {Path(landscape.run).name}", " ".join(said), sections)


def _line_rows(name: str, returns: FloatArray) -> list[Row]:
    first, _ = blocks(returns.shape[1])
    parts = {"A": returns[:, :first], "B": returns[:, first:], "both": returns}
    return [
        {"direction": name, "alpha": alpha, "episode_block": block, "J": mean, "low": low, "high": high}
        for block, part in parts.items()
        for alpha, mean, low, high in zip(ALPHAS.tolist(), *(x.tolist() for x in band(part)), strict=True)
    ]


def _path_rows(returns: FloatArray) -> list[Row]:
    t = path_coordinates(len(returns))[:, 0]
    columns = [t, *band(returns), chord(returns, t).mean(1)]
    names = ("t", "J", "low", "high", "chord")
    return [dict(zip(names, values, strict=True)) for values in zip(*(x.tolist() for x in columns), strict=True)]


def _plane_rows(plane: PlayedPlane) -> list[Row]:
    columns = [*grid_coordinates(plane.x, plane.y).T, plane.returns.mean(1), _errors(plane.returns)]
    names = ("x", "y", "J", "se")
    return [dict(zip(names, values, strict=True)) for values in zip(*(x.tolist() for x in columns), strict=True)]


def _way_rows(way: Sequence[Point], plane: PlayedPlane) -> list[Row]:
    if plane.way is None:
        return []
    shadows = plane.shadow_returns.mean(1)
    columns = [*plane.way.coordinates.T, plane.way.distances, *band(plane.way_returns), shadows]
    names = ("x", "y", "off_plane", "J", "low", "high", "J_shadow")
    rows = [dict(zip(names, values, strict=True)) for values in zip(*(x.tolist() for x in columns), strict=True)]
    return [{**_keys(point), **row} for point, row in zip(way, rows, strict=True)]


def _pivoted(rows: Sequence[Row]) -> list[Row]:
    """The lines as a table for readers: a row for each multiple, a column for each direction."""
    wide: dict[float, dict[str, Any]] = {}
    for row in rows:
        if row["episode_block"] == "both":
            by_direction = wide.setdefault(row["alpha"], {"alpha": row["alpha"]})
            name = row["direction"]
            if name.startswith(RANDOM):
                name = "lowest random"
                by_direction[name] = min(row["J"], by_direction.get(name, np.inf))
            else:
                by_direction[NAMES[name]] = row["J"]
    return list(wide.values())


def _errors(returns: FloatArray) -> FloatArray:
    """Standard error of each policy's mean return, ``(K,)``."""
    return returns.std(1, ddof=1) / np.sqrt(returns.shape[1])


def _keys(point: Point) -> dict[str, Any]:
    return {"member": point.config.seed, "label": point.label, "env_steps": point.env_steps}


def _short(point: Point) -> str:
    return f"{point.label}, {100 * point.share:.0f} %"
