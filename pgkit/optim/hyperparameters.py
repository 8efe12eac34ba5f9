"""Checking of hyperparameters, element by element, with one clear line for what is wrong."""

from collections.abc import Sequence
from numbers import Real
from typing import TypeVar

import torch
from torch import Tensor

from pgkit.optim.core import Hyper, Schedule
from pgkit.types import PgkitError

H = TypeVar("H", bound=Hyper)


def check(
    name: str,
    value: H,
    *,
    above: float | None = None,
    least: float | None = None,
    below: float | None = None,
    most: float | None = None,
) -> H:
    """``value`` as it is, if each of its numbers is in range.

    Args:
        name: told in the error.
        value: a number, a sequence, a tensor ``(P,)``, or a schedule (its ``start`` is checked).
        above, below: bounds that are not allowed themselves.
        least, most: bounds that are.

    Raises:
        PgkitError: names the first wrong number, and its member if there are several.
    """
    start = value.start if isinstance(value, Schedule) else value
    for index, number in enumerate(numbers_of(name, start)):
        inside = (
            (above is None or number > above)
            and (least is None or number >= least)
            and (below is None or number < below)
            and (most is None or number <= most)
        )
        if not inside:
            where = "" if isinstance(start, Real) else f" of member {index}"
            raise PgkitError(f"{name}{where} is {number:g}; it must be {_range(above, least, below, most)}")
    return value


def numbers_of(name: str, value: float | Sequence[float] | Tensor) -> list[float]:
    """The numbers in ``value``; anything that is none is an error."""
    if isinstance(value, Tensor):
        if value.dim() > 1:
            raise PgkitError(f"{name} has shape {tuple(value.shape)}; it must be a number, or one per member (P,)")
        return [float(number) for number in torch.atleast_1d(value).tolist()]
    numbers = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, Real):
            raise PgkitError(f"{name} is {value!r}; it must be a number, or one per member")
    return [float(number) for number in numbers]


def _range(above: float | None, least: float | None, below: float | None, most: float | None) -> str:
    bounds = ((above, "above"), (least, "at least"), (below, "below"), (most, "at most"))
    return " and ".join(f"{word} {bound:g}" for bound, word in bounds if bound is not None)


def is_zero(value: Hyper) -> bool:
    """Whether a hyperparameter is 0 for all members and stays so."""
    return not isinstance(value, Schedule) and not any(numbers_of("value", value))
