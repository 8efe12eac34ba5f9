"""Write what the study of `configs/study-2026.toml` found, from the pieces that `scripts/study.py` has finished.

    python scripts/study_report.py

It writes to `scripts/results/study-2026/`: `index.html`, a page that works offline; `README.md`, the same in short with
the data card; `figures/`; and `tables/`, all runs and learning curves as Parquet, the rest as CSV, in the schema of any
comparison (`pgkit/compare/README.md`).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from study import CONTROL, PIECES, Piece, lr_pieces, tuned_pieces

from pgkit.cli.errors import one_line_errors
from pgkit.compare.analysis.pool import read_stored
from pgkit.compare.api import load_pooled_analysis
from pgkit.compare.tables import Analysis
from pgkit.errors import PgkitError
from pgkit.logging.parquet import write_frame
from pgkit.plots.columns import Column, View, cells, estimate, number, whole, word
from pgkit.plots.page import Grid, drawing, duration, template_environment, write_drawings
from pgkit.plots.style import joined, new_figure, percent, settings, short_number
from pgkit.system.files import write_text

RESULTS = PIECES.parent
REFERENCE = "adam"
"""The arm that all others are compared with on the page; the tables have every pair."""

KEPT = ("selection", "arms", "pairs", "neighbours", "screening", "baselines")
SYMBOLS = {"better": "+", "worse": "\u2212", "equivalent": "=", "unresolved": ""}


class Study(NamedTuple):
    """The finished pieces of a track.

    Attributes:
        pieces: those that are finished.
        analyses: of the pieces of each agent, pooled; arms may differ between agents.
    """

    pieces: Sequence[Piece]
    analyses: Sequence[Analysis]

    @property
    def cases(self) -> list[tuple[str, str]]:
        """(environment, agent) of each piece."""
        return [case for analysis in self.analyses for case in analysis.cases]

    @property
    def agents(self) -> list[str]:
        """The agents, in the order of the plan."""
        return list(dict.fromkeys(agent for _, agent in self.cases))

    @property
    def arms(self) -> list[str]:
        """The arms, in the order of the plan; not all are trained with every agent."""
        return list(dict.fromkeys(arm for analysis in self.analyses for arm in analysis.labels))

    def table(self, name: str) -> pd.DataFrame:
        """Return a table of all cases."""
        return pd.concat([analysis.tables[name] for analysis in self.analyses], ignore_index=True)

    def against(self, reference: str) -> pd.DataFrame:
        """Return how each other arm compares with one: ``optimizer`` and ``verdict`` in each case."""
        pairs = self.table("pairs")
        first = pairs[pairs["second"] == reference].rename(columns={"first": "optimizer"})
        second = pairs[pairs["first"] == reference].rename(columns={"second": "optimizer"})
        swapped = second.assign(verdict=second["verdict"].replace({"better": "worse", "worse": "better"}))
        return pd.concat([first, swapped], ignore_index=True)[["environment", "agent", "optimizer", "verdict"]]


def load(pieces: Sequence[Piece]) -> Study:
    """Analyse the pieces that are finished."""
    finished = [piece for piece in pieces if piece.finished]
    agents = dict.fromkeys(agent for piece in finished for agent in piece.table["agents"])
    groups = [[piece for piece in finished if agent in piece.table["agents"]] for agent in agents]
    return Study(finished, [load_pooled_analysis([PIECES / piece.name for piece in group]) for group in groups])


def overview(study: Study) -> pd.DataFrame:
    """Return a row for each arm: its mean over all cases, and in how many it is better or worse than the reference."""
    arms, against = study.table("arms"), study.against(REFERENCE)
    rows = []
    for arm in study.arms:
        of_arm, verdicts = arms[arms["optimizer"] == arm], against.loc[against["optimizer"] == arm, "verdict"]
        rows.append(
            {
                "optimizer": arm,
                "cases": len(of_arm),
                "mean": of_arm["mean"].mean(),
                "worst": of_arm["mean"].min(),
                **{verdict: int((verdicts == verdict).sum()) for verdict in SYMBOLS},
                "not_learnt": 1 - of_arm["learnt"].sum() / of_arm["n"].sum(),
                "collapsed": of_arm["collapses"].sum() / of_arm["n"].sum(),
            }
        )
    return pd.DataFrame(rows).sort_values("mean", ascending=False, ignore_index=True)


@settings()
def draw_scores(study: Study, order: Sequence[str]) -> Axes:
    """Draw the score of every arm in every case, its colour the difference from the reference, and the verdict."""
    arms = study.table("arms").set_index(["optimizer", "environment", "agent"])["mean"]
    verdicts = study.against(REFERENCE).set_index(["optimizer", "environment", "agent"])["verdict"]
    score = np.array([[arms.get((arm, *case), np.nan) for case in study.cases] for arm in order])
    difference = score - score[list(order).index(REFERENCE)]
    axes = new_figure(0.9 + 0.21 * len(order), 1.6 + 0.62 * len(study.cases)).add_subplot()
    image = axes.imshow(difference, aspect="auto", cmap="RdBu", norm=TwoSlopeNorm(0, -0.5, 0.5))
    for row, column in zip(*np.nonzero(~np.isnan(score)), strict=True):
        symbol = SYMBOLS[verdicts.get((order[row], *study.cases[column]), "unresolved")]
        dark = abs(difference[row, column]) > 0.35
        axes.text(
            column, row, f"{score[row, column]:.2f}{symbol}", ha="center", va="center", color="w" if dark else "k"
        )
    axes.set_yticks(range(len(order)), order)
    axes.set_xticks(range(len(study.cases)), [f"{env.partition('-')[0]}\n{agent}" for env, agent in study.cases])
    axes.xaxis.tick_top()
    axes.tick_params(length=0, labelsize=7)
    axes.grid(visible=False)
    axes.figure.colorbar(image, ax=axes, shrink=0.5, label=f"difference from {REFERENCE}", extend="both")
    return axes


@settings()
def draw_pooled(across: pd.DataFrame) -> Axes:
    """Draw the mean over environments of every arm, with its interval, a panel for each agent."""
    agents = list(dict.fromkeys(across["agent"]))
    arms = list(dict.fromkeys(across["optimizer"]))
    panels = new_figure(0.9 + 0.18 * len(arms), 9).subplots(1, len(agents), sharey=True, squeeze=False)[0]
    order = list(across.groupby("optimizer")["mean"].mean().sort_values().index)
    for axes, agent in zip(panels, agents, strict=True):
        rows = across[across["agent"] == agent].set_index("optimizer").reindex(order)
        errors = [rows["mean"] - rows["mean_low"], rows["mean_high"] - rows["mean"]]
        colors = ["#d55e00" if arm in (REFERENCE, CONTROL) else "#0072b2" for arm in order]
        axes.axvline(rows.loc[REFERENCE, "mean"], color="#d55e00", linewidth=0.8, linestyle=":")
        axes.errorbar(rows["mean"], range(len(order)), xerr=errors, fmt="none", ecolor=colors, linewidth=1.2)
        axes.scatter(rows["mean"], range(len(order)), c=colors, s=14, zorder=3)
        axes.set_yticks(range(len(order)), order)
        axes.set_title(agent)
        axes.set_xlabel("mean score over environments")
    return panels[0]


@settings()
def draw_rates(study: Study, order: Sequence[str]) -> Axes:
    """Draw the learning rate that each arm selects in every case: one that transfers has its points together."""
    selection = study.table("selection")
    axes = new_figure(0.9 + 0.2 * len(order), 6.5).add_subplot()
    markers = dict(zip(study.agents, "osD^v", strict=False))
    environments = dict.fromkeys(environment for environment, _ in study.cases)
    colors = dict(zip(environments, ("#0072b2", "#009e73", "#c77700", "#7a1f4e"), strict=False))
    for row, arm in enumerate(order):
        for index, (environment, agent) in enumerate(study.cases):
            chosen = selection[
                (selection["optimizer"] == arm)
                & (selection["environment"] == environment)
                & (selection["agent"] == agent)
            ]
            place = row + 0.5 * (index / len(study.cases) - 0.5)
            axes.scatter(chosen["lr"], [place], marker=markers[agent], color=colors[environment], s=12)
    handles = [axes.scatter([], [], marker=each, color="#555555", s=12, label=agent) for agent, each in markers.items()]
    handles += [axes.scatter([], [], marker="o", color=color, s=12, label=name) for name, color in colors.items()]
    axes.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.07), ncols=4, fontsize=7)
    axes.set_xscale("log")
    axes.set_yticks(range(len(order)), order)
    axes.invert_yaxis()
    axes.set_xlabel("selected learning rate")
    return axes


ANSWER = (
    Column("optimizer", "optimizer", word),
    Column("cases", "cases", whole, "not every arm is trained with every agent"),
    Column("mean", "mean score", number, "over its cases, each with the same weight"),
    Column("worst", "worst case", number, "lowest mean score of a case"),
    Column("better", f"better than {REFERENCE}", whole, "cases, by the verdict of the pairs table"),
    Column("worse", "worse", whole),
    Column("equivalent", "equivalent", whole),
    Column("unresolved", "unresolved", whole),
    Column("not_learnt", "did not learn", percent, "of all evaluation runs"),
    Column("collapsed", "collapsed", percent, "of all evaluation runs"),
)
POOLED = (
    Column("agent", "agent", word),
    Column("optimizer", "optimizer", word),
    estimate("mean", "mean", help="over environments and seeds, with a stratified bootstrap interval"),
    estimate("iqm", "IQM"),
    estimate("optimality_gap", "gap"),
)
TUNED = (
    Column("environment", "environment", word),
    Column("agent", "agent", word),
    Column("optimizer", "optimizer", word),
    Column("mean", "score", number, "20 fresh seeds", ("t_low", "t_high")),
    Column("learnt", "learnt", whole),
    Column("solved", "solved", whole),
)
PIECE = (
    Column("piece", "piece", word),
    Column("plan", "plan", word, "first digits of its hash"),
    Column("runs", "runs", whole),
    Column("steps", "env steps", short_number, "of training, evaluations not counted"),
    Column("seconds", "took", duration, "wall time, other work beside it"),
)
CAPTIONS = {
    "scores": "Mean score of 20 fresh seeds at each arm's selected learning rate. Colour: difference from "
    f"{REFERENCE}. + better, \u2212 worse, = equivalent, by the 95 % interval and the margin of 0.05; else unresolved.",
    "pooled": "Mean over the environments with each agent, with 95 % intervals over seeds. Orange: "
    f"{REFERENCE}, and its control.",
    "rates": "The learning rate that each arm selected in each case. Points together: one rate would do for all.",
}
TEMPLATE = """\
{% extends "base.html.j2" %}
{% from "parts.html.j2" import figure, table %}
{% block title %}The study of 2026 - pgkit{% endblock %}
{% block body %}
<h1>Which optimizers help policy gradients?</h1>
<p class="question">{{ question }}</p>
<section class="answer">{% for sentence in sentences %}<p>{{ sentence }}</p>{% endfor %}</section>
{% for drawing in drawings %}{{ figure(drawing) }}{% endfor %}
{% for grid in grids %}{{ table(grid) }}{% endfor %}
<h2>Not known, not varied</h2>
<ul>{% for sentence in limits %}<li>{{ sentence }}</li>{% endfor %}</ul>
{% endblock %}
"""
LIMITS = (
    "One network, one batch size and one budget for each environment; a linear schedule to 0, except for the "
    "schedule-free recipes; gradients clipped at 0.5; the critic's optimizer is adam at 0.01 for all.",
    "Everything but the learning rate is at documented defaults: an arm may do better with other settings.",
    "Three tuning seeds choose a rate, after early dropping of bad ones: a neighbouring rate may be as good.",
    "Intervals are over seeds. Four environments are few, and which they are is a choice.",
    "npg and trpo are not trained with PPO.",
)


def sentences(study: Study, ranking: pd.DataFrame) -> list[str]:
    """Return the answer in words."""
    cases = f"Finished so far: {len(study.cases)} of {len(lr_pieces())} cases. "
    best = ranking[~ranking["optimizer"].isin([CONTROL])].head(3)
    leading = joined(f"{row.optimizer} ({row.mean:.2f})" for row in best.itertuples())
    reference = ranking.set_index("optimizer").loc[REFERENCE]
    answer = [f"{cases}The highest mean scores over them have {leading}; {REFERENCE} has {reference['mean']:.2f}."]
    ahead = ranking[(ranking["better"] > 0) & (ranking["optimizer"] != CONTROL)].sort_values("better", ascending=False)
    counted = joined(f"{row.optimizer} in {row.better} (worse in {row.worse})" for row in ahead.head(6).itertuples())
    answer.append(f"Better than {REFERENCE}, beyond the margin of 0.05: {counted or 'none, in no case'}.")
    control = ranking.set_index("optimizer").loc[CONTROL]
    verdicts = joined(f"{verdict} in {int(control[verdict])}" for verdict in SYMBOLS if control[verdict])
    answer.append(f"The control, {REFERENCE} a second time under another name, ends {verdicts}.")
    return answer


def piece_rows(study: Study) -> pd.DataFrame:
    """Return what each piece took; times are wall times, with other work beside it."""
    rows = []
    for piece in study.pieces:
        stored = read_stored(PIECES / piece.name)
        seconds = sum(session["wall_seconds"] for session in stored.provenance["sessions"])
        steps = stored.runs["env_steps"].sum()
        rows.append(
            {
                "piece": piece.name,
                "plan": stored.plan.hash[:12],
                "runs": len(stored.runs),
                "steps": steps,
                "seconds": seconds,
            }
        )
    return pd.DataFrame(rows)


def write(study: Study, tuned: Study) -> None:
    """Write the page, the data card, figures and tables."""
    ranking, across = overview(study), study.table("across")
    across = across[across["without"] == ""]
    order = list(ranking["optimizer"])
    answer = sentences(study, ranking)
    axes = {"scores": draw_scores(study, order), "rates": draw_rates(study, order)}
    if len(across):  # an agent has at least three environments
        axes["pooled"] = draw_pooled(across)
    drawings = [drawing(each.figure, name, "study", CAPTIONS[name]) for name, each in axes.items()]
    views = [
        (View("overview", "Every arm over all cases", ANSWER, open=True), ranking),
        (View("across", "Across the environments of each agent, where there are three or more", POOLED), across),
        (View("pieces", "The pieces: plans, and what they took", PIECE), piece_rows(study)),
    ]
    if tuned.pieces:
        views.insert(2, (View("tuned", "Six best arms, all hyperparameters tuned", TUNED), tuned.table("arms")))
    grids = [Grid(view, "study", cells(view, rows)) for view, rows in views]
    environment = template_environment()
    page = environment.from_string(TEMPLATE).render(
        question=study.analyses[0].plan["question"], sentences=answer, drawings=drawings, grids=grids, limits=LIMITS
    )
    write_drawings(drawings, RESULTS / "figures")
    write_text(RESULTS / "index.html", page)
    write_text(RESULTS / "README.md", card(study, answer, ranking))
    for name, rows in [(view.table, rows) for view, rows in views] + [(name, study.table(name)) for name in KEPT]:
        write_text(RESULTS / "tables" / f"{name}.csv", rows.to_csv(index=False, lineterminator="\n"))
    for name in ("runs", "curves"):
        write_frame(RESULTS / "tables" / f"{name}.parquet", study.table(name))


def card(study: Study, answer: Sequence[str], ranking: pd.DataFrame) -> str:
    """Return the data card, with the answer in short."""
    table = [
        f"| {row.optimizer} | {row.mean:.3f} | {row.worst:.3f} | {row.better} | {row.worse} | {row.equivalent} | "
        f"{row.unresolved} | {row.not_learnt:.1%} |"
        for row in ranking.itertuples()
    ]
    pieces = [
        f"| {row.piece} | `{row.plan}` | {row.runs} | {short_number(row.steps)} | {duration(row.seconds)} |"
        for row in piece_rows(study).itertuples()
    ]
    origin = study.analyses[0].facts["provenance"]["origin"]
    texts = {name: "\n".join(lines) for name, lines in (("table", table), ("pieces", pieces))}
    limits = "\n".join(f"- {sentence}" for sentence in LIMITS)
    return CARD.format(
        answer="\n\n".join(answer), reference=REFERENCE, limits=limits, code=origin["code"], cpu=origin["cpu"], **texts
    )


CARD = """\
# The study of 2026

