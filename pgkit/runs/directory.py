"""The directory of a run: never overwritten unasked, found again by path or name."""

import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from pgkit.errors import PgkitError, unknown_name
from pgkit.system.files import is_scrap, lock, writing

RUNS = Path("runs")
"""Where runs go below the working directory."""

LOCK = ".lock"
"""The file in a run directory that the process which writes there holds."""


def check_run_directory(directory: Path, overwrite: bool = False) -> None:
    """Checks that :func:`new_run` will succeed; touches nothing.

    Raises:
        PgkitError: something is there that may not be replaced, or the place is not writable.
    """
    try:
        taken = directory.is_dir() and any(_is_content(entry) for entry in directory.iterdir())
    except OSError as error:
        raise PgkitError(f"cannot read {directory}: {error.strerror}") from None
    if taken:
        is_run = (directory / "config.toml").is_file()
        if overwrite and not is_run:
            raise PgkitError(f"{directory} holds no run (no config.toml), so --overwrite does not delete it")
        if not overwrite:
            goes_on = "" if is_finished(directory) else f"pgkit resume {directory} continues it, "
            remedy = f"{goes_on}--overwrite replaces it, " if is_run else ""
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
    """Creates ``directory`` and its parents, and holds it; with ``overwrite`` an older run there is deleted.

    Raises:
        PgkitError: as :func:`check_run_directory`, or another process works there.
    """
    check_run_directory(directory, overwrite)
    with writing(directory, "create"):
        directory.mkdir(parents=True, exist_ok=True)
    with hold(directory):
        check_run_directory(directory, overwrite)
        with writing(directory, "create"):
            for entry in directory.iterdir():
                if entry.name != LOCK:
                    shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        yield


def hold(directory: Path) -> AbstractContextManager[None]:
    """Be the only process that works in a run directory.

    Raises:
        PgkitError: there is another.
    """
    return lock(directory / LOCK, f"another process is at work in {directory}")


def is_finished(directory: Path) -> bool:
    """Whether the run there has its result, the last thing that is written."""
    return (directory / "result.json").is_file()


def _is_content(entry: Path) -> bool:
    """What a killed start may have left behind is none."""
    return entry.name != LOCK and not is_scrap(entry)


def find_run(path_or_name: str) -> Path:
    """The run directory of that path, or of that name below ``runs/``.

    Raises:
        PgkitError: there is none.
    """
    for directory in (Path(path_or_name), RUNS / path_or_name):
        if (directory / "config.toml").is_file():
            return directory
    if Path(path_or_name).is_dir():
        raise PgkitError(f"{path_or_name} is not the directory of a run: it has no config.toml")
    runs = [entry.parent.name for entry in RUNS.glob("*/config.toml")]
    raise PgkitError(unknown_name("run", path_or_name, runs, or_else="the path of a run directory"))
