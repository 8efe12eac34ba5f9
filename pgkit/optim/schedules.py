"""Schedules: hyperparameters that follow training progress q (the used share of the budget), or the policy's KL.

Schedules over progress take ``warmup``, a share of the budget in which the value rises linearly from 0 to its start; q
then runs from 0 to 1 over the rest of the budget.

>>> import torch
>>> from pgkit.optim import diagnostics, make
>>> optimizer = make("sgd", lr=0.8, schedule={"lr": {"kind": "linear", "end": 0.4}})
>>> params = {"w": torch.zeros(1, 1)}
>>> progress = torch.tensor([0.5], dtype=torch.float64)
>>> _, state = optimizer.update({"w": torch.ones(1, 1)}, optimizer.init(params), params, progress=progress)
>>> round(diagnostics(state)["lr"].item(), 6)
0.6
"""

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from pgkit.errors import PgkitError, suggest
from pgkit.kernels.pointwise import deterministic_map
from pgkit.optim.base import ExtraArgs, MemberValues, Number, Schedule, extra_arg
from pgkit.optim.validation import check, check_keys


def constant(start: Number) -> Schedule:
    """start: no change."""
    return Schedule(start, {}, lambda current, n, extra_args: n["start"])


def linear(start: Number, end: Number = 0.0, warmup: Number = 0.0) -> Schedule:
    """start + (end - start) q."""
    return _over_progress(start, {"end": end}, warmup, lambda n, q: n["start"] + (n["end"] - n["start"]) * q)


def cosine(start: Number, end: Number = 0.0, warmup: Number = 0.0) -> Schedule:
    """end + (start - end) (1 + cos(pi q)) / 2."""

    def value(n: MemberValues, q: Tensor) -> Tensor:
        return n["end"] + (n["start"] - n["end"]) * (1 + deterministic_map(torch.cos, math.pi * q)) / 2

    return _over_progress(start, {"end": end}, warmup, value)


def exponential(start: Number, end: Number, warmup: Number = 0.0) -> Schedule:
    """start (end / start)^q."""
    check("end of an exponential schedule", end, above=0.0)
    check("start of an exponential schedule", start, above=0.0)

    def value(n: MemberValues, q: Tensor) -> Tensor:
        return n["start"] * deterministic_map(torch.exp, q * deterministic_map(torch.log, n["end"] / n["start"]))

    return _over_progress(start, {"end": end}, warmup, value)


def step(start: Number, factor: Number = 0.1, every: Number = 0.25, warmup: Number = 0.0) -> Schedule:
    """start factor^floor(q / every)."""
    check("factor of a step schedule", factor, above=0.0)
    check("every of a step schedule", every, above=0.0)

    def value(n: MemberValues, q: Tensor) -> Tensor:
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
    """Divide by ``factor`` where the last update's KL was above 2 target, multiply where it was below target / 2.

    The value stays within ``least`` and ``most``, and as it is while the KL is unknown (NaN).

    Source: RSL-RL and rl_games, after the adaptive penalty of Schulman et al. 2017 (arXiv 1707.06347).
    """
    check("target of a kl schedule", target, above=0.0)
    check("factor of a kl schedule", factor, above=1.0)
    check("least of a kl schedule", least, above=0.0)
    check("most of a kl schedule", most, above=0.0)

    def rule(current: Tensor, n: MemberValues, extra_args: ExtraArgs) -> Tensor:
        last_kl = extra_arg("kl", extra_args, current)
        reduced = torch.where(last_kl > 2 * n["target"], current / n["factor"], current)
        value = torch.where(last_kl < n["target"] / 2, current * n["factor"], reduced)
        return torch.minimum(torch.maximum(value, n["least"]), n["most"])

    return Schedule(
        start, {"target": target, "factor": factor, "least": least, "most": most}, rule, requires=frozenset({"kl"})
    )


def _over_progress(
    start: Number, settings: Mapping[str, Number], warmup: Number, value: Callable[[MemberValues, Tensor], Tensor]
) -> Schedule:
    check("warmup of a schedule", warmup, least=0.0, below=1.0)

    def rule(current: Tensor, n: MemberValues, extra_args: ExtraArgs) -> Tensor:
        progress = extra_arg("progress", extra_args, current)
        share = torch.where(progress < n["warmup"], progress / n["warmup"], 1.0)
        return share * value(n, (progress - n["warmup"]).clamp(min=0.0) / (1 - n["warmup"]))

    return Schedule(start, {**settings, "warmup": warmup}, rule, requires=frozenset({"progress"}))


SCHEDULES: Mapping[str, Callable[..., Schedule]] = {
    schedule.__name__: schedule for schedule in (constant, linear, cosine, exponential, step, warmup, kl)
}
"""Schedules by the name that a config uses as ``kind``."""


def full_settings(key: str, settings: str | Mapping[str, Any]) -> dict[str, Any]:
    """Fill in the defaults of a schedule as in a config, ``"linear"`` or ``{kind = "linear", end = ...}``.

    Args:
        key: the hyperparameter, for messages.
        settings: the name of a schedule, or a table with ``kind`` and its settings.

    Raises:
        PgkitError: unknown schedule or key, or a missing one.
    """
    where = f"schedule of {key!r}"
    if not isinstance(settings, str | Mapping):
        raise PgkitError(f"{where} is {settings!r}; it must be the name of a schedule, or a table with 'kind'")
    stated = {} if isinstance(settings, str) else dict(settings)
    name = settings if isinstance(settings, str) else str(stated.pop("kind", None))
    if name not in SCHEDULES:
        raise PgkitError(f"{where}: unknown kind {name!r}{suggest(name, SCHEDULES)}; one of {', '.join(SCHEDULES)}")
    signature = inspect.signature(SCHEDULES[name])
    defaults = {parameter.name: parameter.default for parameter in signature.parameters.values()}
    del defaults["start"]
    check_keys(f"{where} ({name})", stated, defaults)
    full = {"kind": name, **defaults, **stated}
    missing = [option for option, value in full.items() if value is inspect.Parameter.empty]
    if missing:
        raise PgkitError(f"{where}: a schedule of kind {name!r} needs the key {missing[0]!r}")
    return full


def schedule_of(key: str, start: Any, settings: str | Mapping[str, Any]) -> Schedule:
    """Make the schedule of hyperparameter ``key`` that begins at ``start``, see :func:`full_settings`."""
    full = full_settings(key, settings)
    return SCHEDULES[full.pop("kind")](start, **full)
