"""Check hyperparameters number by number; an error is one line that names the value, its member and the range."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from torch import Tensor

from pgkit.errors import PgkitError, suggest
from pgkit.optim.base import Hyperparameter, Schedule

H = TypeVar("H", bound=Hyperparameter)


class PerMember(list[Any]):
    """A list with one value per member; a plain list may be one value (``betas``)."""


def check(
    name: str,
    value: H,
    *,
    above: float | None = None,
    least: float | None = None,
    below: float | None = None,
    most: float | None = None,
) -> H:
    """Return ``value`` unchanged if each of its numbers is finite and in range.

    Args:
        name: for the message.
        value: a number, one per member, or a schedule, whose start is checked, and whose end, which may lie on a bound.
        above: exclusive lower bound.
        least: inclusive lower bound.
        below: exclusive upper bound.
        most: inclusive upper bound.

    Raises:
        PgkitError: names the first wrong number, and its member if there are several.
    """
    if isinstance(value, Schedule):
        check(name, value.start, above=above, least=least, below=below, most=most)
        for key in value.settings.keys() & {"end", "least"}:
            check(f"{key} of the schedule of {name}", value.settings[key], least=least if above is None else above)
        for key in value.settings.keys() & {"end", "most"}:
            check(f"{key} of the schedule of {name}", value.settings[key], below=below, most=most)
        return value
    numbers = numbers_of(name, value)
    for index, number in enumerate(numbers):
        inside = (
            math.isfinite(number)
            and (above is None or number > above)
            and (least is None or number >= least)
            and (below is None or number < below)
            and (most is None or number <= most)
        )
        if not inside:
            where = f" of member {index}" if len(numbers) > 1 else ""
            raise PgkitError(f"{name}{where} is {number:g}; it must be {_range(above, least, below, most)}")
    return value


def numbers_of(name: str, value: Any) -> list[float]:
    """List the numbers in a number, a sequence or a tensor ``(P,)``.

    Raises:
        PgkitError: something in it is not a number.
    """
    if isinstance(value, Tensor):
        if value.dim() > 1:
            raise PgkitError(f"{name} has shape {tuple(value.shape)}; it must be a number, or one per member (P,)")
        return [float(number) for number in value.reshape(-1).tolist()]
    numbers = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise PgkitError(f"{name} is {value!r}; it must be a number, or one per member")
    return [float(number) for number in numbers]


def count(name: str, value: Any) -> int:
    """Return the whole number, at least 1, that all members have.

    Raises:
        PgkitError: it is no such number, or members have different ones.
    """
    numbers = set(numbers_of(name, check(name, value, least=1.0)))
    if len(numbers) != 1 or not min(numbers).is_integer():
        raise PgkitError(f"{name} is {value!r}; it must be one whole number for all members")
    return int(numbers.pop())


def is_zero(value: Hyperparameter) -> bool:
    """Whether a hyperparameter is 0 for all members, and has no schedule."""
    return not isinstance(value, Schedule) and not any(numbers_of("value", value))


def flag(name: str, value: Any) -> bool:
    """Return ``value`` if it is a bool, else raise a PgkitError."""
    if not isinstance(value, bool):
        raise PgkitError(f"{name} is {value!r}; it must be true or false")
    return value


def is_none(value: Any, default: Any) -> bool:
    """Whether a value is the word for None, for which TOML has none, where None is the default.

    >>> is_none("none", None), is_none("None", None), is_none("none", "value"), is_none("rollout", None)
    (True, True, False, False)
    """
    return default is None and isinstance(value, str) and value in ("none", "None")


def check_keys(where: str, keys: Iterable[str], allowed: Iterable[str]) -> None:
    """Raise a PgkitError for the first key that is not allowed, naming those that are."""
    allowed = list(allowed)
    for key in keys:
        if key not in allowed:
            names = ", ".join(allowed) or "none"
            raise PgkitError(f"{where}: unknown key {key!r}{suggest(key, allowed)}; allowed: {names}")


def _range(above: float | None, least: float | None, below: float | None, most: float | None) -> str:
    bounds = ((above, "above"), (least, "at least"), (below, "below"), (most, "at most"))
    return " and ".join(f"{word} {bound:g}" for bound, word in bounds if bound is not None) or "finite"
