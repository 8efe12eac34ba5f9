"""What a search tries: a configuration, what varies in it, and the seeds of trials and of the report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from pgkit.config.load import flatten, override_config, read_training_table, to_table
from pgkit.config.overrides import Overrides, ParsedOverrides, lookup, parse_overrides
from pgkit.config.schema import TrainConfig
from pgkit.errors import PgkitError
from pgkit.optim.from_config import describe
from pgkit.training.arguments import why_inexact
from pgkit.training.available import check_available
from pgkit.tune.space import Choice, Range, Space, as_data, key_path, parse_space

REPORT_SEEDS_FROM = 1000
"""The first seed of the report; those of trials are 0, 1, 2, ..., as in comparisons."""

DRAWS = 20
"""Combinations of other values that are tried before a value counts as wrong."""

Params = Mapping[str, Any]
"""The value of each key of a space, as a study has it."""


@dataclass(frozen=True)
class Plan:
    """A search that was checked.

    Attributes:
        settings: the configuration's table, overrides not applied.
        overrides: of the user.
        source: what messages call the configuration.
        base: the configuration as it stands.
        space: what varies.
        tuning_seeds: how many seeds each trial trains on.
        report_seeds: how many fresh seeds the report trains on.
        stretches: into how many parts training is cut; trials can be pruned between them.
    """

    settings: Mapping[str, Any]
    overrides: ParsedOverrides
    source: str
    base: TrainConfig
    space: Space
    tuning_seeds: int
    report_seeds: int
    stretches: int

    @property
    def seeds(self) -> tuple[range, range]:
        """The seeds of trials and those of the report, which have none in common."""
        return range(self.tuning_seeds), range(REPORT_SEEDS_FROM, REPORT_SEEDS_FROM + self.report_seeds)

    def config(self, params: Params) -> TrainConfig:
        """Return the configuration of a trial; without parameters, the one as it stands.

        Raises:
            PgkitError: these values do not go together.
        """
        values = {key: self._value(key, label) for key, label in params.items()}
        varied = [parse_overrides({key: value})[0] for key, value in values.items()]
        return override_config(self.settings, [*self.overrides, *varied], self.source)[0]

    def as_data(self) -> dict[str, Any]:
        """Return what makes two searches the same, as plain data."""
        return {
            "config": flatten(to_table(self.base)),
            "space": as_data(self.space),
            "tuning_seeds": self.tuning_seeds,
            "stretches": self.stretches,
        }

    def as_it_stands(self) -> dict[str, Any] | None:
        """Return the parameters of the configuration as it stands; None if they do not lie in the space."""
        params: dict[str, Any] = {}
        for key, dimension in self.space.items():
            value = _stated(self.base, key)
            if not _holds(dimension, value):
                return None
            params[key] = dimension.label(value) if isinstance(dimension, Choice) else value
        return params

    def _value(self, key: str, label: Any) -> Any:
        dimension = self.space[key]
        if isinstance(dimension, Choice):
            return next(value for value in dimension.values if dimension.label(value) == label)
        return label


def make_plan(
    name_or_path: str | Path,
    overrides: Overrides,
    space: Sequence[str],
    tuning_seeds: int,
    report_seeds: int,
    stretches: int,
) -> Plan:
    """Check a search; arguments as of :func:`pgkit.tune.search`.

    Raises:
        PgkitError: a mistake in the configuration, the space or the numbers, or something is missing on this machine.
    """
    numbers = {"tuning seeds": tuning_seeds, "report seeds": report_seeds, "stretches": stretches}
    for name, number in numbers.items():
        if type(number) is not int or number < 1:
            raise PgkitError(f"{name} must be a whole number from 1, got {number!r}")
    if tuning_seeds > REPORT_SEEDS_FROM:
        raise PgkitError(f"tuning seeds: at most {REPORT_SEEDS_FROM}, because the report's begin there")
    parsed = parse_overrides(overrides)
    if any(path in (("seed",), ("seeds",)) for path, _ in parsed):
        raise PgkitError("seeds of a search are counts: --tuning-seeds for trials, --report-seeds for the report")
    settings = read_training_table(name_or_path)
    base = override_config(settings, parsed, str(name_or_path))[0]
    _check_base(base)
    cuts = 1 if why_inexact(base) else min(stretches, base.evaluation.points)
    plan = Plan(settings, parsed, str(name_or_path), base, parse_space(space), tuning_seeds, report_seeds, cuts)
    _check_values(plan)
    return plan


def _check_base(base: TrainConfig) -> None:
    if base.evaluation.points < 1:
        raise PgkitError("evaluation.points = 0: the score of a trial is the mean of its evaluations while training")
    if base.callbacks:
        raise PgkitError("trials pause, so no callbacks can watch them: callbacks=[] leaves them out")
    check_available(base)


def _check_values(plan: Plan) -> None:
    """Check that each end of each range, and each choice, is possible in some combination.

    Raises:
        PgkitError: one is not.
    """
    rng = Random(0)
    for key, dimension in plan.space.items():
        for value in dimension.examples():
            label = dimension.label(value) if isinstance(dimension, Choice) else value
            try:
                plan.config({key: label})
            except PgkitError as error:
                if not any(_is_possible(plan, {**_draw(plan.space, rng), key: label}) for _ in range(DRAWS)):
                    real = isinstance(dimension, Range) and "whole number" in str(error)
                    hint = f"; {key}=low:high:int draws whole numbers" if real else ""
                    raise PgkitError(f"--space {key}: {error}{hint}") from None


def _draw(space: Space, rng: Random) -> dict[str, Any]:
    drawn = {key: (dimension, dimension.draw(rng)) for key, dimension in space.items()}
    return {key: each.label(value) if isinstance(each, Choice) else value for key, (each, value) in drawn.items()}


def _is_possible(plan: Plan, params: Params) -> bool:
    try:
        plan.config(params)
    except PgkitError:
        return False
    return True


def _stated(base: TrainConfig, key: str) -> Any:
    """Return the value of a key, with the defaults of the optimizer; ``...`` if there is none."""
    path = key_path(key)
    value = lookup(to_table(base), path)
    if value is ... and path[0] == "optimizer":
        groups = describe(base.optimizer)
        if len(path) == 2:
            return groups["main"].get(path[1], ...) if "main" in groups else ...
        if len(path) == 3 and path[1] == "critic":
            return groups.get("critic", {}).get(path[2], ...)
    return list(value) if isinstance(value, tuple) else value


def _holds(dimension: Range | Choice, value: Any) -> bool:
    if isinstance(dimension, Choice):
        return value in dimension.values
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and dimension.low <= value <= dimension.high and (not dimension.whole or value == int(value))
