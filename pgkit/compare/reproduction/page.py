"""The page of a reproduced study, its Markdown summary, and the files beside them."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pgkit.compare.report.html import write_table
from pgkit.compare.report.prose import case_name
from pgkit.compare.reproduction.figures import draw_grids, draw_momentum, draw_windows
from pgkit.compare.reproduction.measures import Case
from pgkit.compare.reproduction.results import LINEAR, LOG, Reproduction, optimism, outside
from pgkit.plots.columns import Column, View, cells, whole, word
from pgkit.plots.page import Drawing, Grid, drawing, duration, template_environment, write_drawings
from pgkit.plots.style import joined, percent, rate
from pgkit.system.files import write_text

GRIDS = {LINEAR: "the study's plan", LOG: "asked our way"}

CAPTIONS = {
    "grids": "Mean score of the tuning seeds at each learning rate. Coloured: the logarithmic grid. Black: the study's "
    "ten linear rates, which lie in the shaded decade. Crosses: most runs did not learn.",
    "windows": "Learning rates around the best, marked by a dot, with at least 0.9 of its score. Above: the "
    "logarithmic grid. Below, black: the study's grid, whose decade is shaded. No bar: no rate of that grid learns.",
    "momentum": "What Nesterov momentum adds to the score, each optimizer at its selected rate, with 95 % intervals. "
    "Filled: asked our way, on fresh seeds. Hollow: the study's plan, on the seeds that chose the rate.",
}

WINDOWS = (
    Column("environment", "environment", word),
    Column("agent", "agent", word),
    Column("optimizer", "optimizer", word),
    Column("group", "group", word),
    Column("best_lr", "best rate", rate),
    Column("best_score", "its score", help="mean over tuning seeds: too high, because it was chosen by them"),
    Column("effective", "learns", word, "whether the best rate has a mean score of at least 0.1"),
    Column("lowest_lr", "from", rate, "lowest rate of the window"),
    Column("highest_lr", "to", rate, "highest rate of the window"),
    Column("rates_inside", "rates inside", whole),
    Column("rates", "of", whole),
    Column(
        "decades", "decades", help="width, with a bootstrap interval over seeds", limits=("decades_low", "decades_high")
    ),
    Column("cut_off", "cut off", word, "ends of the grid that the window reaches: it may go on there"),
)
RATES = (
    *WINDOWS[:3],
    Column("lr", "learning rate", rate),
    Column("runs", "runs", whole),
    Column("score", "score"),
    Column("unlearnt", "did not learn", percent),
)
OPTIMISM = View(
    "optimism",
    "The study's plan: scores of the ten seeds that chose the rate, and of ten fresh seeds at the same rate",
    (
        *WINDOWS[:3],
        Column("lr", "selected rate", rate),
        Column("same_seeds", "seeds that chose"),
        Column("fresh_seeds", "fresh seeds"),
        Column("difference", "difference", limits=("low", "high")),
    ),
)
MOMENTUM = View(
    "momentum",
    "What Nesterov momentum adds to the score",
    (
        Column("grid", "plan", lambda grid: GRIDS[grid]),
        *WINDOWS[:2],
        Column("effect", "effect", limits=("low", "high")),
    ),
)


def write_study(reproduction: Reproduction, directory: Path, figures: bool = True) -> Path:
    """Write ``report.html``, ``summary.md``, ``figures/`` and ``tables/``, and return the path of the page.

    Raises:
        PgkitError: the directory cannot be written.
    """
    for name, table in reproduction.tables.items():
        write_table(table, directory / "tables" / name)
    drawings = draw(reproduction) if figures else []
    write_drawings(drawings, directory / "figures")
    write_text(directory / "summary.md", summary(reproduction))
    write_text(directory / "report.html", page(reproduction, drawings))
    return directory / "report.html"


def draw(reproduction: Reproduction) -> list[Drawing]:
    """Draw all figures, in the order of the page; there are none before a case of a plan is complete."""
    study, tables = reproduction.study, reproduction.tables
    span = _span(reproduction)
    labels = [arm for arms in study.groups.values() for arm in arms if arm in set(tables["rates"]["optimizer"])]
    drawings = []
    for case in _cases(reproduction):
        name = case_name(case)
        for shows, draw_one, table in (("grids", draw_grids, "rates"), ("windows", draw_windows, "windows")):
            figure = draw_one(_of(tables[table], case), span, labels)
            drawings.append(drawing(figure, shows, name, CAPTIONS[shows]))
    if len(tables["momentum"]):
        figure = draw_momentum(tables["momentum"], study.momentum)
        drawings.append(drawing(figure, "momentum", study.name, CAPTIONS["momentum"]))
    return drawings


def page(reproduction: Reproduction, drawings: Sequence[Drawing]) -> str:
    """Return the page as HTML."""
    environment = template_environment(Path(__file__).parent / "templates")
    environment.filters |= {"rate": rate}
    study = reproduction.study
    return environment.get_template("study.html.j2").render(
        study=study,
        answer=answer(reproduction),
        why_grids_differ=why_grids_differ(reproduction),
        claims=[
            (claim, [(GRIDS[grid], reproduction.outcome(claim.name, grid)) for grid in (LOG, LINEAR)])
            for claim in study.claims
        ],
        drawings=drawings,
        grids=_grids(reproduction),
        plans=[_plan(reproduction, grid) for grid in GRIDS if grid in reproduction.analyses],
        overrides=reproduction.overrides,
        tables=sorted(reproduction.tables),
    )


def summary(reproduction: Reproduction) -> str:
    """Return the page in short, as Markdown."""
    study = reproduction.study
    lines = [f"# {study.title}", "", answer(reproduction), ""]
    lines += ["| claim | asked our way | the study's plan |", "| --- | --- | --- |"]
    for claim in study.claims:
        said = [reproduction.outcome(claim.name, grid) for grid in (LOG, LINEAR)]
        shown = [f"**{each.verdict}**: {each.numbers}".replace("|", "\\|") for each in said]
        lines.append(f"| {claim.text} | {shown[0]} | {shown[1]} |")
    lines += ["", f"Why the grids differ: {why_grids_differ(reproduction)}", ""]
    lines += ["## What is not as in the study", "", *(f"- {each}" for each in study.differences)]
    lines += [f"- Changed by hand: {each}" for each in reproduction.overrides]
    for plan in (_plan(reproduction, grid) for grid in reproduction.analyses):
        lines += ["", f"Plan {plan['name']}: `{plan['hash']}`; {plan['runs']}; wall time {plan['time']}."]
    return "\n".join([*lines, ""])


def answer(reproduction: Reproduction) -> str:
    """Return the verdicts in plain words."""
    study = reproduction.study
    if len(reproduction.analyses) < len(GRIDS) or reproduction.missing:
        state = [f"{GRIDS[grid]}: {_runs(reproduction, grid)}" for grid in GRIDS]
        return f"Not finished, so nothing is decided for plans with missing cases ({'; '.join(state)})."
    said = {
        verdict: [claim.text.rstrip(".") for claim in study.claims if _ours(reproduction, claim.name) == verdict]
        for verdict in ("confirmed", "not confirmed", "not decided")
    }
    counts = joined(f"{len(claims)} {verdict}" for verdict, claims in said.items() if claims)
    parts = [f"{verdict.capitalize()}: {'; '.join(claims)}." for verdict, claims in said.items() if claims]
    verdicts = {claim.name: reproduction.outcome(claim.name, LINEAR).verdict for claim in study.claims}
    differ = [name for name, verdict in verdicts.items() if verdict != _ours(reproduction, name)]
    other = (
        f"{len(differ)} of them get another verdict there ({joined(differ)})" if differ else "each has the same verdict"
    )
    return (
        f"Asked our way, {len(study.claims)} claims of the study come out as {counts}. {' '.join(parts)} "
        f"On the study's own grid and seeds, {other}."
    )


def why_grids_differ(reproduction: Reproduction) -> str:
    """Return what the two grids cover, and what that does to the best rates and to the scores, in words."""
    low, high = _span(reproduction)
    parts = [
        f"The study's rates, {rate(low)} to {rate(high)} in equal steps, span one decade: the first step doubles the "
        "rate, the last adds a ninth. Good rates of different optimizers may lie decades apart, and then one decade "
        "decides beforehand which of them can show a window, and where it ends. The logarithmic grid has two rates in "
        "each decade."
    ]
    count, of = outside(reproduction)
    if of:
        parts.append(
            f"On it, {count} of the {of} cells (optimizer, environment and agent) that learn have their best rate "
            "outside the study's decade."
        )
    gain = optimism(reproduction.tables["optimism"])
    if not math.isnan(gain.value):
        interval = f"[{gain.low:+.3f}, {gain.high:+.3f}]"
        parts.append(
            f"In the study's plan the seeds that chose a rate score {gain.value:+.3f} {interval} more than fresh "
            "seeds at that rate, on average."
        )
    return " ".join(parts)


def _ours(reproduction: Reproduction, claim: str) -> str:
    return reproduction.outcome(claim, LOG).verdict


def _span(reproduction: Reproduction) -> tuple[float, float]:
    """Return the lowest and the highest rate of the study's plan."""
    if LINEAR in reproduction.analyses:
        rates = reproduction.analyses[LINEAR].plan["learning_rates"]
        return rates[0], rates[-1]
    return reproduction.study.span


