"""Trees of tensors whose leaves share the leading member axis P.

A tree is a tensor, or a dict, list or tuple of trees. Parameters, gradients and optimizer states are trees.

>>> params = {"w": torch.tensor([[1.0, 2.0], [3.0, 4.0]])}
>>> take_tree(params, torch.tensor([1]))
{'w': tensor([[3., 4.]])}
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


def map_tree(function: Callable[[Tensor], Any], tree: Any) -> Any:
    """Apply ``function`` to every tensor of the tree; other leaves stay as they are."""
    if isinstance(tree, Tensor):
        return function(tree)
    if isinstance(tree, dict):
        return {key: map_tree(function, value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(map_tree(function, value) for value in tree)
    return tree


def take_tree(tree: Any, members: Tensor) -> Any:
    """Select the rows ``members`` (int64 ``(M,)``) of every tensor: leaves ``(P, ...) -> (M, ...)``."""
    return map_tree(lambda leaf: leaf.index_select(0, members.to(leaf.device)), tree)


def put_tree(tree: Any, members: Tensor, sub: Any) -> Any:
    """Return a copy of ``tree`` in which the rows ``members`` (int64 ``(M,)``) are the rows of ``sub``."""
    if isinstance(tree, Tensor):
        return tree.index_copy(0, members.to(tree.device), sub)
    if isinstance(tree, dict):
        return {key: put_tree(value, members, sub[key]) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(put_tree(value, members, part) for value, part in zip(tree, sub, strict=True))
    return tree


def where_tree(condition: Tensor, tree: Any, other: Any) -> Any:
    """Select the rows of ``tree`` where ``condition`` (bool ``(P,)``) is true, those of ``other`` elsewhere."""
    if isinstance(tree, Tensor):
        return torch.where(condition.view(-1, *[1] * (tree.dim() - 1)), tree, other)
    if isinstance(tree, dict):
        return {key: where_tree(condition, value, other[key]) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(where_tree(condition, *pair) for pair in zip(tree, other, strict=True))
    return tree


MemberRows = Tensor | None
"""Which members: int64 ``(M,)`` rows of the member axis, or None for all members."""


def select_members(tree: Any, rows: MemberRows) -> Any:
    """:func:`take_tree`, or the tree itself where ``rows`` is None."""
    return tree if rows is None else take_tree(tree, rows)


def replace_members(tree: Any, rows: MemberRows, sub: Any) -> Any:
    """:func:`put_tree`, or ``sub`` itself where ``rows`` is None."""
    return sub if rows is None else put_tree(tree, rows, sub)


def concat_members(parts: Sequence[Any], rows: Sequence[MemberRows]) -> Any:
    """Put a population together from trees of some members each.

    Args:
        parts: one tree per group of members.
        rows: the members of each part; every member is in exactly one part. A single part may hold all (None).

    Returns:
        One tree with the members in order; lists become tuples.
    """
    if rows[0] is None:
        return parts[0]
    return _concat(parts, torch.cat([part_rows for part_rows in rows if part_rows is not None]).argsort())


def _concat(parts: Sequence[Any], order: Tensor) -> Any:
    if isinstance(parts[0], Tensor):
        return torch.cat(list(parts))[order]
    if isinstance(parts[0], dict):
        return {key: _concat([part[key] for part in parts], order) for key in parts[0]}
    return tuple(_concat(column, order) for column in zip(*parts, strict=True))


def member_samples(x: Tensor) -> Tensor:
    """Put the samples of each member in one row: ``(T, P, N, ...) -> (P, T * N, ...)``.

    The rows are contiguous, so that a sum over samples rounds alike for any P.
    """
    return x.transpose(0, 1).flatten(1, 2)
