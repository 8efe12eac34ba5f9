"""Files that are never half written, files that one process at a time can lock, and JSON files."""

import errno
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from pgkit.errors import PgkitError

_TEMPORARY = ".tmp"


class WriteError(PgkitError):
    """The system refuses to write: the disk is full, rights are missing, the directory is gone."""


@contextmanager
def as_write_error(path: Path, verb: str = "write") -> Iterator[None]:
    """Turn an ``OSError`` inside the block into a :class:`WriteError` that says "cannot <verb> <path>: <reason>"."""
    try:
        yield
    except OSError as error:
        raise WriteError(f"cannot {verb} {path}: {error.strerror or error}") from error


def absolute(path: Path) -> Path:
    """The path from the root of the file system.

    Code of users may change the working directory (agents when they are imported, environments at any time), so a path
    is made absolute before any such code runs.

    Raises:
        PgkitError: the path is relative, and the working directory has been removed.
    """
    try:
        return path.absolute()
    except OSError as error:
        raise PgkitError(f"the working directory cannot be read: {error.strerror}") from None


def replace_file(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let ``write`` fill a temporary file in the same directory, then rename it: a crash leaves the old file whole.

    Missing parent directories are created.

    Raises:
        WriteError: the system refuses to write.
    """
    temporary: str | None = None
    try:
        with as_write_error(path):
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


@contextmanager
def replace_entries(directory: Path) -> Iterator[Path]:
    """Fill a hidden folder of ``directory`` inside the block, then move what is in it to ``directory``.

    A crash inside the block leaves all else in ``directory`` as it was; after it each file and folder is the old one or
    the new one, whole, folders first. What the block did not write stays. No other process may be writing there.

    Raises:
        WriteError: the system refuses to write.
    """
    with as_write_error(directory):
        directory.mkdir(parents=True, exist_ok=True)
        for path in directory.glob(f".*{_TEMPORARY}"):  # of a killed process
            shutil.rmtree(path, ignore_errors=True)
        temporary = Path(tempfile.mkdtemp(dir=directory, prefix=".", suffix=_TEMPORARY))
    try:
        new = temporary / "new"
        new.mkdir()
        yield new
        with as_write_error(directory):
            for entry in sorted(new.iterdir(), key=lambda path: (not path.is_dir(), path.name)):
                target = directory / entry.name
                if target.is_dir():  # a folder cannot replace another one
                    os.replace(target, temporary / entry.name)
                os.replace(entry, target)
            _sync_directory(directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Replace a text file (UTF-8); errors as :func:`replace_file`."""
    replace_file(path, lambda file: file.write(text.encode()))


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file whose content is an object.

    Raises:
        PgkitError: the file is missing or unreadable, or is not a JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PgkitError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise PgkitError(f"{path} is damaged: {error}") from None
    if not isinstance(content, dict):
        raise PgkitError(f"{path} is damaged: it holds no JSON object")
    return content


def remove_temporary_files(directory: Path) -> None:
    """Remove what a killed process left of :func:`replace_file`; no other process may be writing there."""
    for path in directory.glob(f".*{_TEMPORARY}"):
        path.unlink(missing_ok=True)


def is_temporary(path: Path) -> bool:
    """Whether this is a temporary file of :func:`replace_file`."""
    return path.name.startswith(".") and path.name.endswith(_TEMPORARY)


@contextmanager
def lock(path: Path, busy: str) -> Iterator[None]:
    """Hold an exclusive lock on a file inside the block; the system releases it when the process ends, however it ends.

    On a file system without locks the block runs unprotected.

    Args:
        path: the lock file, created when missing.
        busy: the error message if another process holds the lock.

    Raises:
        PgkitError: another process holds the lock, or the file cannot be opened.
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
    _locked.add(handle)
    try:
        yield
    finally:
        _locked.discard(handle)
        os.close(handle)


_locked: set[int] = set()


def _release_in_child() -> None:
    """Close the copies of lock files that a forked child inherits: they would keep the lock after the parent's end."""
    for handle in _locked:
        os.close(handle)
    _locked.clear()


os.register_at_fork(after_in_child=_release_in_child)


def _umask() -> int:
    """The umask of this process; the system only tells it to who sets it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _sync_directory(directory: Path) -> None:
    """Make a rename survive a power cut, where the system can."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
