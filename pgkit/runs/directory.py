"""Run directories: created without overwriting anything, locked while a process writes, and found by path or name."""

import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from pgkit.config.names import shipped_configs
from pgkit.errors import PgkitError, unknown_name
from pgkit.system.files import absolute, as_write_error, is_temporary, lock

RUNS = Path("runs")
"""Where runs are recorded, below the working directory."""

LOCK = ".lock"
"""The file in a run directory that the process that writes there holds locked."""


def as_directory(value: str | Path) -> Path:
    """A directory given as a text or path, as an absolute path: see :func:`pgkit.system.files.absolute`.

    Raises:
        PgkitError: something else was given, or the working directory has been removed.
    """
    if not isinstance(value, str | Path):
        raise PgkitError(f"directory must be a str or a pathlib.Path, got {type(value).__name__}")
    return absolute(Path(value))


def check_run_directory(directory: Path, overwrite: bool = False) -> None:
    """Check that :func:`new_run` will succeed, without touching anything.

    Raises:
        PgkitError: something exists there that must not be replaced, or the place is not writable.
    """
    try:
        occupied = directory.is_dir() and any(_is_content(entry) for entry in directory.iterdir())
    except OSError as error:
        raise PgkitError(f"cannot read {directory}: {error.strerror}") from None
    if occupied:
        is_run = (directory / "config.toml").is_file()
        if overwrite and not is_run:
            raise PgkitError(f"{directory} holds no run (no config.toml), so --overwrite does not delete it")
        if not overwrite:
            resume = "" if is_finished(directory) else f"pgkit resume {directory} continues it, "
            remedy = f"{resume}--overwrite replaces it, " if is_run else ""
            raise PgkitError(f"{directory} already exists: {remedy}name=... or --out chooses another place")
    place = directory
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        raise PgkitError(f"cannot create {directory}: {place} is a file")
    if not os.access(place, os.W_OK | os.X_OK):
        raise PgkitError(f"cannot create {directory}: {place} is not writable")


@contextmanager
def new_run(directory: Path, overwrite: bool = False) -> Iterator[None]:
    """Create a run directory and its parents, and lock it; with ``overwrite`` an older run in it is deleted.

    Raises:
        PgkitError: as :func:`check_run_directory`, or another process is writing there.
    """
    check_run_directory(directory, overwrite)
    with as_write_error(directory, "create"):
        directory.mkdir(parents=True, exist_ok=True)
    with lock_run(directory):
        check_run_directory(directory, overwrite)
        with as_write_error(directory, "create"):
            for entry in directory.iterdir():
                if entry.name != LOCK:
                    shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        yield


def lock_run(directory: Path) -> AbstractContextManager[None]:
    """A context in which no other process writes to a run directory.

    Raises:
        PgkitError: another process is writing there.
    """
    return lock(directory / LOCK, f"another process is writing to {directory}")


def is_finished(directory: Path) -> bool:
    """Whether the run has its ``result.json``, which is written last."""
    return (directory / "result.json").is_file()


def reopen(directory: Path) -> None:
    """Make a finished run one that is not."""
    with as_write_error(directory, "change"):
        (directory / "result.json").unlink(missing_ok=True)


def _is_content(entry: Path) -> bool:
    """Whether an entry counts as content; what a start that was killed leaves behind does not."""
    return entry.name != LOCK and not is_temporary(entry)


def find_run(path_or_name: str) -> Path:
    """Find a run directory by its path, or by its name below ``runs/``.

    Raises:
        PgkitError: there is no such run.
    """
    for directory in (Path(path_or_name), RUNS / path_or_name):
        if (directory / "config.toml").is_file():
            return directory
    if Path(path_or_name).is_dir():
        raise PgkitError(f"{path_or_name} is not the directory of a run: it has no config.toml")
    runs = [entry.parent.name for entry in RUNS.glob("*/config.toml")]
    if path_or_name in shipped_configs():
        raise PgkitError(f"there is no run {RUNS / path_or_name}: pgkit train {path_or_name} makes it")
    raise PgkitError(unknown_name("run", path_or_name, runs, or_else="the path of a run directory"))
