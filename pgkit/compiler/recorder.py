"""Recorders of calls: how a capture learns which compiled functions were called. Imports no LLVM."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

Recorder = Callable[[Any, Sequence[Any]], None]
"""``recorder(function, arguments)``, called before each call of a compiled function."""


class _Recorders(threading.local):
    """The recorders of this thread: other threads may compute meanwhile."""

    def __init__(self) -> None:
        self.active: list[Recorder] = []
        self.capture: Any = None  # the pgkit.compiler.graph.Capture that this thread is in


recorders = _Recorders()


@contextmanager
def record_calls(recorder: Recorder) -> Iterator[None]:
    """A context in which ``recorder(function, arguments)`` sees each call of a compiled function by this thread."""
    recorders.active.append(recorder)
    try:
        yield
    finally:
        recorders.active.remove(recorder)
