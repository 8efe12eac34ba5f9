"""Optimizers by name: list them, make one, register one of your own."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pgkit.errors import PgkitError, describe_exception, suggest
from pgkit.optim import adam_variants, natural_gradient, optimizers, recent, trust_region
from pgkit.optim.around import AROUND, DETAILS, PARTS, SCHEDULED, around
from pgkit.optim.base import Optimizer, Schedule
from pgkit.optim.schedules import schedule_of
from pgkit.optim.torch_adapter import torch_spec
from pgkit.optim.validation import check_keys, is_none
from pgkit.system.imports import import_module


@dataclass(frozen=True)
class OptimizerSpec:
    """An entry of the registry.

    Attributes:
        name: as in a config.
        build: ``build(**hyperparameters) -> Optimizer``.
        formula: its docstring up to the source.
        source: where the formula comes from.
        defaults: every hyperparameter with its default. Those whose names mean something around every optimizer
            (:data:`AROUND`, ``schedule`` and so on) are in a table of their own, under :attr:`class_table`.
        common: hyperparameters that all members of one optimizer share, those annotated as ``int``; members that differ
            in them have optimizers of their own.
    """

    name: str
    build: Callable[..., Optimizer]
    formula: str
    source: str
    defaults: Mapping[str, Any]
    common: frozenset[str] = frozenset()

    @property
    def class_table(self) -> str:
        """The key of the table for options that share a name with pgkit's: the name of the class, or of the entry."""
        return self.name.rpartition(":")[2]

    def with_defaults(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Fill in the defaults of hyperparameters and of what is around the optimizer.

        ``"none"`` is None, for which TOML has no word, where that is the default.

        Raises:
            PgkitError: an unknown key in the table of the optimizer's own options.
        """
        defaults = {**self.defaults, **AROUND}
        stated = {key: None if is_none(value, defaults.get(key, ...)) else value for key, value in settings.items()}
        filled = {**defaults, **stated}
        nested = self.defaults.get(self.class_table)
        if isinstance(nested, Mapping):
            table = filled[self.class_table]
            where = f"{self.class_table} of optimizer {self.name!r}"
            if not isinstance(table, Mapping):
                raise PgkitError(f"{where} must be a table of {', '.join(nested)}, got {table!r}")
            check_keys(where, table, nested)
            filled[self.class_table] = {key: value for key, value in {**nested, **table}.items() if value is not None}
        return filled


_REGISTRY: dict[str, OptimizerSpec] = {}


def register(name: str, build: Callable[..., Optimizer]) -> None:
    """Make ``build(lr=..., ...) -> Optimizer`` known as ``name``.

    >>> from pgkit.optim import chain, list_optimizers, register
    >>> from pgkit.optim.transforms import clip_by_value, scale_by_rate
    >>> def clipped_sgd(lr=1e-3, limit=1.0):
    ...     "p = p - lr clip(g, -limit, limit). Source: folklore."
    ...     return chain(clip_by_value(limit), scale_by_rate(lr))
    >>> register("clipped_sgd", clipped_sgd)  # doctest: +SKIP

    Args:
        name: as in a config; without a colon.
        build: its arguments, each with a default, are the hyperparameters; its docstring is the formula, up to a line
            that begins with ``Source:``.

    Raises:
        PgkitError: the name is taken or has a colon, or an argument has no default.
    """
    if name in _REGISTRY:
        raise PgkitError(f"there is an optimizer {name!r} already")
    if ":" in name:
        raise PgkitError(f"optimizer {name!r}: a name with ':' means a class of another package")
    _REGISTRY[name] = _spec_of(name, build)


def _spec_of(name: str, build: Callable[..., Optimizer]) -> OptimizerSpec:
    """Describe a function that makes optimizers.

    Raises:
        PgkitError: an argument has no default.
    """
    parameters = list(inspect.signature(build).parameters.values())
    without_default = [parameter.name for parameter in parameters if parameter.default is inspect.Parameter.empty]
    if without_default:
        raise PgkitError(f"optimizer {name!r}: every argument needs a default, {without_default[0]!r} has none")
    defaults = {parameter.name: parameter.default for parameter in parameters}
    entry = _make_spec(name, build, *_formula_and_source(build), defaults)
    return replace(entry, common=frozenset(parameter.name for parameter in parameters if parameter.annotation is int))


def _formula_and_source(build: Callable[..., Any]) -> tuple[str, str]:
    """The docstring of a function up to its source, and the source."""
    formula, _, rest = inspect.cleandoc(build.__doc__ or "").partition("Source:")
    return formula.strip(), " ".join(rest.partition("\n\n")[0].split())


def list_optimizers() -> list[str]:
    """List the names of all registered optimizers.

    >>> from pgkit.optim import list_optimizers
    >>> list_optimizers()[:3]
    ['sgd', 'momentum', 'nesterov']
    """
    return list(_REGISTRY)


def spec(name: str) -> OptimizerSpec:
    """Look up the optimizer ``name``.

    ``"package.module:Class"`` means any ``torch.optim.Optimizer``; ``"package.module:name"`` imports the module and
    means what it registers as ``name``, or its function ``name(lr=..., ...) -> Optimizer``.

    >>> from pgkit.optim import spec
    >>> spec("sgd").formula
    'p = p - lr g.'

    Raises:
        PgkitError: there is none; the message lists those that there are.
    """
    name = canonical_name(name)
    if isinstance(name, str) and ":" in name:
        return _imported(name) or _make_spec(name, *torch_spec(name))
    if name not in _REGISTRY:
        others = f"one of {', '.join(_REGISTRY)}; or a class, such as 'torch.optim:Adam'"
        raise PgkitError(f"unknown optimizer {name!r}{suggest(name, _REGISTRY)}; {others}")
    return _REGISTRY[name]


def canonical_name(name: Any) -> Any:
    """Return the registry's name: ``AdamW`` is ``adamw``, ``torch.optim.AdamW`` is ``torch.optim:AdamW``."""
    if not isinstance(name, str) or name in _REGISTRY:
        return name
    if name.startswith("torch.optim.") and ":" not in name:
        return "torch.optim:" + name.removeprefix("torch.optim.")
    return name.lower() if name.lower() in _REGISTRY else name


def _imported(name: str) -> OptimizerSpec | None:
    """Import ``"package.module:name"``; return what it registers or defines, None if that is no function."""
    module = import_module(name, "optimizer")
    short = name.partition(":")[2]
    registered = _REGISTRY.get(short)
    if registered is not None and f"{registered.build.__module__}.".startswith(f"{module.__name__}."):
        return replace(registered, name=name)
    build = getattr(module, short, None)
    if not inspect.isfunction(build):
        return None

    def checked(**hyperparameters: Any) -> Optimizer:
        try:
            optimizer = build(**hyperparameters)
        except PgkitError:
            raise
        except Exception as error:  # a user's function, which may raise anything
            raise PgkitError(f"optimizer {name!r}: {describe_exception(error)}") from error
        if not isinstance(optimizer, Optimizer):
            raise PgkitError(f"optimizer {name!r} must return a pgkit.optim.Optimizer, got {type(optimizer).__name__}")
        return optimizer

    return replace(_spec_of(name, build), build=checked)


def _make_spec(
    name: str, build: Callable[..., Optimizer], formula: str, source: str, options: Mapping[str, Any]
) -> OptimizerSpec:
    """Make an entry; options that share a name with pgkit's go into a table, so that neither overrides the other."""
    entry = OptimizerSpec(name, build, formula, source, {k: v for k, v in options.items() if k not in RESERVED})
    nested = {key: value for key, value in options.items() if key in RESERVED}
    return replace(entry, defaults={**entry.defaults, entry.class_table: nested}) if nested else entry


def make(name: str, *, schedule: Mapping[str, Any] | None = None, **hyperparameters: Any) -> Optimizer:
    """Make the optimizer ``name``.

    >>> from pgkit.optim import make
    >>> make("adam", lr=[1e-3, 1e-2], max_grad_norm=0.5, schedule={"lr": "linear"}).requires
    frozenset({'progress'})

    Args:
        name: a registered name, or ``"package.module:Class"``.
        schedule: schedules by hyperparameter: ``{"lr": "linear"}`` or ``{"lr": {"kind": "linear", "end": 1e-5}}``.
        hyperparameters: of the optimizer, and of :func:`around`; a class's option of such a name is in a table named
            after the class (``Adan={"max_grad_norm": 1.0}``). Each one number, one per member (a sequence or a
            tensor ``(P,)``), or a :class:`~pgkit.optim.base.Schedule`.

    Raises:
        PgkitError: unknown name or key, or a value out of range.
    """
    entry = spec(name)
    check_keys(f"optimizer {name!r}", hyperparameters, [*entry.defaults, *AROUND])
    values = entry.with_defaults(hyperparameters)
    for key, settings in (schedule or {}).items():
        values[key] = schedule_of(key, _schedule_start(name, key, values), settings)
    inside = {key: value for key, value in values.items() if key in entry.defaults}
    outside = {key: value for key, value in values.items() if key not in entry.defaults}
    nested = inside.get(entry.class_table)
    if isinstance(nested, Mapping):
        inside = {**inside, **nested}
        del inside[entry.class_table]
    return around(entry.build(**inside), **outside)


def part_spec(key: str) -> OptimizerSpec:
    """Describe a part of :func:`around`: formula and source as in its docstring, and its keys with their defaults.

    >>> from pgkit.optim.registry import part_spec
    >>> dict(part_spec("trac").defaults)
    {'trac': False, 'trac_s_prev': 1e-08}
    """
    formula, source = _formula_and_source(PARTS[key])
    details = [name for name, switch in DETAILS.items() if switch == key]
    return OptimizerSpec(key, PARTS[key], formula, source, {name: AROUND[name] for name in (key, *details)})


RESERVED = ("name", "schedule", "critic", "groups", *AROUND)
"""Keys of a table that mean the same for every optimizer."""


def _schedule_start(name: str, key: str, values: Mapping[str, Any]) -> Any:
    """Return the value at which the schedule of ``key`` begins."""
    check_keys(f"schedule of optimizer {name!r}", [key], [*spec(name).defaults, *SCHEDULED])
    if isinstance(values[key], Schedule):
        raise PgkitError(f"optimizer {name!r}: {key} has two schedules")
    if values[key] is None or isinstance(values[key], bool | str):
        raise PgkitError(f"optimizer {name!r}: {key} is {values[key]!r}, which can have no schedule")
    return values[key]


for _build in (
    optimizers.sgd,
    optimizers.momentum,
    optimizers.nesterov,
    optimizers.rmsprop,
    optimizers.rmsprop_tf,
    optimizers.adagrad,
    optimizers.adadelta,
    optimizers.adam,
    adam_variants.adam_rel,
    adam_variants.adam_equal,
    adam_variants.amsgrad,
    optimizers.adamw,
    adam_variants.nadam,
    adam_variants.radam,
    adam_variants.adamax,
    optimizers.lion,
    recent.muon,
    recent.soap,
    recent.schedule_free_sgd,
    recent.schedule_free_adamw,
    natural_gradient.npg,
    trust_region.trpo,
):
    register(_build.__name__, _build)
