"""The keys of a comparison's TOML file, and the tiers."""

from itertools import pairwise
from typing import Any, Literal, NamedTuple

from pydantic import Field, field_validator
from pydantic_core.core_schema import ValidationInfo

from pgkit.compare.plan.search_space import MOST_SETTINGS, Range
from pgkit.config.aliases import agent_name
from pgkit.config.schema import check_seeds
from pgkit.config.tables import Model, Name
from pgkit.errors import PgkitError, format_value

EXTENSIONS = 2
"""Times that the grid may be extended at each end, by two points each."""


class Tier(NamedTuple):
    """The size of a comparison.

    Attributes:
        rates: learning rates of the common grid, half a decade apart.
        tuning: number of tuning seeds.
        evaluation: number of evaluation seeds.
        neighbours: number of seeds for the settings beside the selected one.
        settings: number of quasi-random settings of each arm, with track "all tuned".
    """

    rates: tuple[float, ...]
    tuning: int
    evaluation: int
    neighbours: int
    settings: int


def half_decades(low: int, high: int) -> tuple[float, ...]:
    """Return 10^(low / 2) ... 10^(high / 2), rounded to three significant digits."""
    return tuple(float(f"{10 ** (exponent / 2):.3g}") for exponent in range(low, high + 1))


TIERS = {
    "quick": Tier(half_decades(-6, 0), 3, 10, 0, 16),
    "standard": Tier(half_decades(-10, 0), 5, 20, 5, 32),
    "publication": Tier(half_decades(-10, 0), 10, 50, 10, 64),
}


class EnvironmentScore(Model):
    """``[environments.<id>]``: the scale of scores of an environment, and its training settings."""

    reference_return: float
    """Return that scores 1."""
    random_return: float | None = None
    """Return that scores 0; default: the measured return of the random policy."""
    threshold: float
    """Return that counts as solved."""
    train: dict[str, Any] = Field(default={})
    """Training settings in this environment, for every agent."""
    agents: dict[str, dict[str, Any]] = Field(default={})
    """Training settings in this environment, by agent."""


class ComparisonConfig(Model):
    """The keys that only a comparison has; keys of a training configuration beside them hold for all runs."""

    name: Name
    """Name of the comparison, which is written to ``comparisons/<name>``; default: the name of the file."""
    question: str = Field(min_length=1)
    """The question that the comparison answers, printed at the top of the report."""
    tier: Literal["quick", "standard", "publication"] = "quick"
    """Size: ``quick`` shows where to look next, ``standard`` and ``publication`` support claims."""
    track: Literal["lr only", "all tuned"] = "lr only"
    """What is tuned: the learning rate on a common grid, or all hyperparameters of each optimizer."""
    settings: int | None = Field(default=None, ge=2, le=MOST_SETTINGS)
    """Number of quasi-random settings of each optimizer; only with track "all tuned"."""
    spaces: dict[str, dict[str, Range]] = Field(default={})
    """Ranges by optimizer and hyperparameter in place of the default ones; only with track "all tuned"."""
    agents: tuple[str, ...] = Field(min_length=1, strict=False)
    """Names of the agents."""
    optimizers: tuple[str | dict[str, Any], ...] = Field(min_length=1, strict=False)
    """Names, or tables of ``name``, hyperparameters other than ``lr``, and a ``label`` where a name comes twice."""
    environments: dict[str, EnvironmentScore] = Field(min_length=1)
    """A table for each environment, see below."""
    optimizer: dict[str, Any] = Field(default={})
    """Settings around every optimizer: clipping, schedules, the optimizer of the critic."""
    learning_rates: tuple[float, ...] | None = Field(default=None, strict=False)
    """Learning rates of the common grid, ascending; default: that of the tier."""
    extensions: int = Field(default=EXTENSIONS, ge=0, le=EXTENSIONS)
    """How often the grid may be extended by two points at an end where a best rate lies; only with track "lr only"."""
    screen: Literal["off", "early"] = "off"
    """``early`` drops learning rates by successive halving; ``off`` trains the full grid. Only with track "lr only"."""
    tuning_seeds: int | tuple[int, ...] | None = None
    """Seeds that select settings, a count or a list; default: that of the tier."""
    evaluation_seeds: int | tuple[int, ...] | None = None
    """Fresh seeds that evaluate the selected settings, a count or a list; default: that of the tier."""
    rope: float = Field(default=0.05, ge=0)
    """Region of practical equivalence: smaller differences of mean scores do not matter."""
    paired: bool = False
    """Compare optimizers seed by seed, as they share initial weights and environment streams."""
    failure_below: float = Field(default=0.1, ge=0)
    """A run with a lower final score did not learn."""

    @field_validator("agents")
    @classmethod
    def _agents(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(agent_name, names))

    @field_validator("settings", "spaces")
    @classmethod
    def _of_all_tuned(cls, value: Any, info: ValidationInfo) -> Any:
        if value and info.data.get("track") == "lr only":
            raise PgkitError(f'{info.field_name} has no effect: it needs track = "all tuned"')
        return value

    @field_validator("extensions")
    @classmethod
    def _of_a_grid(cls, value: int, info: ValidationInfo) -> int:
        if value != EXTENSIONS and info.data.get("track") == "all tuned":
            raise PgkitError('extensions has no effect: it needs a grid of learning rates, track = "lr only"')
        return value

    @field_validator("screen")
    @classmethod
    def _on_a_grid(cls, value: str, info: ValidationInfo) -> str:
        if value == "early" and info.data.get("track") == "all tuned":
            raise PgkitError('screen = "early" needs a grid of learning rates: track = "lr only"')
        return value

    @field_validator("learning_rates")
    @classmethod
    def _learning_rates(cls, rates: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if rates is not None and not (rates and rates[0] > 0 and all(a < b for a, b in pairwise(rates))):
            raise PgkitError(
                f"learning_rates must be at least one number > 0, ascending, got {format_value(list(rates))}"
            )
        return rates

    @field_validator("tuning_seeds", "evaluation_seeds", mode="before")
    @classmethod
    def _seeds(cls, value: Any, info: ValidationInfo) -> int | tuple[int, ...] | None:
        return check_seeds(str(info.field_name), value)
