"""Files that are either old or new, never half written, and files that one process at a time holds."""

import errno
import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pgkit.errors import PgkitError

_TEMPORARY = ".tmp"


class WriteError(PgkitError):
    """The system refuses to write: a full disk, missing rights, a directory that is gone."""


@contextmanager
def writing(path: Path, verb: str = "write") -> Iterator[None]:
    """What the system refuses inside is an :class:`WriteError`: that it cannot be written (``verb``), and what."""
    try:
        yield
    except OSError as error:
        raise WriteError(f"cannot {verb} {path}: {error.strerror or error}") from error


def replace_file(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then rename it: a crash leaves the old file whole.

    Raises:
        Unwritable: the system refuses.
    """
    temporary: str | None = None
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=_TEMPORARY)
            with os.fdopen(handle, "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
                os.fchmod(file.fileno(), 0o666 & ~_umask())
            os.replace(temporary, path)
            temporary = None
            _sync_directory(path.parent)
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replace a text file (UTF-8) at once; errors as :func:`replace_file`."""
    replace_file(path, lambda file: file.write(text.encode()))


def sweep(directory: Path) -> None:
    """Remove the temporary files that a killed process has left here; nobody may be writing."""
    for path in directory.glob(f".*{_TEMPORARY}"):
        path.unlink(missing_ok=True)


def is_scrap(path: Path) -> bool:
    """Whether this is a temporary file of :func:`replace_file`."""
    return path.name.startswith(".") and path.name.endswith(_TEMPORARY)


@contextmanager
def lock(path: Path, busy: str) -> Iterator[None]:
    """Hold a file that one process at a time can hold; the system lets go of it when the process ends, however it ends.

    Where the file system knows no locks, nothing is held.

    Raises:
        PgkitError: another process holds it (the message is ``busy``), or the system refuses to open it.
    """
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise PgkitError(f"cannot open {path}: {error.strerror}") from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            os.close(handle)
            raise PgkitError(busy) from None
    _held.add(handle)
    try:
        yield
    finally:
        _held.discard(handle)
        os.close(handle)


_held: set[int] = set()


def _let_go() -> None:
    """A forked child has copies of what its parent holds, and would hold them on after the parent's end."""
    for handle in _held:
        os.close(handle)
    _held.clear()


os.register_at_fork(after_in_child=_let_go)


def _umask() -> int:
    """The process's umask; it can only be read by setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _sync_directory(directory: Path) -> None:
    """Make a rename outlive a power cut, where the system can."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
