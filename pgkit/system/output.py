"""Streams for people to read: a message that cannot be printed is lost, and nothing else."""

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any


class TolerantStream:
    """A text stream that goes on without the stream below it: closed, full, missing, or of a narrow encoding.

    Args:
        stream: where text goes; None, as Python has it where a process was started without, takes nothing.

    Attributes:
        problem: why some text was lost; None as long as all could be written.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.problem: Exception | None = None

    def __getattr__(self, name: str) -> Any:
        try:
            return getattr(self._stream, name)
        except AttributeError:
            raise
        except Exception as error:  # libraries ask for what a stream may lack; one that raises has it not
            raise AttributeError(f"{name!r} of the stream raised {error!r}") from error

    @property
    def encoding(self) -> str:
        """The encoding of the stream."""
        with suppress(Exception):
            return self._stream.encoding or "utf-8"
        return "utf-8"

    def write(self, text: str) -> int:
        """Write what the encoding has, and question marks in place of the rest."""
        if not isinstance(text, str):
            raise TypeError(f"expected a text, got {type(text).__name__}")
        if self._stream is None:
            self.problem = self.problem or ValueError("it is closed")
            return len(text)
        try:
            self._stream.write(text.encode(self.encoding, "replace").decode(self.encoding))
        except Exception as error:
            self.problem = self.problem or error
        return len(text)

    def flush(self) -> None:
        """Write what is buffered."""
        if self._stream is None:
            return
        try:
            self._stream.flush()
        except Exception as error:
            self.problem = self.problem or error

    def isatty(self) -> bool:
        """Whether the stream is a terminal."""
        try:
            return bool(self._stream.isatty())
        except Exception:
            return False


@contextmanager
def tolerant_output() -> Iterator[None]:
    """Make standard output and standard error tolerant, for a process that is pgkit's own."""
    before = sys.stdout, sys.stderr
    tolerant = TolerantStream(sys.stdout), TolerantStream(sys.stderr)
    sys.stdout, sys.stderr = tolerant
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        for stream in tolerant:
            stream.flush()
            if stream.problem is not None:
                _discard(stream)


def printing_problem() -> str | None:
    """Why tolerant standard output did not take everything; a reader that has closed its pipe has read enough."""
    if not isinstance(sys.stdout, TolerantStream):
        return None
    sys.stdout.flush()
    problem = sys.stdout.problem
    if problem is None or isinstance(problem, BrokenPipeError):
        return None
    return f"cannot print to standard output: {getattr(problem, 'strerror', None) or problem}"


def _discard(stream: TolerantStream) -> None:
    """Lead a stream that failed to nowhere, so that Python does not fail when it flushes it at its end."""
    with suppress(Exception):  # no file is below it
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


@contextmanager
def warnings_as_lines(category: type[Warning]) -> Iterator[None]:
    """Print each warning of a category as one line on standard error, and show others as before."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", category)
        show_others = warnings.showwarning

        def show(message: Warning | str, of: type[Warning], *where: Any) -> None:
            if issubclass(of, category):
                print(f"warning: {message}", file=sys.stderr)
            else:
                show_others(message, of, *where)

        warnings.showwarning = show  # type: ignore[assignment] # it is called by position
        yield
