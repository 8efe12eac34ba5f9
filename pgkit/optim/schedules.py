"""Schedules of hyperparameters over ``progress``, the share of the training budget that is used."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from pgkit.optim.core import Number, Schedule, Signals, Vectors
from pgkit.types import PgkitError


def constant(start: Number) -> Schedule:
    """start."""
    return Schedule(start, {}, lambda current, numbers, signals: numbers["start"])


def linear(start: Number, end: Number = 0.0) -> Schedule:
    """start + (end - start) progress."""

    def rule(current: Tensor, numbers: Vectors, signals: Signals) -> Tensor:
        return numbers["start"] + (numbers["end"] - numbers["start"]) * signal("progress", signals, current)

    return Schedule(start, {"end": end}, rule)


KINDS: Mapping[str, Callable[..., Schedule]] = {"constant": constant, "linear": linear}


def full_settings(key: str, settings: str | Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a schedule as in a config, ``"linear"`` or ``{kind = "linear", end = ...}``, with all defaults."""
    given = {"kind": settings} if isinstance(settings, str) else dict(settings)
    kind = str(given.get("kind"))
    if kind not in KINDS:
        raise PgkitError(f"schedule of {key!r}: kind is {kind!r}; one of {', '.join(KINDS)}")
    parameters = inspect.signature(KINDS[kind]).parameters
    defaults = {name: value.default for name, value in parameters.items() if name != "start"}
    unknown = given.keys() - defaults.keys() - {"kind"}
    if unknown:
        raise PgkitError(
            f"schedule of {key!r}: unknown key {min(unknown)!r}; {kind} has {', '.join(defaults) or 'none'}"
        )
    return {"kind": kind, **defaults, **given}


def schedule_of(key: str, start: Any, settings: str | Mapping[str, Any]) -> Schedule:
    """The schedule of hyperparameter ``key`` that begins at ``start``."""
    full = full_settings(key, settings)
    return KINDS[full.pop("kind")](start, **full)


def signal(name: str, signals: Signals, like: Tensor) -> Tensor:
    """The signal ``(P,)`` as float64.

    Raises:
        PgkitError: the training loop did not send it, or its shape is wrong.
    """
    if name not in signals:
        raise PgkitError(f"the schedule needs the signal {name!r}: update(grads, state, params, {name}=...)")
    value = signals[name]
    if not isinstance(value, Tensor) or value.shape != like.shape:
        raise PgkitError(f"the signal {name!r} must be a tensor of shape {tuple(like.shape)}, got {value!r}")
    return value.to(like)
