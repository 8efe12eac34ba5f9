"""Loggers from their names in a configuration."""

import importlib
import importlib.util

from pgkit.errors import PgkitError
from pgkit.loggers.logger import MemberLogger

PACKAGES = {"wandb": ("wandb",), "mlflow": ("mlflow", "sqlalchemy", "alembic"), "trackio": ("trackio",), "csv": ()}
"""What each logger needs beside pgkit; the extra that installs it has its name."""


def make_logger(name: str) -> MemberLogger:
    """Make the callback of a logger other than ``"tensorboard"``.

    >>> from pgkit.loggers import make_logger
    >>> type(make_logger("csv")).__name__
    'MemberLogger'

    Raises:
        PgkitError: a package that it needs is not installed.
    """
    missing = [package for package in PACKAGES[name] if importlib.util.find_spec(package) is None]
    if missing:
        raise PgkitError(f"logger {name!r} needs the package {missing[0]}: pip install 'pgkit-rl[{name}]'")
    return MemberLogger(name, importlib.import_module(f"pgkit.loggers.{name}").open_run)