{answer}

![Score of every arm in every case](figures/study-scores.png)

| optimizer | mean score | worst case | better than {reference} | worse | equivalent | unresolved | did not learn |
|---|---|---|---|---|---|---|---|
{table}

The page is `index.html`, with all figures. Plan: `configs/study-2026.toml`; command: `python scripts/study.py`, then
`python scripts/study_report.py`.

## Data card

- **What**: training runs of policy-gradient agents, one row a run (`tables/runs.parquet`) and one a run and evaluation
  (`tables/curves.parquet`); their statistics as CSV. Columns are those of any comparison: `pgkit/compare/README.md`.
- **How made**: simulation only, no personal data. Code `{code}`, processor {cpu}. `pieces/` has the resolved plan, the
  provenance and the raw results of each piece; `pgkit report` reads them.
- **Use**: compare optimizers, curves, selection rules. One row is one training seed, the only statistical unit.
- **Licence**: that of pgkit, MIT.

| piece | plan | runs | env steps | took |
|---|---|---|---|---|
{pieces}

## Not known, not varied

{limits}
"""


def main() -> None:
    with one_line_errors():
        study = load(lr_pieces())
        if not study.pieces:
            raise PgkitError("no piece is finished: python scripts/study.py runs them")
        write(study, load(tuned_pieces()))


if __name__ == "__main__":
    main()
