"""Trees of tensors whose leaves share the leading member axis P: map, take, put, join."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


def map_tree(function: Callable[[Tensor], Any], tree: Any) -> Any:
    """``function`` of every tensor in a tree of dicts, lists and tuples; other leaves stay."""
    if isinstance(tree, Tensor):
        return function(tree)
    if isinstance(tree, dict):
        return {key: map_tree(function, value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(map_tree(function, value) for value in tree)
    return tree


def take_tree(tree: Any, members: Tensor) -> Any:
    """Rows ``members`` (int64 ``(M,)``) of every tensor in a tree of dicts, lists and tuples."""
    return map_tree(lambda leaf: leaf.index_select(0, members.to(leaf.device)), tree)


def put_tree(tree: Any, members: Tensor, sub: Any) -> Any:
    """A copy of ``tree`` whose rows ``members`` are those of ``sub``."""
    if isinstance(tree, Tensor):
        return tree.index_copy(0, members.to(tree.device), sub)
    if isinstance(tree, dict):
        return {key: put_tree(value, members, sub[key]) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(put_tree(value, members, part) for value, part in zip(tree, sub, strict=True))
    return tree


Rows = Tensor | None
"""Which members: int64 ``(p,)``, or None for all of them."""


def select(tree: Any, rows: Rows) -> Any:
    """Rows of every tensor in the tree, or the tree itself for all rows."""
    return tree if rows is None else take_tree(tree, rows)


def merge(tree: Any, rows: Rows, sub: Any) -> Any:
    """The tree with these rows replaced by those of ``sub``."""
    return sub if rows is None else put_tree(tree, rows, sub)


def join(parts: Sequence[Any], rows: Sequence[Tensor]) -> Any:
    """One tree of trees whose tensors hold these rows each, all rows in order."""
    return _cat(parts, torch.cat(list(rows)).argsort())


def join_pieces(parts: Sequence[Any], rows: Sequence[Rows]) -> Any:
    """The same, where a single part may hold all rows (None)."""
    return parts[0] if rows[0] is None else join(parts, [own for own in rows if own is not None])


def _cat(parts: Sequence[Any], order: Tensor) -> Any:
    if isinstance(parts[0], Tensor):
        return torch.cat(list(parts))[order]
    if isinstance(parts[0], dict):
        return {key: _cat([part[key] for part in parts], order) for key in parts[0]}
    return tuple(_cat(column, order) for column in zip(*parts, strict=True))


def _per_member(x: Tensor) -> Tensor:
    """``(T, P, N, ...) -> (P, T * N, ...)``, contiguous: sums over samples round alike for any P."""
    return x.transpose(0, 1).flatten(1, 2)
