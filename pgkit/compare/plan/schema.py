"""What a comparison's TOML file may say, and what the tiers stand for."""

from itertools import pairwise
from typing import Any, Literal, NamedTuple

from pydantic import Field, field_validator
from pydantic_core.core_schema import ValidationInfo

from pgkit.compare.plan.search_space import MOST_SETTINGS, Range
from pgkit.config.schema import Model, Name, check_seeds
from pgkit.errors import PgkitError, show


class Tier(NamedTuple):
    """How much is run.

    Attributes:
        rates: the common grid of learning rates, half-decades.
        tuning: how many tuning seeds.
        evaluation: how many evaluation seeds.
        neighbours: how many of those for the settings beside the selected one.
        settings: how many quasi-random settings each arm gets where all of its hyperparameters are tuned.
    """

    rates: tuple[float, ...]
    tuning: int
    evaluation: int
    neighbours: int
    settings: int


def half_decades(low: int, high: int) -> tuple[float, ...]:
    """10^(low / 2) ... 10^(high / 2), three significant digits."""
    return tuple(float(f"{10 ** (exponent / 2):.3g}") for exponent in range(low, high + 1))


TIERS = {
    "quick": Tier(half_decades(-6, 0), 3, 10, 0, 16),
    "standard": Tier(half_decades(-10, 0), 5, 20, 5, 32),
    "publication": Tier(half_decades(-10, 0), 10, 50, 10, 64),
}


class EnvironmentScore(Model):
    """``[environments.<id>]``: the ends of the scale of scores, and settings of training there."""

    reference_return: float
    """The return that scores 1."""
    random_return: float | None = None
    """The return that scores 0; None: measured, the random policy's."""
    threshold: float
    """The return that counts as solved."""
    train: dict[str, Any] = Field(default={})
    """Training settings of every agent, as in a training configuration."""
    agents: dict[str, dict[str, Any]] = Field(default={})
    """Training settings by agent."""


class ComparisonConfig(Model):
    """The keys that only a comparison has; all others are those of a training configuration, equal for all runs."""

    name: Name
    question: str = Field(min_length=1)
    tier: Literal["quick", "standard", "publication"] = "quick"
    track: Literal["lr only", "all tuned"] = "lr only"
    """What is tuned: the learning rate on a common grid, all else at its defaults; or all hyperparameters of an arm."""
    settings: int | None = Field(default=None, ge=2, le=MOST_SETTINGS)
    """Of track "all tuned": quasi-random settings of each arm."""
    spaces: dict[str, dict[str, Range]] = Field(default={})
    """Of track "all tuned": ranges by arm and hyperparameter, in place of the default ones."""
    agents: tuple[str, ...] = Field(min_length=1, strict=False)
    optimizers: tuple[str | dict[str, Any], ...] = Field(min_length=1, strict=False)
    """Names, or tables with ``name``, hyperparameters other than ``lr``, and a ``label`` if a name comes twice."""
    environments: dict[str, EnvironmentScore] = Field(min_length=1)
    optimizer: dict[str, Any] = Field(default={})
    """What all arms have around them: clipping, schedules, the critic's optimizer."""
    learning_rates: tuple[float, ...] | None = Field(default=None, strict=False)
    tuning_seeds: int | tuple[int, ...] | None = None
    evaluation_seeds: int | tuple[int, ...] | None = None
    rope: float = Field(default=0.05, ge=0)
    """Differences of mean scores below this are of no practical interest."""
    paired: bool = False
    """Compare arms seed by seed: they share initial weights and environment streams."""
    failure_below: float = Field(default=0.1, ge=0)
    """A run whose final score is lower has failed."""

    @field_validator("settings", "spaces")
    @classmethod
    def _of_all_tuned(cls, value: Any, info: ValidationInfo) -> Any:
        if value and info.data.get("track") == "lr only":
            raise PgkitError(f'{info.field_name} has a meaning with track = "all tuned" only')
        return value

    @field_validator("learning_rates")
    @classmethod
    def _learning_rates(cls, rates: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if rates is not None and not (rates and rates[0] > 0 and all(a < b for a, b in pairwise(rates))):
            raise PgkitError(f"learning_rates must be at least one number > 0, ascending, got {show(list(rates))}")
        return rates

    @field_validator("tuning_seeds", "evaluation_seeds", mode="before")
    @classmethod
    def _seeds(cls, value: Any, info: ValidationInfo) -> int | tuple[int, ...] | None:
        return check_seeds(str(info.field_name), value)
