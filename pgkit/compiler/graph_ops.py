"""The PyTorch operations that a captured graph may contain."""

from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any, NamedTuple

import torch

ColumnType = tuple[torch.dtype, int]
"""Of a tensor: what its numbers are, and their stride; 0 of a single number for all elements."""


class NotCaptured(Exception):
    """Something happened that a program cannot do again."""


class Rows(NamedTuple):
    """An operation element by element.

    Attributes:
        name: in ``OPERATIONS``.
        others: its arguments; of tensors, ``...``.
        kind: what the tensors' numbers are turned into before.
        inputs: the tensors.
        output: what the results' numbers are.
        size: how many.
    """

    name: str
    others: tuple[Any, ...]
    kind: torch.dtype
    inputs: tuple[ColumnType, ...]
    output: torch.dtype
    size: int


class Step(NamedTuple):
    """One step of a program.

    Attributes:
        form: an operation, or of a call the types of its arguments.
        words: the addresses of inputs and output; of a call, that of the function and its arguments.
        held: what has to stay for them to be valid.
    """

    form: Rows | tuple[Any, ...]
    words: tuple[int, ...]
    held: Any


OPERATIONS: Mapping[str, Callable[..., Any]] = {
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "rsub": lambda x, y: y - x,
    "mul": lambda x, y: x * y,
    "div": lambda x, y: x / y,
    "neg": lambda x: -x,
    "abs": torch.abs,
    "floor": torch.floor,
    "minimum": torch.minimum,
    "maximum": torch.maximum,
    "clamp": torch.clamp,
    "clamp_min": lambda x, least: torch.clamp(x, min=least),
    "clamp_max": lambda x, most: torch.clamp(x, max=most),
    "where": torch.where,
    "lt": lambda x, y: x < y,
    "le": lambda x, y: x <= y,
    "gt": lambda x, y: x > y,
    "ge": lambda x, y: x >= y,
    "eq": lambda x, y: x == y,
    "ne": lambda x, y: x != y,
    "bitwise_and": lambda x, y: x & y,
    "bitwise_or": lambda x, y: x | y,
    "bitwise_not": lambda x: ~x,
    "all": lambda *flags: reduce(lambda x, y: x & y, flags),
    "copy": lambda x: x,
}
"""What can be captured of PyTorch, for one element (:mod:`pgkit.compiler.tracer`)."""

_COMPARISONS = frozenset(("lt", "le", "gt", "ge", "eq", "ne"))

_OF_FLAGS = frozenset(("where", "bitwise_and", "bitwise_or", "bitwise_not", "all", "copy"))

_OF_REALS = frozenset(("neg", "abs", "floor", "minimum", "maximum", "clamp", "clamp_min", "clamp_max"))

_COPIES = frozenset(("_to_copy", "clone"))

_FREE = frozenset(
    ("view", "_unsafe_view", "transpose", "t", "permute", "slice", "select", "unbind", "split", "split_with_sizes")
    + ("expand", "squeeze", "unsqueeze", "detach", "alias", "as_strided")
    + ("empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided")
)

_CONSTANT = frozenset(
    ("full", "full_like", "new_full", "ones", "ones_like", "new_ones", "zeros", "zeros_like", "new_zeros")
    + ("scalar_tensor", "lift_fresh", "fill", "zero")
)
