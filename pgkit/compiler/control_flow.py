"""Branches and loops for functions of tensors that are also compiled. Imports no LLVM."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pgkit.compiler.recorder import recorders

Tree = Mapping[str, Any]
"""A dict of tensors and trees of tensors, see :mod:`pgkit.tree`."""


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


def capturing() -> bool:
    """Whether a :class:`pgkit.compiler.graph.Capture` records what happens here."""
    return recorders.capture is not None


def repeat(
    count: int, body: Callable[[Any], tuple[Any, Tree]], carried: Any, until: str | None = None
) -> tuple[Any, dict[str, Tensor]]:
    """Compute ``carried, terms = body(carried)`` again and again, as ``jax.lax.fori_loop`` does.

    Inside a capture the body is traced once, and the graph has a loop: its code does not grow with ``count``. So the
    body may use nothing that changes from round to round but what is carried.

    >>> def halve(carried):
    ...     return {"x": carried["x"] / 2}, {"sum": carried["x"]}
    >>> repeat(3, halve, {"x": torch.tensor([8.0])})
    ({'x': tensor([1.])}, {'sum': tensor([14.])})

    Args:
        count: how many rounds.
        body: ``body(carried) -> (carried, terms)``: carried tensors of the same names, shapes and dtypes, and a dict of
            tensors to be summed over the rounds.
        carried: a dict of trees of tensors, which is not written into.
        until: name of a bool tensor among the carried ones: a round that begins with all of it true would change
            nothing and add zeros, so it may be skipped.

    Returns:
        What the last round has carried, and the sums of the terms.
    """
    if recorders.capture is not None:
        result: tuple[Any, dict[str, Tensor]] = recorders.capture.repeat(count, body, carried, until)
        return result
    totals: dict[str, Tensor] = {}
    for _ in range(count):
        if until is not None and carried[until].is_cpu and carried[until].all():
            break  # on a GPU, looking costs more than computing
        carried, terms = body(carried)
        totals = {name: totals.get(name, 0.0) + term for name, term in terms.items()}
    return carried, totals
