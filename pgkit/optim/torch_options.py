"""The keyword arguments of ``torch.optim.Optimizer`` classes: which a config can hold, and which differ by member."""

import inspect
from collections.abc import Callable
from enum import Enum
from typing import Any

import torch
from torch import Tensor

from pgkit.errors import PgkitError
from pgkit.optim.base import Schedule
from pgkit.optim.validation import PerMember, numbers_of

OptimizerClass = Callable[..., torch.optim.Optimizer]


def default_options(optimizer_class: OptimizerClass) -> dict[str, Any]:
    """List the keyword arguments of a class with their defaults."""
    parameters = list(inspect.signature(optimizer_class).parameters.values())[1:]
    return {p.name: p.default for p in parameters if not str(p).startswith("*")}  # neither *args nor **kwargs


def is_plain(value: Any) -> bool:
    """Whether a default can be written into a config."""
    if isinstance(value, list | tuple):
        return all(map(is_plain, value))
    exact = (str, bool, int, float)  # an enum may be an int, too
    return value is None or value is inspect.Parameter.empty or type(value) in exact


def is_hyperparameter(value: Any) -> bool:
    """Whether this is one number, or one per member, as against a flag or a list such as betas."""
    numbers = value if isinstance(value, PerMember) else [value]
    return all(isinstance(n, Schedule | Tensor | int | float) and not isinstance(n, bool | Enum) for n in numbers)


def option_of(key: str, value: Any, k: int, members: int) -> Any:
    """Return the option of member k; a plain list is one value, such as betas."""
    if isinstance(value, Schedule):
        value = value.start
    if not isinstance(value, PerMember | Tensor):
        return tuple(value) if isinstance(value, list) else value
    values = value if isinstance(value, PerMember) else numbers_of(key, value)
    if len(values) not in (1, members):
        raise PgkitError(f"{key} has {len(values)} values for {members} members; give one, or one per member")
    return values[k % len(values)]
