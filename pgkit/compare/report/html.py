"""The report of a comparison: a self-contained HTML page, a Markdown summary, and files of figures and tables.

Equal analyses give equal bytes.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from pgkit.compare.report import columns, prose
from pgkit.compare.report.figures import CAPTIONS, GREEDY, RULE, SCREENED, draw_across, draw_all
from pgkit.compare.report.glossary import glossary
from pgkit.compare.report.why import Why, explain
from pgkit.compare.tables import Analysis, check_tables
from pgkit.config.load import flatten
from pgkit.logging.parquet import write_frame
from pgkit.plots.columns import View, cells
from pgkit.plots.page import Drawing, Grid, as_texts, drawing, duration, slug, template_environment, write_drawings
from pgkit.plots.style import joined, rate, short_number
from pgkit.system.files import write_text

RANKINGS = ("p_best", "mean_rank")
"""Columns that rank arms; left out in tiers without claims."""

BCA = ("bca_low", "bca_high")
WITHOUT_LIMITS = (("t_low", "t_high"), columns.TAIL)
"""Limits of intervals: below ten runs the first column is left out, the others are shown without their limits."""


def write_report(
    analysis: Analysis,
    directory: Path,
    drawings: Sequence[Drawing] | None = None,
    diagnosed: Sequence[Path] | None = None,
) -> Path:
    """Write ``report.html``, ``summary.md``, ``figures/`` and ``tables/``.

    Args:
        analysis: the analysed comparison.
        directory: created when missing.
        drawings: result of :func:`draw`; None to draw now.
        diagnosed: directories of comparisons whose diagnoses the page sums up; None for ``directory`` alone.

    Returns:
        The path of the page.

    Raises:
        PgkitError: a table breaks its schema, or the directory cannot be written.
    """
    check_tables(analysis.tables, analysis.schemas)
    for name, table in analysis.tables.items():
        write_table(table, directory / "tables" / name)
    drawings = draw(analysis) if drawings is None else drawings
    write_drawings(drawings, directory / "figures")
    write_text(directory / "summary.md", summary(analysis))
    why = explain(analysis, [directory] if diagnosed is None else diagnosed, directory)
    write_text(directory / "report.html", page(analysis, drawings, why))
    return directory / "report.html"


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write ``<path>.csv`` and ``<path>.parquet``."""
    write_text(path.with_name(f"{path.name}.csv"), table.to_csv(index=False, lineterminator="\n"))
    write_frame(path.with_name(f"{path.name}.parquet"), table)


def draw(analysis: Analysis) -> list[Drawing]:
    """Draw all figures, in the order of the page."""
    captions = {**CAPTIONS, "pairs": f"{CAPTIONS['pairs']} {RULE}"} if analysis.claims else CAPTIONS
    if analysis.plan["evaluation"].get("greedy"):
        captions = {**captions, "learning": f"{captions['learning']} {GREEDY}"}
    if analysis.screened:
        captions = {**captions, "sensitivity": f"{captions['sensitivity']} {SCREENED}"}
    drawn = [(prose.case_name(case), draw_all(analysis, case)) for case in analysis.cases]
    drawn += [(agent, draw_across(analysis, agent)) for agent in analysis.plan["agents"]]
    return [
        drawing(axes, figure, where, captions[figure]) for where, figures in drawn for figure, axes in figures.items()
    ]


def page(analysis: Analysis, drawings: Sequence[Drawing], why: Sequence[Why] = ()) -> str:
    """Return the report as HTML.

    Args:
        analysis: the analysed comparison.
        drawings: its figures.
        why: what diagnoses say of each case.
    """
    environment = template_environment(Path(__file__).parent / "templates")
    environment.filters |= {"steps": short_number, "rate": rate, "seeds": prose.seeds}
    across = analysis.tables["across"]
    return environment.get_template("report.html.j2").render(
        plan=analysis.plan,
        facts=analysis.facts,
        claims=analysis.claims,
        spaces=prose.spaces(analysis),
        answers=_answers(analysis, drawings),
        glossary=glossary(analysis.plan).items(),
        metric=prose.metric(analysis),
        introduction=prose.introduction(analysis),
        screening=prose.screening(analysis) if analysis.screened else "",
        state_of_runs=prose.state_of_runs(analysis),
        cases=[_case(analysis, case, drawings) for case in analysis.cases],
        across=[each for each in drawings if each.figure == "profiles"],
        across_tables=[_grid(analysis, columns.ACROSS, across, "across")] if len(across) else [],
        why=[each for each in why if each.lines],
        undiagnosed=[each.case for each in why if not each.lines],
        baselines=_grid(analysis, columns.BASELINES, analysis.tables["baselines"], "baselines"),
        held=as_texts(flatten(analysis.plan["held_equal"])),
        provenance=as_texts(flatten(analysis.facts["provenance"])),
        tables=sorted(analysis.tables),
    )


