"""Branches for functions of tensors that are also compiled. Imports no LLVM."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


def lazy_where(condition: Any, compute: Callable[[], Sequence[Any]], otherwise: Sequence[Any]) -> list[Any]:
    """``torch.where(condition, new, old)`` for each pair of ``compute()`` and ``otherwise``.

    For what is expensive and rarely needed, such as the reset of an environment. Compiled code takes several elements
    at once and skips ``compute`` where none of them needs it. On tensors everything is computed: to look whether any
    element needs it would wait for the GPU.

    >>> x = torch.tensor([4.0, -1.0])
    >>> lazy_where(x > 0.0, lambda: [torch.sqrt(x)], otherwise=[x])
    [tensor([ 2., -1.])]

    Args:
        condition: bool, a tensor or a traced scalar.
        compute: takes nothing and returns as many values as ``otherwise`` has, of the same types.
        otherwise: values where the condition is false.
    """
    if isinstance(condition, Tensor):
        return [torch.where(condition, new, old) for new, old in zip(compute(), otherwise, strict=True)]
    values: list[Any] = condition.lazy_where(compute, otherwise)
    return values
