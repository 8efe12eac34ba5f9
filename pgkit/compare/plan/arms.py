"""The optimizers of a comparison: its arms, what is around all of them, and the spaces in which they are tuned."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from pgkit import optim
from pgkit.compare.plan.layers import arm_label
from pgkit.compare.plan.schema import ComparisonConfig
from pgkit.compare.plan.search_space import Range, space_of
from pgkit.config.schema import check_optimizer, check_optimizer_tables
from pgkit.errors import PgkitError, format_value, unknown_name
from pgkit.optim.around import AROUND

Check = tuple[str, Callable[[], object]]
"""What is checked, and a function that raises a ``PgkitError`` if it is wrong, which may begin with that name."""

ANY_RATE = 1e-3
"""Stands for the learning rate where other settings are checked."""


def find_mistakes(checks: Iterable[Check]) -> list[str]:
    """Make all checks, and return what they say; what several say is told once."""
    mistakes: dict[str, str] = {}
    for name, check in checks:
        try:
            check()
        except PgkitError as error:
            mistakes.setdefault(str(error).removeprefix(f"{name}: "), str(error))
    return list(mistakes.values())


def optimizer_checks(optimizers: Any, around: Any) -> Iterator[Check]:
    """Yield the checks of every arm, whatever it is that a file declares, and of what is around them."""
    yield "optimizer", partial(resolve_around, around)
    if not (isinstance(optimizers, list | tuple) and all(isinstance(entry, str | Mapping) for entry in optimizers)):
        return  # the schema says so
    try:
        resolved = resolve_around(around)
    except PgkitError:
        resolved = {}
    for number, entry in enumerate(optimizers):
        yield f"optimizers, {arm_label(entry)!r}", partial(_check_entry, number, entry, resolved)
    yield "optimizers", partial(resolve_arms, optimizers)


def check_arm(name: str, optimizer: Mapping[str, Any]) -> None:
    """Check that an optimizer can be made.

    Raises:
        PgkitError: beginning with the name.
    """
    try:
        check_optimizer(optimizer)
    except PgkitError as error:
        raise PgkitError(f"{name}: {error}") from None


def resolve_arms(declared: Sequence[str | Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the settings of each arm by label, with defaults."""
    arms: dict[str, dict[str, Any]] = {}
    for number, entry in enumerate(declared):
        label, settings = _resolve_arm(number, entry)
        if label in arms:
            raise PgkitError(f"optimizers: {label!r} comes twice; give one of them another label")
        arms[label] = settings
    return arms


def _check_entry(number: int, entry: str | Mapping[str, Any], around: Mapping[str, Any]) -> None:
    label, settings = _resolve_arm(number, entry)
    check_arm(f"optimizers, {label!r}", {**around, **settings, "lr": ANY_RATE})


def _resolve_arm(number: int, entry: str | Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the label and the settings of an arm, with defaults."""
    settings = {"name": entry} if isinstance(entry, str) else dict(entry)
    check_optimizer_tables(settings, f"optimizers[{number}]")
    if not isinstance(settings.get("label", ""), str):
        raise PgkitError(f"optimizers[{number}].label must be a text, got {format_value(settings['label'])}")
    label = arm_label(settings)
    settings.pop("label", None)
    if "lr" in settings:
        raise PgkitError(f"optimizers: {label!r} has an lr, which the comparison varies: use learning_rates")
    full = optim.describe(settings)["main"]
    if "lr" not in full:
        raise PgkitError(f"optimizers: {label!r} has no hyperparameter lr that could be varied")
    keys = [key for key in full if key in settings or key not in (*AROUND, "schedule", "lr")]
    return label, {key: full[key] for key in keys if full[key] is not None}


def resolve_spaces(
    config: ComparisonConfig, arms: Mapping[str, Mapping[str, Any]], rates: tuple[float, ...]
) -> dict[str, dict[str, Range]]:
    """Return the search space of each arm by label."""
    if unknown_arms := [label for label in config.spaces if label not in arms]:
        raise PgkitError(f"spaces: {unknown_name('arm', unknown_arms[0], arms)}")
    spaces = {}
    for entry, (label, arm) in zip(config.optimizers, arms.items(), strict=True):
        stated = set() if isinstance(entry, str) else set(entry)
        defaults = optim.spec(str(arm["name"])).defaults
        spaces[label] = space_of(label, defaults, stated, config.spaces.get(label, {}), rates)
    return spaces


def resolve_around(declared: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings around every arm, the critic's in full: it must not inherit anything from an arm."""
    check_optimizer_tables(declared, "optimizer")
    for key in ("name", "lr"):
        if key in declared:
            raise PgkitError(f"optimizer.{key} is what a comparison varies: use optimizers and learning_rates")
    around = {key: value for key, value in declared.items() if key != "critic"}
    if "critic" not in declared:
        return around
    full = optim.describe({**around, **declared["critic"]})["main"]
    return {**around, "critic": {key: value for key, value in full.items() if value is not None}}
