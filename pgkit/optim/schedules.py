"""Schedules: hyperparameters that move with the progress q, the share of the training budget that is used, or the KL.

Those over progress take ``warmup``, a share of the budget: the value climbs from 0 to its start in it, and the rest of
the budget counts as the whole to the rule.
"""

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from pgkit.errors import PgkitError
from pgkit.kernels.pointwise import deterministic_map
from pgkit.optim.base import Number, Schedule, Signals, Vectors, signal
from pgkit.optim.validation import check, check_keys, suggest


def constant(start: Number) -> Schedule:
    """start."""
    return Schedule(start, {}, lambda current, n, signals: n["start"])


def linear(start: Number, end: Number = 0.0, warmup: Number = 0.0) -> Schedule:
    """start + (end - start) q."""
    return _over_progress(start, {"end": end}, warmup, lambda n, q: n["start"] + (n["end"] - n["start"]) * q)


def cosine(start: Number, end: Number = 0.0, warmup: Number = 0.0) -> Schedule:
    """end + (start - end) (1 + cos(pi q)) / 2."""

    def value(n: Vectors, q: Tensor) -> Tensor:
        return n["end"] + (n["start"] - n["end"]) * (1 + deterministic_map(torch.cos, math.pi * q)) / 2

    return _over_progress(start, {"end": end}, warmup, value)


def exponential(start: Number, end: Number, warmup: Number = 0.0) -> Schedule:
    """start (end / start)^q."""
    check("end of an exponential schedule", end, above=0.0)
    check("start of an exponential schedule", start, above=0.0)

    def value(n: Vectors, q: Tensor) -> Tensor:
        return n["start"] * deterministic_map(torch.exp, q * deterministic_map(torch.log, n["end"] / n["start"]))

    return _over_progress(start, {"end": end}, warmup, value)


def step(start: Number, factor: Number = 0.1, every: Number = 0.25, warmup: Number = 0.0) -> Schedule:
    """start factor^floor(q / every)."""
    check("factor of a step schedule", factor, above=0.0)
    check("every of a step schedule", every, above=0.0)

    def value(n: Vectors, q: Tensor) -> Tensor:
        return n["start"] * deterministic_map(
            torch.exp, (q / n["every"]).floor() * deterministic_map(torch.log, n["factor"])
        )

    return _over_progress(start, {"factor": factor, "every": every}, warmup, value)


def warmup(start: Number, warmup: Number = 0.1) -> Schedule:
    """start min(1, q / warmup)."""
    return _over_progress(start, {}, warmup, lambda n, q: n["start"])


def kl(
    start: Number, target: Number = 0.01, factor: Number = 1.5, least: Number = 1e-6, most: Number = 1.0
) -> Schedule:
    """Divided by ``factor`` where the last update's KL was above 2 target, multiplied where below target / 2.

    Within ``least`` and ``most``; unchanged while the KL is unknown (NaN). As in RSL-RL and rl_games, after the
    adaptive penalty of Schulman et al. 2017 (arXiv 1707.06347).
    """
    check("target of a kl schedule", target, above=0.0)
    check("factor of a kl schedule", factor, above=1.0)
    check("least of a kl schedule", least, above=0.0)
    check("most of a kl schedule", most, above=0.0)

    def rule(current: Tensor, n: Vectors, signals: Signals) -> Tensor:
        last = signal("kl", signals, current)
        slower = torch.where(last > 2 * n["target"], current / n["factor"], current)
        value = torch.where(last < n["target"] / 2, current * n["factor"], slower)
        return torch.minimum(torch.maximum(value, n["least"]), n["most"])

    return Schedule(
        start, {"target": target, "factor": factor, "least": least, "most": most}, rule, needs=frozenset({"kl"})
    )


def _over_progress(
    start: Number, settings: Mapping[str, Number], warmup: Number, value: Callable[[Vectors, Tensor], Tensor]
) -> Schedule:
    check("warmup of a schedule", warmup, least=0.0, below=1.0)

    def rule(current: Tensor, n: Vectors, signals: Signals) -> Tensor:
        progress = signal("progress", signals, current)
        begun = torch.where(progress < n["warmup"], progress / n["warmup"], 1.0)
        return begun * value(n, (progress - n["warmup"]).clamp(min=0.0) / (1 - n["warmup"]))

    return Schedule(start, {**settings, "warmup": warmup}, rule, needs=frozenset({"progress"}))


KINDS: Mapping[str, Callable[..., Schedule]] = {
    kind.__name__: kind for kind in (constant, linear, cosine, exponential, step, warmup, kl)
}
"""Schedules by the name that a config uses."""


def full_settings(key: str, settings: str | Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a schedule as in a config, ``"linear"`` or ``{kind = "linear", end = ...}``, with all defaults.

    Raises:
        PgkitError: unknown kind or key, or a missing one.
    """
    where = f"schedule of {key!r}"
    if not isinstance(settings, str | Mapping):
        raise PgkitError(f"{where} is {settings!r}; it must be the name of a kind, or a table with 'kind'")
    given = {"kind": settings} if isinstance(settings, str) else dict(settings)
    kind = str(given.pop("kind", None))
    if kind not in KINDS:
        raise PgkitError(f"{where}: unknown kind {kind!r}{suggest(kind, KINDS)}; one of {', '.join(KINDS)}")
    parameters = [parameter for name, parameter in inspect.signature(KINDS[kind]).parameters.items() if name != "start"]
    check_keys(f"{where} ({kind})", given, [parameter.name for parameter in parameters])
    full = {"kind": kind, **{parameter.name: parameter.default for parameter in parameters}, **given}
    missing = [name for name, value in full.items() if value is inspect.Parameter.empty]
    if missing:
        raise PgkitError(f"{where}: a schedule of kind {kind!r} needs the key {missing[0]!r}")
    return full


def schedule_of(key: str, start: Any, settings: str | Mapping[str, Any]) -> Schedule:
    """The schedule of hyperparameter ``key`` that begins at ``start``."""
    full = full_settings(key, settings)
    return KINDS[full.pop("kind")](start, **full)
