"""Capturing on CPU: what Python does with tensors, once, becomes a program that can do it again without Python.

As a CUDA graph, it repeats the same work in the same memory. It is made of calls of compiled functions, which leave a
word here (:func:`pgkit.compiler.jit.record_calls`), and of operations of PyTorch that work element by element and are
correctly
rounded, so that a loop of pgkit's own gives the same bits. What is neither is refused. Numbers that Python reads past
PyTorch (``tolist``, ``numpy``) are not seen here: who captures has to do something twice, and to compare.
"""

import ctypes
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from pgkit.compiler.graph_ops import (
    _COMPARISONS,
    _CONSTANT,
    _COPIES,
    _FREE,
    _OF_FLAGS,
    _OF_REALS,
    OPERATIONS,
    ColumnType,
    NotCaptured,
    Rows,
    Step,
)
from pgkit.compiler.jit import record_calls
from pgkit.compiler.lazy import lazy_kernel

_compile_graph = lazy_kernel("pgkit.compiler.graph_codegen:compile_graph")


class Capture(TorchDispatchMode):
    """A context: what happens to tensors inside is done, and written down.

    Attributes:
        steps: what was written down.

    Raises:
        NotCaptured: inside, where that is impossible.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.steps: list[Step] = []
        self._recording = record_calls(self._call)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # there is nothing to skip; PyTorch would import its compiler for that, which takes a second

    def __enter__(self) -> "Capture":
        self._recording.__enter__()
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self._recording.__exit__(*error)

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name, named = function.overloadpacket.__name__, kwargs or {}
        result = function(*args, **named)
        plain = name.removesuffix("_") if name.endswith("_") and not name.startswith("_") else name
        if plain in _FREE or not _tensors((args, named, result)):
            self.steps.append(Step((), (), (args, result)))  # nothing to be done, but its memory stays
        elif plain in _CONSTANT:
            self._rows("copy", (result.clone(),), result)
        elif name in ("stack", "cat"):
            self._join(name, args, result)
        elif name == "all":
            self._rows(name, _slices(args), result)
        elif plain in _COPIES:
            self._rows("copy", args[:1], result)
        elif plain == "copy":
            self._rows(plain, args[1:2], result)
        elif plain in OPERATIONS and not {"alpha", "rounding_mode", "out"} & named.keys():
            self._rows(plain, args, result)
        else:
            raise NotCaptured(f"{function} of {[tuple(x.shape) for x in _tensors(args)]}")
        return result

    def _call(self, function: Any, arguments: Sequence[Any]) -> None:
        words = (ctypes.cast(function, ctypes.c_void_p).value, *map(_word, arguments))
        kinds = tuple(kind is ctypes.c_void_p for kind in function.argtypes)
        self.steps.append(Step(kinds, words, (function, arguments)))  # type: ignore[arg-type] # an address, not None

    def _join(self, name: str, args: Sequence[Any], result: Tensor) -> None:
        parts, dim = args[0], args[1] if len(args) > 1 else 0
        lengths = [1 if name == "stack" else part.shape[dim] for part in parts]
        for part, place in zip(parts, result.split(lengths, dim), strict=True):
            self._rows("copy", (part,), place)

    def _rows(self, name: str, args: Sequence[Any], result: Tensor) -> None:
        inputs = _tensors(args)
        kind = torch.result_type(*args[:2]) if name in _COMPARISONS else result.dtype
        if torch.bool in (kind, result.dtype) and name not in _OF_FLAGS | _COMPARISONS:
            raise NotCaptured(f"{name} of what is true or not")
        if name in _OF_REALS and not kind.is_floating_point:
            raise NotCaptured(f"{name} of integers")
        memory = [_memory(tensor, result.numel(), name) for tensor in inputs]
        others = tuple(... if isinstance(arg, Tensor) else arg for arg in args)
        form = Rows(name, others, kind, tuple(memory), _memory(result, result.numel(), name)[0], result.numel())
        self.steps.append(Step(form, tuple(tensor.data_ptr() for tensor in (*inputs, result)), (args, result)))


def _memory(tensor: Tensor, count: int, name: str) -> ColumnType:
    if not tensor.is_cpu or not (tensor.is_contiguous() and tensor.numel() in (1, count)):
        raise NotCaptured(f"{name} of a tensor {tuple(tensor.shape)} that is not one number behind the other")
    return tensor.dtype, int(tensor.numel() == count)


def _slices(args: Sequence[Any]) -> list[Tensor]:
    """What a reduction along an axis is of."""
    if len(args) < 2 or not isinstance(args[1], int):
        raise NotCaptured("all along no axis, or several")
    return list(args[0].unbind(args[1]))


def _tensors(tree: Any) -> list[Tensor]:
    if isinstance(tree, Tensor):
        return [tree]
    parts = tree.values() if isinstance(tree, Mapping) else tree if isinstance(tree, list | tuple) else ()
    return [tensor for part in parts for tensor in _tensors(part)]


def _word(argument: Any) -> int:
    """An argument of a compiled function as 64 bits."""
    if isinstance(argument, ctypes.Array):
        return ctypes.addressof(argument)
    return 0 if argument is None else int(argument)


class MemberBuffers(NamedTuple):
    """Tensors that go between many members and the memory of a program, a row each.

    Attributes:
        sources: tensors ``(P, ...)`` that rows come from.
        targets: where they go when all is done.
        places: for each of them int64 ``(M,)``: which rows of it belong to the M members that the program is run for.
        here: the same ``(1, ...)`` in the program's memory.
    """

    sources: Sequence[Tensor]
    targets: Sequence[Tensor]
    places: Sequence[Tensor]
    here: Sequence[Tensor]

    def table(self) -> Any:
        """Five words for each tensor."""
        columns = zip(self.sources, self.targets, self.here, self.places, strict=True)
        words = [
            (source.data_ptr(), target.data_ptr(), here.data_ptr(), here.numel() * here.element_size(), own.data_ptr())
            for source, target, here, own in columns
        ]
        return _array([word for row in words for word in row])


class Graph:
    """What was captured, to be done again.

    Args:
        steps: see :class:`Capture`; the tensors in them stay where they are.
        fine: bool ``(1,)``, which they write: whether to go on.
        due: bool ``(1,)``, likewise: whether a copy is to be put aside.
        more: bool ``(1,)``, likewise: whether that was not all.
    """

    def __init__(self, steps: Sequence[Step], fine: Tensor, due: Tensor, more: Tensor) -> None:
        self._steps, self._flags = steps, (fine, due, more)
        work = [step for step in steps if step.words]
        self._words = _array([word for step in work for word in step.words])
        self._run = _compile_graph(tuple(step.form for step in work))

    def run(self, members: int, times: int, moves: MemberBuffers, aside: MemberBuffers) -> Tensor:
        """Do it so many times, for one member after the other.

        Args:
            members: M.
            times: how often, at most.
            moves: what a member has, before and after.
            aside: what is put aside of it whenever that is due.

        Returns:
            int64 ``(M,)``: how often it was done; or ``-1 - n`` where it was fine n times, and then not: what is
            written of such a member is of no use.
        """
        done = torch.zeros(members, dtype=torch.int64)
        arguments = [self._words, moves.table(), len(moves.here), aside.table(), len(aside.here)]
        self._run(members, times, *arguments, *(flag.data_ptr() for flag in self._flags), done.data_ptr())
        return done


def _array(words: Sequence[int]) -> Any:
    return (ctypes.c_int64 * len(words))(*words)
