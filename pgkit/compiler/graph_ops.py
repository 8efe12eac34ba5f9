"""The vocabulary of captured graphs: instructions, the PyTorch operations among them, and the compiled signature.

Only operations that are correctly rounded are in it, so that pgkit's own loop computes the bits that PyTorch does.
"""

from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any, NamedTuple

import torch

from pgkit.compiler.signature import Address, Int64

TensorType = tuple[torch.dtype, int]
"""The dtype of a contiguous tensor, and its stride in numbers; 0 for a single number that stands for all elements."""


class NotCaptured(Exception):
    """An operation happened that a graph cannot repeat."""


class ElementwiseOp(NamedTuple):
    """An operation of PyTorch, element by element.

    Attributes:
        name: a key of ``OPERATIONS``.
        arguments: Python numbers; ``...`` in place of each tensor.
        compute_dtype: what the elements of the tensors are converted to first.
        inputs: the tensors.
        output: dtype of the result.
        size: number of elements.
    """

    name: str
    arguments: tuple[Any, ...]
    compute_dtype: torch.dtype
    inputs: tuple[TensorType, ...]
    output: torch.dtype
    size: int


class Repeat(NamedTuple):
    """A loop over instructions.

    Attributes:
        rounds: how many, at most.
        operations: of the instructions, in order.
        until: whether the first word is the address of a bool that ends the loop if it is true before a round.
    """

    rounds: int
    operations: tuple[Any, ...]
    until: bool


class Instruction(NamedTuple):
    """One instruction of a graph.

    Attributes:
        operation: an operation of PyTorch; for a call of a compiled function, whether each parameter is an address; or
            a loop.
        words: integers of 64 bits: the addresses of inputs and output; for a call, those of the function, then its
            arguments; for a loop, those of its instructions. They are data of the graph, not part of its code, so that
            graphs that differ in them share code.
        keep_alive: objects whose memory the words point to.
    """

    operation: ElementwiseOp | tuple[bool, ...] | Repeat
    words: tuple[int, ...]
    keep_alive: Any


class GraphArguments(NamedTuple):
    """Signature of a compiled graph, see :class:`pgkit.compiler.graph.Graph`.

    Attributes:
        members: M.
        max_updates: updates of each member, at most.
        words: those of all instructions, one after the other.
        buffers: a table with a :class:`BufferEntry` for each tensor of members.
        buffer_count: its length.
        snapshots: likewise, of tensors that are written when a snapshot is due.
        snapshot_count: its length.
        ok: bool ``(1,)``, written by the instructions.
        snapshot_due: likewise.
        keep_going: likewise.
        updates: int64 ``(M,)``, a result.
        all_ok: bool ``(M,)``, a result.
    """

    members: Int64
    max_updates: Int64
    words: Address
    buffers: Address
    buffer_count: Int64
    snapshots: Address
    snapshot_count: Int64
    ok: Address
    snapshot_due: Address
    keep_going: Address
    updates: Address
    all_ok: Address


class BufferEntry(NamedTuple):
    """Where the rows of one tensor are, as five words.

    Attributes:
        source: address of the tensor that rows are read from.
        target: address of the tensor that rows are written to.
        workspace: address of one row, in the memory that the instructions work on.
        row_bytes: size of a row.
        rows: address of int64 ``(M,)``, the row of each member.
    """

    source: int
    target: int
    workspace: int
    row_bytes: int
    rows: int


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
    "clamp_min": lambda x, low: torch.clamp(x, min=low),
    "clamp_max": lambda x, high: torch.clamp(x, max=high),
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
"""The operations of PyTorch that can be captured, for one element (:mod:`pgkit.compiler.tracer`)."""

COMPARISONS = frozenset(("lt", "le", "gt", "ge", "eq", "ne"))

TAKES_BOOLEANS = frozenset(("where", "bitwise_and", "bitwise_or", "bitwise_not", "all", "copy"))
"""Operations that booleans are captured for, beside comparisons."""

FLOATS_ONLY = frozenset(("neg", "abs", "floor", "minimum", "maximum", "clamp", "clamp_min", "clamp_max"))
"""Operations that integers are not captured for."""

COPIES = frozenset(("_to_copy", "clone"))
"""Operations that only copy, and maybe convert, their first argument."""

NO_WORK = frozenset(
    ("view", "_unsafe_view", "transpose", "t", "permute", "slice", "select", "unbind", "split", "split_with_sizes")
    + ("expand", "squeeze", "unsqueeze", "detach", "alias", "as_strided")
    + ("empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided")
)
"""Views and allocations: nothing is to be repeated, but their memory has to stay."""

CONSTANTS = frozenset(
    ("full", "full_like", "new_full", "ones", "ones_like", "new_ones", "zeros", "zeros_like", "new_zeros")
    + ("scalar_tensor", "lift_fresh", "fill", "zero")
)
"""Operations whose result is the same every time; the graph copies it from where it was computed once."""
