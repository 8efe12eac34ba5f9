"""Recipes by name: what there is, how to make one, how to add one's own."""

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pgkit.optim import recipes as named
from pgkit.optim.chain import chain
from pgkit.optim.core import Optimizer, Transform
from pgkit.optim.schedules import schedule_of
from pgkit.optim.transforms import clip_by_global_norm
from pgkit.types import PgkitError


@dataclass(frozen=True)
class Recipe:
    """An entry of the registry.

    Attributes:
        name: what a config says.
        build: ``build(**hyperparameters) -> Optimizer``.
        formula: first paragraphs of its docstring.
        source: where the formula comes from.
        defaults: every hyperparameter with its default.
    """

    name: str
    build: Callable[..., Optimizer]
    formula: str
    source: str
    defaults: Mapping[str, Any]


_REGISTRY: dict[str, Recipe] = {}


def register(name: str, build: Callable[..., Optimizer]) -> None:
    """Make ``build(lr=..., ...) -> Optimizer`` known as ``name``.

    Its keyword arguments with their defaults are its hyperparameters; its docstring is its formula, up to a line that
    begins with ``Source:``.
    """
    parameters = inspect.signature(build).parameters.values()
    without = [parameter.name for parameter in parameters if parameter.default is inspect.Parameter.empty]
    if without:
        raise PgkitError(f"recipe {name!r}: every argument needs a default, {without[0]!r} has none")
    formula, _, source = inspect.cleandoc(build.__doc__ or "").partition("Source:")
    defaults = {parameter.name: parameter.default for parameter in parameters}
    _REGISTRY[name] = Recipe(name, build, formula.strip(), " ".join(source.split()), defaults)


def recipes() -> dict[str, Recipe]:
    """All recipes by name."""
    return dict(_REGISTRY)


def find(name: str) -> Recipe:
    """The recipe called ``name``.

    Raises:
        PgkitError: there is none; lists them.
    """
    if name not in _REGISTRY:
        raise PgkitError(f"unknown optimizer {name!r}{suggest(name, _REGISTRY)}; one of {', '.join(_REGISTRY)}")
    return _REGISTRY[name]


def make(name: str, *, schedule: Mapping[str, Any] | None = None, **hyperparameters: Any) -> Optimizer:
    """The optimizer ``name``.

    Args:
        name: a recipe.
        schedule: schedules by hyperparameter: ``{"lr": "linear"}`` or ``{"lr": {"kind": "linear", "end": 1e-5}}``.
        hyperparameters: of the recipe, and of :func:`around`; each a number, one per member (a sequence or a tensor
            ``(P,)``), or a :class:`~pgkit.optim.core.Schedule`.

    Raises:
        PgkitError: unknown name or key, or a value out of range.
    """
    recipe = find(name)
    check_keys(f"optimizer {name!r}", hyperparameters, [*recipe.defaults, *AROUND])
    own = {key: value for key, value in {**recipe.defaults, **hyperparameters}.items() if key in recipe.defaults}
    extra = {key: value for key, value in hyperparameters.items() if key in AROUND}
    for key, settings in (schedule or {}).items():
        check_keys(f"schedule of optimizer {name!r}", [key], own)
        own[key] = schedule_of(key, own[key], settings)
    return around(recipe.build(**own), **extra)


def around(optimizer: Optimizer, max_grad_norm: Any = None) -> Optimizer:
    """``optimizer`` with what every recipe can have in front of it.

    Args:
        optimizer: any.
        max_grad_norm: clip the joint norm of a member's gradients; None for no clipping.
    """
    front: list[Transform] = [] if max_grad_norm is None else [clip_by_global_norm(max_grad_norm)]
    return chain(*front, optimizer) if front else optimizer


AROUND: Mapping[str, Any] = {
    key: parameter.default for key, parameter in inspect.signature(around).parameters.items() if key != "optimizer"
}
"""The keys of :func:`around` with their defaults."""


def check_keys(where: str, given: Iterable[str], allowed: Iterable[str]) -> None:
    """Refuse the first key in ``given`` that is not allowed."""
    allowed = list(allowed)
    for key in given:
        if key not in allowed:
            raise PgkitError(
                f"{where}: unknown key {key!r}{suggest(key, allowed)}; one of {', '.join(sorted(allowed))}"
            )


def suggest(word: str, words: Iterable[str]) -> str:
    """``" (did you mean 'lr'?)"``, or nothing when no word is close."""
    close = difflib.get_close_matches(str(word), list(words), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


for _name in ("sgd", "momentum", "nesterov", "rmsprop", "adam"):
    register(_name, getattr(named, _name))

__all__ = ["AROUND", "Recipe", "around", "check_keys", "find", "make", "recipes", "register", "suggest"]
