"""An analysed comparison as plain data: the source of figures, report and TensorBoard files."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import pandas as pd

from pgkit.errors import PgkitError, format_value

CASE = ("environment", "agent")
"""Keys of a case. Cases are pooled only in measures across environments."""
ARM = (*CASE, "optimizer")
SETTING = (*ARM, "lr")
"""Keys of a setting on the grid of learning rates."""
NUMBERED = (*ARM, "setting", "lr")
"""Keys of a setting in track "all tuned": its number, which determines the rate."""

TIERS_WITH_CLAIMS = ("standard", "publication")
"""The quick tier explores: it ranks nothing."""

LEARNT, NOT_LEARNT, FAILED = "learnt", "did not learn", "failed"
"""Outcomes of a run: ``failed`` if a number became non-finite, ``did not learn`` if its final score is too low."""

FEW_SEEDS = 10
"""The smallest number of runs that gets an interval; below it, minimum, median and maximum are shown."""


def _with_limits(*names: str) -> tuple[str, ...]:
    """Return names of estimates, each followed by the limits of its confidence interval."""
    return tuple(column for name in names for column in (name, f"{name}_low", f"{name}_high"))


class Schema(NamedTuple):
    """The columns of a table, in their order.

    Attributes:
        keys: columns that identify a row; no two rows agree in all of them.
        columns: the other columns.
    """

    keys: tuple[str, ...]
    columns: tuple[str, ...]

    @property
    def all(self) -> tuple[str, ...]:
        """All columns, keys first."""
        return (*self.keys, *self.columns)


_OF_ARM = (
    *("lr", "n", "mean", "median", "sd", "t_low", "t_high", "bca_low", "bca_high", "skew"),
    *("tolerance_low", "tolerance_high", "tolerance_confidence", "final", "greedy"),
    *("worst_tenth", "worst_tenth_low", "worst_tenth_high"),
    *("learnt", "learnt_rate", "learnt_low", "learnt_high", "failed"),
    *("collapses", "collapse_rate", "collapse_low", "collapse_high"),
    *("solved", "solved_rate", "solved_low", "solved_high"),
    *("steps_mean", "steps_median", "dt", "srt", "lrt", "max_drawdown", "worst_drawdown", "retention"),
    *("dr", "rr", "df", "rf", "p_best", "mean_rank"),
)
_OF_RUN = (
    *("outcome", "failed_at", "env_steps", "auc", "final", "best", "greedy", "dt", "srt", "lrt", "max_drawdown"),
    *("retention", "collapsed", "solved", "steps_to_threshold", "df", "rf"),
)
_SELECTED = ("lr", "hyperparameters", "second_lr", "second_hyperparameters")
_OF_PAIR = (
    *("difference", "low", "high", "p", "p_holm", "improvement", "improvement_low", "improvement_high"),
    *("verdict", "second_best_verdict", "flips"),
)


def schemas(all_tuned: bool = False, greedy: bool = False, screened: bool = False) -> Mapping[str, Schema]:
    """Return the schema of every table by name, as README.md describes them.

    Args:
        all_tuned: whether for track "all tuned", where numbers identify settings, not learning rates.
        greedy: whether to add the columns of greedy evaluations.
        screened: whether to add the table of learning rates that were dropped; ``rates`` and ``expected_best``, which
            need the whole grid, have no rows then.
    """
    setting, number = (NUMBERED, ("setting",)) if all_tuned else (SETTING, ())
    run = ("stage", *setting, "seed")
    greedy_auc = ("greedy_auc",) if greedy else ()
    greedy_curve = ("greedy_return_mean", "greedy_score") if greedy else ()
    tables = {
        "runs": Schema(run, (*_OF_RUN, *greedy_auc)),
        "curves": Schema((*run, "point"), ("env_steps", "return_mean", "score", *greedy_curve)),
        "sensitivity": Schema(setting, ("n", "mean", "learnt_rate", "chosen_share", "in_set", "selected")),
        "selection": Schema(ARM, ("lr", "second_lr", "edge", "runs", "env_steps")),
        "arms": Schema(ARM, (*number, *_OF_ARM, *greedy_auc)),
        "neighbours": Schema((*setting, "offset"), ("n", "mean", "minimum", "learnt_rate")),
        "pairs": Schema((*CASE, "first", "second"), _OF_PAIR),
        "rates": Schema(ARM, _with_limits("width", "area", "times_sqrt10", "over_sqrt10", "safe_ratio")),
        "expected_best": Schema((*ARM, "k"), ("value", "low", "high")),
        "across": Schema(("agent", "optimizer", "without"), _with_limits("iqm", "mean", "optimality_gap", "phi")),
        "profiles": Schema(("agent", "optimizer", "tau"), ("share", "low", "high")),
        "baselines": Schema(("environment", "policy"), ("episodes", "return_mean", "return_sd", "score")),
    }
    if all_tuned:  # rates have no order along which a width or an area could be measured
        del tables["rates"]
        tables["selection"] = Schema(ARM, ("setting", "second_setting", *_SELECTED, "edge", "runs", "env_steps"))
        tables["settings"] = Schema(("optimizer", "setting", "hyperparameter"), ("value",))
    if screened:
        tables["screening"] = Schema(SETTING, ("rung", "seeds", "share", "score", "env_steps"))
    return tables


SCHEMAS = schemas()
"""Schemas of track "lr only"."""


@dataclass(frozen=True)
class Analysis:
    """An analysed comparison.

    Attributes:
        plan: plain data as in ``plan.json``: name, question, tier, metric, arms {label: settings}, agents,
            environments {id: {random_return, reference_return, threshold}}, learning_rates (or, where all is tuned,
            spaces {label: {hyperparameter: {low, high, scale}}} and settings {label: [{...}]}), tuning_seeds,
            evaluation_seeds, neighbour_seeds, rope, failure_below, evaluation {points, episodes, final_episodes},
            cases [{environment, agent, config (resolved TOML)}], held_equal {name: value}, hash.
        tables: the tables by name, as in :func:`schemas`.
        facts: planned, finished, not_learnt, failed, missing (numbers of runs), deviations [str],
            formulas {label: text}, provenance (plain data as in ``provenance.json``), not_varied [str], wall_seconds;
            with screening also screening {tried, dropped (settings), env_steps, grid_env_steps (of tuning)}.
    """

    plan: Mapping[str, Any]
    tables: Mapping[str, pd.DataFrame]
    facts: Mapping[str, Any]

    def _repr_html_(self) -> str:
        """What a notebook shows: each arm at its selected setting, on fresh seeds."""
        columns = ["environment", "agent", "optimizer", "lr", "n", "mean", "t_low", "t_high", "learnt", "failed"]
        return self.tables["arms"][columns].to_html(index=False, float_format="{:.3g}".format)

    @property
    def intervals(self) -> bool:
        """Whether there are enough runs for confidence intervals of scores."""
        return len(self.plan["evaluation_seeds"]) >= FEW_SEEDS

    @property
    def claims(self) -> bool:
        """Whether the tier and the number of runs support claims about which arm is better."""
        return self.intervals and self.plan["tier"] in TIERS_WITH_CLAIMS

    @property
    def all_tuned(self) -> bool:
        """Whether every hyperparameter was tuned, not the learning rate alone."""
        return "spaces" in self.plan

    @property
    def schemas(self) -> Mapping[str, Schema]:
        """Schemas of the tables."""
        return schemas(self.all_tuned, self.plan["evaluation"].get("greedy", False), self.screened)

    @property
    def screened(self) -> bool:
        """Whether learning rates were dropped before all their tuning runs were trained."""
        return "screening" in self.plan

    @property
    def cases(self) -> list[tuple[str, str]]:
        """(environment, agent) of each case, in the order of the plan."""
        return [(case["environment"], case["agent"]) for case in self.plan["cases"]]

    @property
    def labels(self) -> list[str]:
        """The arms, in the order of the plan."""
        return list(self.plan["arms"])

    def scale(self, environment: str) -> dict[str, float]:
        """``random_return`` (declared, or else measured), ``reference_return`` and ``threshold``."""
        scale = dict(self.plan["environments"][environment])
        if scale["random_return"] is None:
            rows = self.tables["baselines"]
            rows = rows[(rows["environment"] == environment) & (rows["policy"] == "random")]
            scale["random_return"] = float(rows["return_mean"].iloc[0])
        return scale

    def of(self, table: str, case: tuple[str, str]) -> pd.DataFrame:
        """Return the rows of a case."""
        frame = self.tables[table]
        environment, agent = case
        return frame[(frame["environment"] == environment) & (frame["agent"] == agent)]


def make_table(name: str, rows: Iterable[Mapping[str, Any]], schema: Schema | None = None) -> pd.DataFrame:
    """Build a table with the columns of its schema, by default the schema of track "lr only".

    Raises:
        PgkitError: see :func:`check_table`.
    """
    rows = list(rows)
    schema = schema or SCHEMAS[name]
    table = pd.DataFrame(rows, columns=None if rows else list(schema.all))
    check_table(name, table, schema)
    return table[list(schema.all)]


def check_tables(tables: Mapping[str, pd.DataFrame], wanted: Mapping[str, Schema] = SCHEMAS) -> None:
    """Check that no table is missing, that each has the columns of its schema, and that keys are unique.

    Raises:
        PgkitError: the first mistake.
    """
    for name, schema in wanted.items():
        if name not in tables:
            raise PgkitError(f"table {name!r} is missing")
        check_table(name, tables[name], schema)


def check_table(name: str, table: pd.DataFrame, schema: Schema) -> None:
    """Check one table; the order of columns is free.

    Raises:
        PgkitError: a column is missing or unknown, or a key comes twice.
    """
    expected = set(schema.all)
    present = set(table.columns)
    for words, columns in (("lacks the columns", expected - present), ("has unknown columns", present - expected)):
        if columns:
            raise PgkitError(f"table {name!r} {words} {', '.join(sorted(map(str, columns)))}")
    keys = list(schema.keys)
    twice = table.duplicated(keys)
    if twice.any():
        raise PgkitError(f"table {name!r} has this row twice: {format_value(table.loc[twice, keys].iloc[0].to_dict())}")