def _answers(analysis: Analysis, drawings: Sequence[Drawing]) -> list[tuple[prose.Answer, list[Drawing]]]:
    """Return the answer for each case, with the figure of stability if it was drawn."""
    figures = [each for each in drawings if each.figure == "stability"]
    return [(answer, [each for each in figures if each.where == answer.case]) for answer in prose.answers(analysis)]


def summary(analysis: Analysis) -> str:
    """Return a short report as Markdown."""
    lines = [f"# {analysis.plan['name']}", "", f"*{analysis.plan['question']}*", ""]
    for answer in prose.answers(analysis):
        lines += [f"**{answer.case}.** {answer.text} {answer.sure}", ""]
    lines += [prose.introduction(analysis), ""]
    for case in analysis.cases:
        lines += [f"## {prose.case_name(case)}", ""]
        for view in _main_views(analysis):
            lines += [
                f"### {view.caption}",
                "",
                *markdown(_grid(analysis, view, analysis.of(view.table, case), "")),
                "",
            ]
        lines += [f"- {remark}" for remark in prose.remarks(analysis, case)]
        lines += [f"- Tuning cost: {prose.tuning_cost(analysis.of('selection', case)) or 'nothing yet'}."]
        lines += [f"- Runs: {prose.runs_of_case(analysis, case) or 'none yet'}.", ""]
    plan, facts = analysis.plan, analysis.facts
    lines += ["## How", "", f"- Tier: {plan['tier']}; track: {plan['track']}; metric: {prose.metric(analysis)}"]
    lines += [f"- Screening: {prose.screening(analysis)}"] if analysis.screened else []
    lines += [f"- Tuned: {label}: {ranges}" for label, ranges in prose.spaces(analysis).items()]
    lines += [f"- Runs: {prose.state_of_runs(analysis)}; wall time {duration(facts['wall_seconds'])}"]
    lines += [f"- Tuning seeds: {prose.seeds(plan['tuning_seeds'])}"]
    lines += [f"- Evaluation seeds: {prose.seeds(plan['evaluation_seeds'])}"]
    lines += [f"- Plan: `{plan['hash']}`; deviations: {joined(facts['deviations']) or 'none'}"]
    return "\n".join([*lines, ""])


def markdown(grid: Grid) -> list[str]:
    """Return the lines of a table in Markdown."""
    headers = [column.header for column in grid.view.columns]
    rows = [headers, ["---"] * len(headers), *([cell.text for cell in row] for row in grid.rows)]
    escaped = [[text.replace("|", "\\|") for text in row] for row in rows]
    return [f"| {' | '.join(row)} |" for row in escaped]


def _case(analysis: Analysis, case: tuple[str, str], drawings: Sequence[Drawing]) -> dict[str, Any]:
    """Return the template's variables for one case."""
    name = prose.case_name(case)
    config = next(entry for entry in analysis.plan["cases"] if (entry["environment"], entry["agent"]) == case)["config"]
    rates = [] if analysis.all_tuned else [columns.RATES]
    dropped = [columns.SCREENING] if analysis.screened else []
    chosen = (*_main_views(analysis), *rates, *dropped, *columns.DETAILS)
    grids = [_grid(analysis, view, analysis.of(view.table, case), slug(name)) for view in chosen]
    return {
        "name": name,
        "remarks": prose.remarks(analysis, case),
        "tuning_cost": prose.tuning_cost(analysis.of("selection", case)),
        "runs": prose.runs_of_case(analysis, case),
        "drawings": [each for each in drawings if each.where == name and each.figure != "stability"],
        "tables": [grid for grid in grids if grid.view.open and grid.rows],
        "details": [grid for grid in grids if not grid.view.open and grid.rows],
        "config": config,
    }


def _main_views(analysis: Analysis) -> list[View]:
    """Return the main tables: arms and, with enough runs for intervals, pairs; in track "all tuned" also settings."""
    pairs = columns.PAIRS if analysis.claims else columns.PAIRS_EXPLORATORY
    tuned = [columns.SELECTED] if analysis.all_tuned else []
    return [columns.ARMS_IN_SHORT, *([pairs] if analysis.intervals else []), *tuned]


def _grid(analysis: Analysis, view: View, rows: pd.DataFrame, case: str) -> Grid:
    """Return a view of these rows without ranks or intervals that the tier or the number of runs does not support."""
    shown_columns = tuple(column for column in view.columns if column.name in rows)  # some tracks and plans have fewer
    if not analysis.claims:
        shown_columns = tuple(column for column in shown_columns if column.name not in RANKINGS)
    if not analysis.intervals:
        kept = [column for column in shown_columns if column.limits != BCA]
        shown_columns = tuple(c._replace(limits=()) if c.limits in WITHOUT_LIMITS else c for c in kept)
    shown = replace(view, columns=shown_columns)
    return Grid(shown, case, cells(shown, rows))
