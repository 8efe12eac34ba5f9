"""Recipes by name: what there is, how to make one, how to add one's own."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pgkit.errors import PgkitError
from pgkit.optim import natural_gradient
from pgkit.optim import optimizers as named
from pgkit.optim import transforms as t
from pgkit.optim.base import Optimizer, Schedule
from pgkit.optim.chain import chain
from pgkit.optim.schedules import schedule_of
from pgkit.optim.torch_adapter import foreign_recipe
from pgkit.optim.validation import check_keys, flag, numbers_of, suggest


@dataclass(frozen=True)
class OptimizerSpec:
    """An entry of the registry.

    Attributes:
        name: what a config says.
        build: ``build(**hyperparameters) -> Optimizer``.
        formula: its docstring up to the source.
        source: where the formula comes from.
        defaults: every hyperparameter with its default.
    """

    name: str
    build: Callable[..., Optimizer]
    formula: str
    source: str
    defaults: Mapping[str, Any]


_REGISTRY: dict[str, OptimizerSpec] = {}


def register(name: str, build: Callable[..., Optimizer]) -> None:
    """Make ``build(lr=..., ...) -> Optimizer`` known as ``name``.

    Its keyword arguments, each with a default, are its hyperparameters; its docstring is its formula, up to a line that
    begins with ``Source:``.

    Raises:
        PgkitError: the name is taken, or an argument has no default.
    """
    if name in _REGISTRY:
        raise PgkitError(f"there is a recipe {name!r} already")
    if ":" in name:
        raise PgkitError(f"recipe {name!r}: a name with ':' is a class of another package")
    parameters = inspect.signature(build).parameters.values()
    without = [parameter.name for parameter in parameters if parameter.default is inspect.Parameter.empty]
    if without:
        raise PgkitError(f"recipe {name!r}: every argument needs a default, {without[0]!r} has none")
    formula, _, source = inspect.cleandoc(build.__doc__ or "").partition("Source:")
    defaults = {parameter.name: parameter.default for parameter in parameters}
    _REGISTRY[name] = OptimizerSpec(name, build, formula.strip(), " ".join(source.split()), defaults)


def recipes() -> dict[str, OptimizerSpec]:
    """All recipes by name."""
    return dict(_REGISTRY)


def find(name: str) -> OptimizerSpec:
    """The recipe called ``name``; ``"package.module:Class"`` finds any ``torch.optim.Optimizer``.

    Raises:
        PgkitError: there is none; lists them.
    """
    if isinstance(name, str) and ":" in name:
        return OptimizerSpec(name, *foreign_recipe(name))
    if name not in _REGISTRY:
        others = f"one of {', '.join(_REGISTRY)}; or a class, such as 'torch.optim:Adam'"
        raise PgkitError(f"unknown optimizer {name!r}{suggest(name, _REGISTRY)}; {others}")
    return _REGISTRY[name]


def make(name: str, *, schedule: Mapping[str, Any] | None = None, **hyperparameters: Any) -> Optimizer:
    """The optimizer ``name``.

    Args:
        name: a recipe, or ``"package.module:Class"``.
        schedule: schedules by hyperparameter: ``{"lr": "linear"}`` or ``{"lr": {"kind": "linear", "end": 1e-5}}``.
        hyperparameters: of the recipe, and of :func:`around`; each a number, one per member (a sequence or a tensor
            ``(P,)``), or a :class:`~pgkit.optim.base.Schedule`.

    Raises:
        PgkitError: unknown name or key, or a value out of range.
    """
    recipe = find(name)
    check_keys(f"optimizer {name!r}", hyperparameters, [*recipe.defaults, *AROUND])
    values = {**recipe.defaults, **AROUND, **hyperparameters}
    for key, settings in (schedule or {}).items():
        values[key] = schedule_of(key, _start(name, key, values), settings)
    inside = {key: value for key, value in values.items() if key in recipe.defaults}
    outside = {key: value for key, value in values.items() if key not in recipe.defaults}
    return around(recipe.build(**inside), **outside)


def around(
    optimizer: Optimizer,
    max_grad_norm: Any = None,
    max_layer_norm: Any = None,
    max_grad_value: Any = None,
    centralize: bool = False,
    reset_moments: Any = None,
    reset_step: Any = None,
    lookahead_steps: Any = None,
    lookahead_alpha: Any = 0.5,
) -> Optimizer:
    """``optimizer`` with what every recipe can have before and behind it; None for without.

    Args:
        optimizer: any; resets are for chains only.
        max_grad_norm: clip the joint norm of a member's gradients.
        max_layer_norm: clip the norm of each layer's weights and biases for itself.
        max_grad_value: clip every element.
        centralize: take the mean over inputs from the gradients of weights.
        reset_moments: forget everything after so many updates, or ``"rollout"``: at the first update of each.
        reset_step: forget the number of steps in bias corrections, likewise.
        lookahead_steps: meet with slow weights after so many updates.
        lookahead_alpha: how far the slow weights go to the meeting.
    """
    if reset_moments is not None:
        optimizer = t.restart(optimizer, "moments", reset_moments)
    if reset_step is not None:
        optimizer = t.restart(optimizer, "step", reset_step)
    front = [
        make_transform(value)
        for make_transform, value in (
            (t.clip_by_value, max_grad_value),
            (t.clip_by_layer_norm, max_layer_norm),
            (t.clip_by_global_norm, max_grad_norm),
        )
        if value is not None
    ]
    front += [t.centralize()] if flag("centralize", centralize) else []
    if lookahead_steps is None and not _is_default("lookahead_alpha", lookahead_alpha):
        raise PgkitError("lookahead_alpha is for lookahead, which lookahead_steps turns on")
    behind = [] if lookahead_steps is None else [t.lookahead(lookahead_steps, lookahead_alpha)]
    return chain(*front, optimizer, *behind) if front or behind else optimizer


AROUND: Mapping[str, Any] = {
    key: parameter.default for key, parameter in inspect.signature(around).parameters.items() if key != "optimizer"
}
"""The keys of :func:`around` with their defaults."""


def _is_default(key: str, value: Any) -> bool:
    return not isinstance(value, Schedule) and set(numbers_of(key, value)) == {AROUND[key]}


def _start(name: str, key: str, values: Mapping[str, Any]) -> Any:
    """Where the schedule of ``key`` begins."""
    check_keys(f"schedule of optimizer {name!r}", [key], values)
    if isinstance(values[key], Schedule):
        raise PgkitError(f"optimizer {name!r}: {key} has two schedules")
    if values[key] is None or isinstance(values[key], bool | str):
        raise PgkitError(f"optimizer {name!r}: {key} is {values[key]!r}, which can have no schedule")
    return values[key]


for _recipe in (
    named.sgd,
    named.momentum,
    named.nesterov,
    named.rmsprop,
    named.rmsprop_tf,
    named.adagrad,
    named.adadelta,
    named.adam,
    named.amsgrad,
    named.adamw,
    named.nadam,
    named.radam,
    named.adamax,
    named.lion,
    natural_gradient.npg,
):
    register(_recipe.__name__, _recipe)