def _cases(reproduction: Reproduction) -> list[Case]:
    return list(dict.fromkeys(case for side in reproduction.sides.values() for case in side.curves))


def _of(table: pd.DataFrame, case: Case) -> pd.DataFrame:
    return table[(table["environment"] == case[0]) & (table["agent"] == case[1])]


def _grids(reproduction: Reproduction) -> list[Grid]:
    """Return the tables of the page that have rows."""
    tables = reproduction.tables
    grids = []
    for grid, words in GRIDS.items():
        for name, caption, chosen in (
            ("windows", f"Windows of learning rates, {words}", WINDOWS),
            ("rates", f"Every learning rate, {words}", RATES),
        ):
            view = View(name, caption, chosen, open=name == "windows")
            grids.append(Grid(view, grid, cells(view, tables[name][tables[name]["grid"] == grid])))
    grids += [Grid(view, "", cells(view, tables[view.table])) for view in (MOMENTUM, OPTIMISM)]
    return [grid for grid in grids if grid.rows]


def _plan(reproduction: Reproduction, grid: str) -> dict[str, Any]:
    analysis = reproduction.analyses[grid]
    return {
        "grid": grid,
        "name": GRIDS[grid],
        "hash": analysis.plan["hash"],
        "rates": analysis.plan["learning_rates"],
        "seeds": (len(analysis.plan["tuning_seeds"]), len(analysis.plan["evaluation_seeds"])),
        "runs": _runs(reproduction, grid),
        "time": duration(analysis.facts["wall_seconds"]),
    }


def _runs(reproduction: Reproduction, grid: str) -> str:
    if grid not in reproduction.analyses:
        return "not begun"
    facts = reproduction.analyses[grid].facts
    missing = f", {facts['missing']} of those known so far are missing" if facts["missing"] else ""
    return f"{facts['finished']} runs finished{missing}"
