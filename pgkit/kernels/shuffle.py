"""Minibatches: samples in a random order, each member's by its own stream, and rows taken in that order.

On CPU compiled, elsewhere by tensor operations; both give the same order.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from pgkit.compiler.lazy import lazy_kernel
from pgkit.compiler.signature import flatten
from pgkit.kernels.row_signatures import Shuffle, TakenColumn, TakeRows
from pgkit.seeding import sort_key
from pgkit.system.cpu import use_compiled

INDEX_BITS = 32
"""Bits of a sort key that hold the sample's index; an epoch takes as many numbers of the member's stream."""

_shuffle = lazy_kernel("pgkit.kernels.codegen.shuffle:compile_shuffle")
_take_rows = lazy_kernel("pgkit.kernels.codegen.shuffle:compile_take_rows")


def shuffled_order(keys: Tensor, counters: Tensor, epochs: int, samples: int) -> Tensor:
    """Draw orders of B samples for E epochs, int64 ``(P, E B)``: in each epoch, each index from 0 to B - 1 once.

    >>> from pgkit.seeding import stream_keys
    >>> shuffled_order(stream_keys([0], "shuffle"), torch.tensor([0]), epochs=2, samples=4).view(2, 4).sort(1).values
    tensor([[0, 1, 2, 3],
            [0, 1, 2, 3]])

    Args:
        keys: int64 ``(P,)``, a random stream of each member.
        counters: int64 ``(P,)``, multiples of 2^32, other ones for each call: epoch e of a call draws the numbers of
            the stream from ``counters E + e 2^32`` on.
        epochs: E.
        samples: B, below 2^32.
    """
    if not use_compiled(torch.float32, keys.device):
        index = torch.arange(samples, device=keys.device)
        first = counters[:, None] * epochs + (torch.arange(epochs, device=keys.device) << INDEX_BITS)
        numbers = sort_key(keys[:, None, None], first[:, :, None] + index, index)
        return (numbers.sort(2).values & ((1 << INDEX_BITS) - 1)).flatten(1)
    keys = keys.contiguous()
    counters = counters.contiguous()
    order = torch.empty(len(keys), epochs * samples, dtype=torch.int64)
    scratch = torch.empty(2 * samples + 1, dtype=torch.int64)
    arguments = Shuffle(
        members=len(keys),
        epochs=epochs,
        samples=samples,
        keys=keys.data_ptr(),
        counters=counters.data_ptr(),
        order=order.data_ptr(),
        scratch=scratch.data_ptr(),
    )
    _shuffle()(*arguments)
    return order


def take_rows(columns: Sequence[Tensor], order: Tensor, number: Tensor, rows: int) -> list[Tensor]:
    """Take the samples of minibatch ``number``, those at the b indices from ``number b`` on in ``order``.

    Args:
        columns: ``(P, B, ...)`` each, contiguous.
        order: int64 ``(P, K b)``, indices of samples.
        number: int64 ``(1,)``, from 0 to K - 1.
        rows: b.

    Returns:
        ``(P, b, ...)`` each.
    """
    if not use_compiled(torch.float32, order.device):
        index = order.view(len(order), -1, rows).index_select(1, number).squeeze(1)
        return [_gather(column, index) for column in columns]
    members, samples = columns[0].shape[:2]
    taken = [column.new_empty(members, rows, *column.shape[2:]) for column in columns]
    arguments = TakeRows(
        members=members,
        samples=samples,
        rows=rows,
        order_rows=order.shape[1],
        order=order.data_ptr(),
        number=number.data_ptr(),
        columns=tuple(
            TakenColumn(*(tensor.data_ptr() for tensor in pair)) for pair in zip(columns, taken, strict=True)
        ),
    )
    types = tuple((column.dtype, column.shape[2:].numel()) for column in columns)
    _take_rows(types)(*flatten(arguments))
    return taken


def _gather(column: Tensor, index: Tensor) -> Tensor:
    """``column[k, index[k]]`` for each member k."""
    trailing = column.shape[2:]
    return column.gather(1, index.view(*index.shape, *[1] * len(trailing)).expand(*index.shape, *trailing))
