"""Capture on CPU: what Python does with tensors once becomes a graph that repeats it without Python.

Like a CUDA graph, it repeats the same work in the same memory. It consists of calls of compiled functions, which
announce themselves (:func:`pgkit.compiler.recorder.record_calls`), and of element-wise operations of PyTorch that are
correctly rounded, which loops of pgkit's own repeat with the same bits. Everything else is refused.

Numbers that Python reads without PyTorch's knowledge (``tolist``, ``numpy``) are not noticed: they become constants of
the graph. Whoever captures has to repeat something with other numbers, and to compare.
"""

import ctypes
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from pgkit.compiler.graph_ops import (
    COMPARISONS,
    CONSTANTS,
    COPIES,
    FLOATS_ONLY,
    NO_WORK,
    OPERATIONS,
    TAKES_BOOLEANS,
    BufferEntry,
    ElementwiseOp,
    GraphArguments,
    Instruction,
    NotCaptured,
    Repeat,
    TensorType,
)
from pgkit.compiler.lazy import lazy_kernel
from pgkit.compiler.recorder import record_calls, recorders
from pgkit.tree import map_tree

_compile_graph = lazy_kernel("pgkit.compiler.graph_codegen:compile_graph")


class Capture(TorchDispatchMode):
    """A context in which operations on tensors are executed and captured.

    Attributes:
        instructions: what was captured.

    Raises:
        NotCaptured: inside the context, at an operation that cannot be captured.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.instructions: list[Instruction] = []
        self._recording = record_calls(self._record_call)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # True makes PyTorch import its own compiler, which takes a second, to skip what is not compiled

    def __enter__(self) -> "Capture":
        self._recording.__enter__()
        recorders.capture = self
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        recorders.capture = None
        self._recording.__exit__(*error)

    # PyTorch calls this for every operation inside the context, below autograd: with the overload that was chosen,
    # after broadcasting and type promotion were decided, but before anything is computed.
    def __torch_dispatch__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name = function.overloadpacket.__name__
        kwargs = kwargs or {}
        result = function(*args, **kwargs)
        # An operation in place (add_) returns the tensor that it wrote to, so it is captured as add into that tensor.
        plain = name.removesuffix("_") if name.endswith("_") and not name.startswith("_") else name
        if plain in NO_WORK or not _tensors((args, kwargs, result)):
            self.instructions.append(Instruction((), (), (args, result)))
        elif plain in CONSTANTS:
            self._elementwise("copy", (result.clone(),), result)
        elif name in ("stack", "cat"):
            self._join(name, args, result)
        elif name == "all":
            self._elementwise(name, _slices(args), result)
        elif plain in COPIES:
            self._elementwise("copy", args[:1], result)
        elif plain == "copy":
            self._elementwise(plain, args[1:2], result)
        elif plain in OPERATIONS and not {"alpha", "rounding_mode", "out"} & kwargs.keys():
            self._elementwise(plain, args, result)
        else:
            raise NotCaptured(f"{function} of {[tuple(x.shape) for x in _tensors(args)]}")
        return result

    def repeat(
        self, count: int, body: Callable[[Any], tuple[Any, Mapping[str, Tensor]]], carried: Any, until: str | None
    ) -> tuple[Any, dict[str, Tensor]]:
        """:func:`pgkit.compiler.control_flow.repeat` as a loop of the graph.

        What is carried lives in memory of the loop's own: each round begins where the last one has ended. While
        capturing, one round is executed, and what comes next computes with its numbers; the graph makes all rounds.
        """
        buffers = map_tree(torch.clone, carried)
        before = self.instructions
        round_instructions: list[Instruction] = []
        self.instructions = round_instructions
        after, terms = body(buffers)
        self.instructions = before
        totals = {name: torch.zeros_like(term) for name, term in terms.items()}
        self.instructions = round_instructions
        _end_round(buffers, after, totals, terms)
        work = [instruction for instruction in round_instructions if instruction.words]
        flag = () if until is None else (buffers[until].data_ptr(),)
        words = (*flag, *(word for instruction in work for word in instruction.words))
        operation = Repeat(count, tuple(instruction.operation for instruction in work), until is not None)
        self.instructions = [*before, Instruction(operation, words, (round_instructions, buffers))]
        return buffers, totals

    def _record_call(self, function: Any, arguments: Sequence[Any]) -> None:
        """A call of a compiled function, which repeats the call at the same address with the same arguments."""
        address = ctypes.cast(function, ctypes.c_void_p).value
        words = (address, *map(_word, arguments))
        is_address = tuple(parameter is ctypes.c_void_p for parameter in function.argtypes)
        self.instructions.append(Instruction(is_address, words, (function, arguments)))  # type: ignore[arg-type] # not None

    def _join(self, name: str, args: Sequence[Any], result: Tensor) -> None:
        """``stack`` and ``cat``: a copy of each part into its slice of the result."""
        parts = args[0]
        dim = args[1] if len(args) > 1 else 0
        lengths = [1 if name == "stack" else part.shape[dim] for part in parts]
        for part, slice_ in zip(parts, result.split(lengths, dim), strict=True):
            self._elementwise("copy", (part,), slice_)

    def _elementwise(self, name: str, args: Sequence[Any], result: Tensor) -> None:
        inputs = _tensors(args)
        # Comparisons compute in the type that both sides are promoted to; all others in the type of their result.
        compute_dtype = torch.result_type(*args[:2]) if name in COMPARISONS else result.dtype
        if torch.bool in (compute_dtype, result.dtype) and name not in TAKES_BOOLEANS | COMPARISONS:
            raise NotCaptured(f"{name} of booleans")
        if name in FLOATS_ONLY and not compute_dtype.is_floating_point:
            raise NotCaptured(f"{name} of integers")
        size = result.numel()
        input_types = tuple(_tensor_type(tensor, size, name) for tensor in inputs)
        output, _ = _tensor_type(result, size, name)
        arguments = tuple(... if isinstance(arg, Tensor) else arg for arg in args)
        operation = ElementwiseOp(name, arguments, compute_dtype, input_types, output, size)
        words = tuple(tensor.data_ptr() for tensor in (*inputs, result))
        self.instructions.append(Instruction(operation, words, (args, result)))


def _end_round(buffers: Any, after: Any, totals: Mapping[str, Tensor], terms: Mapping[str, Tensor]) -> None:
    """Add the terms of a round, and write what it carries to where the next round reads it."""
    for name, term in terms.items():
        totals[name].add_(term)
    pairs = list(zip(_tensors(buffers), _tensors(after), strict=True))
    places = {buffer.data_ptr() for buffer, _ in pairs}
    moves = [(buffer, tensor) for buffer, tensor in pairs if tensor is not buffer]
    # What one buffer takes from another has to be copied before that other one is overwritten.
    sources = [tensor.clone() if tensor.data_ptr() in places else tensor for _, tensor in moves]
    for (buffer, _), source in zip(moves, sources, strict=True):
        buffer.copy_(source)


def _tensor_type(tensor: Tensor, size: int, name: str) -> TensorType:
    if not tensor.is_cpu or not (tensor.is_contiguous() and tensor.numel() in (1, size)):
        raise NotCaptured(f"{name} of a tensor {tuple(tensor.shape)} that is not contiguous")
    return tensor.dtype, int(tensor.numel() == size)


def _slices(args: Sequence[Any]) -> list[Tensor]:
    """The tensors that a reduction along one axis combines element by element."""
    if len(args) < 2 or not isinstance(args[1], int):
        raise NotCaptured("all along no axis, or several")
    return list(args[0].unbind(args[1]))


def _tensors(tree: Any) -> list[Tensor]:
    if isinstance(tree, Tensor):
        return [tree]
    parts = tree.values() if isinstance(tree, Mapping) else tree if isinstance(tree, list | tuple) else ()
    return [tensor for part in parts for tensor in _tensors(part)]


def _word(argument: Any) -> int:
    """An argument of a compiled function as an integer of 64 bits."""
    if isinstance(argument, ctypes.Array):
        return ctypes.addressof(argument)
    return 0 if argument is None else int(argument)


class MemberBuffers(NamedTuple):
    """Tensors of many members, and the memory of a graph, which has room for one member.

    A graph works on one member at a time: it copies the member's row of each source into its workspace, works there,
    and copies the workspace to the member's row of each target. So the memory that is worked on stays in the cache.

    Attributes:
        sources: tensors ``(P, ...)``, contiguous, that rows are read from.
        targets: tensors ``(P, ...)``, contiguous, that rows are written to at the end.
        rows: for each of them int64 ``(M,)``: the rows of the M members that the graph is run for.
        workspace: for each of them the tensor ``(1, ...)`` that was captured.
    """

    sources: Sequence[Tensor]
    targets: Sequence[Tensor]
    rows: Sequence[Tensor]
    workspace: Sequence[Tensor]

    def table(self) -> Any:
        """An array with a :class:`BufferEntry` for each tensor."""
        words: list[int] = []
        for source, target, workspace, rows in zip(self.sources, self.targets, self.workspace, self.rows, strict=True):
            words += BufferEntry(
                source=source.data_ptr(),
                target=target.data_ptr(),
                workspace=workspace.data_ptr(),
                row_bytes=workspace.nbytes,
                rows=rows.data_ptr(),
            )
        return _array(words)


class GraphStatus(NamedTuple):
    """What became of the members that a graph was run for.

    Attributes:
        updates: int64 ``(M,)``, updates that were made and ok.
        ok: bool ``(M,)``, whether there was no update that was not ok. What is written of such a member is of no use.
    """

    updates: Tensor
    ok: Tensor


class Graph:
    """A captured update, to be repeated.

    Args:
        instructions: of :class:`Capture`; the memory of the tensors in them is the graph's workspace.
        ok: bool ``(1,)``, which the instructions write: whether the update succeeded.
        snapshot_due: likewise: whether a snapshot of the member is to be taken after this update.
        keep_going: likewise: whether another update may follow.
    """

    def __init__(
        self, instructions: Sequence[Instruction], ok: Tensor, snapshot_due: Tensor, keep_going: Tensor
    ) -> None:
        self._instructions = instructions  # they keep the memory alive
        self._flags = (ok, snapshot_due, keep_going)
        work = [instruction for instruction in instructions if instruction.words]
        self._words = _array([word for instruction in work for word in instruction.words])
        self._run = _compile_graph(tuple(instruction.operation for instruction in work))

    def run(self, members: int, max_updates: int, buffers: MemberBuffers, snapshots: MemberBuffers) -> GraphStatus:
        """Make up to ``max_updates`` updates of one member after the other.

        Args:
            members: M.
            max_updates: of each member.
            buffers: the state of members, which is read before and written after their updates.
            snapshots: tensors that are written whenever a snapshot is due.

        Returns:
            Status of each member; its updates end early at one that is not ok or that says not to keep going.
        """
        status = GraphStatus(torch.zeros(members, dtype=torch.int64), torch.ones(members, dtype=torch.bool))
        ok, snapshot_due, keep_going = self._flags
        arguments = GraphArguments(
            members=members,
            max_updates=max_updates,
            words=self._words,
            buffers=buffers.table(),
            buffer_count=len(buffers.workspace),
            snapshots=snapshots.table(),
            snapshot_count=len(snapshots.workspace),
            ok=ok.data_ptr(),
            snapshot_due=snapshot_due.data_ptr(),
            keep_going=keep_going.data_ptr(),
            updates=status.updates.data_ptr(),
            all_ok=status.ok.data_ptr(),
        )
        self._run(*arguments)
        return status


def _array(words: Sequence[int]) -> Any:
    return (ctypes.c_int64 * len(words))(*words)
