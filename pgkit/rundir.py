"""The directory of a run: never overwritten unasked, found again by path or name."""

import os
import shutil
from pathlib import Path

from pgkit.explain import unknown
from pgkit.types import PgkitError

RUNS = Path("runs")
"""Where runs go below the working directory."""


def check_run_directory(directory: Path, overwrite: bool = False) -> None:
    """Checks that :func:`create_run_directory` will succeed; touches nothing.

    Raises:
        PgkitError: something is there that may not be replaced, or the place is not writable.
    """
    try:
        taken = directory.is_dir() and any(directory.iterdir())
    except OSError as error:
        raise PgkitError(f"cannot read {directory}: {error.strerror}") from None
    if taken:
        is_run = (directory / "config.toml").is_file()
        if overwrite and not is_run:
            raise PgkitError(f"{directory} holds no run (no config.toml), so --overwrite does not delete it")
        if not overwrite:
            remedy = "--overwrite replaces it, " if is_run else ""
            raise PgkitError(f"{directory} already exists: {remedy}name=... or --out chooses another place")
    place = directory
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        raise PgkitError(f"cannot create {directory}: {place} is a file")
    if not os.access(place, os.W_OK | os.X_OK):
        raise PgkitError(f"cannot create {directory}: {place} is not writable")


def create_run_directory(directory: Path, overwrite: bool = False) -> None:
    """Creates ``directory``, empty, and its parents; with ``overwrite`` an older run there is deleted.

    Raises:
        PgkitError: as :func:`check_run_directory`.
    """
    check_run_directory(directory, overwrite)
    try:
        if overwrite and directory.exists():
            shutil.rmtree(directory)
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PgkitError(f"cannot create {directory}: {error.strerror or error}") from None


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
    raise PgkitError(unknown("run", path_or_name, runs, or_else="the path of a run directory"))
