"""Search spaces of the track "all tuned": the hyperparameters of each arm, their ranges, and the points to try.

The search space can decide a comparison more than anything else (Choi et al. 2019, arXiv 1910.05446), so the ranges are
declared, are part of the plan's hash, and stand in the report. The default ranges, by hyperparameter:

- decay rates of averages of gradients (momentum, beta1): 1 - x log-uniform, from no average to one over a thousand
  updates;
- decay rates of averages of squares (alpha, rho, beta2, beta): 1 - x log-uniform, averages over 10 to 10,000 updates;
- eps: log-uniform, from negligible to so large that an adaptive method becomes a non-adaptive one;
- a decoupled weight decay: log-uniform around AdamW's 1e-2.

A hyperparameter that is off by default (0) stays off, because the optimizer would be another one with it. What an arm
states in ``optimizers`` is held.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Literal

import numpy as np
from pydantic import model_validator

from pgkit.config.tables import Model
from pgkit.errors import PgkitError, format_value, unknown_name

MOST_SETTINGS = 4096
MOST_DIMENSIONS = 16
"""Dimensions of the quasi-random points; every arm takes the first ones, so other arms change none of its numbers."""

POINTS_SEED = 40_000
DIGITS = 4
"""Significant digits of the numbers of a setting (of 1 - x, if that is what is uniform)."""

Space = Mapping[str, "Range"]
Setting = Mapping[str, float]


class Range(Model):
    """The range of a hyperparameter x: ``{ low = 0.9, high = 0.9999, scale = "1-x log" }``.

    Points are uniform in log x, in log(1 - x) for numbers just below 1, or in x itself.
    """

    low: float
    """Lower end."""
    high: float
    """Upper end."""
    scale: Literal["log", "1-x log", "linear"] = "log"
    """Uniform in log x, in log(1 - x), or in x."""

    @model_validator(mode="after")
    def _ends(self) -> "Range":
        if not self.low < self.high:
            raise PgkitError(
                f"a range's low must be below its high, got {format_value(self.low)} and {format_value(self.high)}"
            )
        if self.scale == "log" and self.low <= 0:
            raise PgkitError(f'a range with scale "log" must have low > 0, got {format_value(self.low)}')
        if self.scale == "1-x log" and self.high >= 1:
            raise PgkitError(f'a range with scale "1-x log" must have high < 1, got {format_value(self.high)}')
        return self

    def at(self, place: float) -> float:
        """Return the value at a place between 0 and 1."""
        if self.scale == "linear":
            return _rounded(self.low + place * (self.high - self.low))
        if self.scale == "log":
            return _rounded(self.low * (self.high / self.low) ** place)
        small = 1 - self.high
        large = 1 - self.low
        return round(1 - _rounded(large * (small / large) ** place), 12)

    def place(self, value: float) -> float:
        """Return the place of a value between 0 and 1, the inverse of :meth:`at`."""
        if self.scale == "linear":
            return (value - self.low) / (self.high - self.low)
        if self.scale == "log":
            return float(np.log(value / self.low) / np.log(self.high / self.low))
        return float(np.log((1 - value) / (1 - self.low)) / np.log((1 - self.high) / (1 - self.low)))

    def __str__(self) -> str:
        how = {"log": "log-uniform", "1-x log": "1 - x log-uniform", "linear": "uniform"}[self.scale]
        return f"{self.low:g} to {self.high:g} ({how})"


_AVERAGE = Range(low=0.0, high=0.999, scale="1-x log")
_SQUARES = Range(low=0.9, high=0.9999, scale="1-x log")

RANGES: Mapping[str, Range] = {
    "momentum": _AVERAGE,
    "beta1": _AVERAGE,
    "alpha": _SQUARES,
    "rho": _SQUARES,
    "beta2": _SQUARES,
    "beta": _SQUARES,
    "eps": Range(low=1e-10, high=1.0),
    "weight_decay": Range(low=1e-4, high=1e-1),
}
"""The default ranges; that of the learning rate spans the grid of the track "lr only"."""


def space_of(
    label: str, defaults: Mapping[str, Any], stated: set[str], declared: Mapping[str, Range], rates: tuple[float, ...]
) -> dict[str, Range]:
    """Return the search space of an arm: the learning rate first, the rest in the order of its optimizer.

    Args:
        label: of the arm, for error messages.
        defaults: the hyperparameters of its optimizer with their defaults.
        stated: the hyperparameters that the arm fixes itself.
        declared: ranges that the comparison declares for it.
        rates: the grid of learning rates, whose ends are the default range of the learning rate.

    Raises:
        PgkitError: a range for a hyperparameter that the optimizer lacks, that is fixed, or that is not a number.
    """
    for key in declared:
        if key not in defaults:
            raise PgkitError(f"spaces.{label}: {unknown_name('hyperparameter', key, defaults)}")
        if key in stated:
            raise PgkitError(f"spaces.{label}.{key}: optimizers states a value of it: give a value or a range")
        if isinstance(defaults[key], bool) or not isinstance(defaults[key], int | float | None):
            raise PgkitError(f"spaces.{label}.{key}: its default is not one number but {format_value(defaults[key])}")
    if "lr" not in declared and len(rates) < 2:
        raise PgkitError(f"learning_rates = {format_value(list(rates))} span no range of learning rates")
    ranges = {"lr": declared["lr"] if "lr" in declared else Range(low=rates[0], high=rates[-1])}
    for key, default in defaults.items():
        if key in declared or (key in RANGES and default and key not in stated):
            ranges.setdefault(key, declared.get(key) or RANGES[key])
    if len(ranges) > MOST_DIMENSIONS:
        raise PgkitError(f"spaces.{label}: at most {MOST_DIMENSIONS} hyperparameters can be tuned, not {len(ranges)}")
    return ranges


def quasi_random(of: Space, count: int) -> tuple[dict[str, float], ...]:
    """Return ``count`` settings of a space, at the same quasi-random points of the unit cube for every arm."""
    return tuple(
        {name: of[name].at(place) for name, place in zip(of, point, strict=False)}
        for point in _points()[:count].tolist()
    )


def corners(of: Space) -> Iterator[dict[str, float]]:
    """Yield the two settings with every hyperparameter at the low and at the high end of its range."""
    yield {name: each.low for name, each in of.items()}
    yield {name: each.high for name, each in of.items()}


@cache
def _points() -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return a scrambled Sobol sequence ``(MOST_SETTINGS, MOST_DIMENSIONS)``; K settings take its first K points."""
    from scipy.stats import qmc

    return qmc.Sobol(MOST_DIMENSIONS, scramble=True, rng=POINTS_SEED).random_base2(MOST_SETTINGS.bit_length() - 1)


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
