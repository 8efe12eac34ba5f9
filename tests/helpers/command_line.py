"""The command line, called as a user does."""

from typing import NamedTuple

from typer.testing import CliRunner

from pgkit.cli import app


class Outcome(NamedTuple):
    """What a command left behind."""

    exit_code: int
    stdout: str
    stderr: str


def pgkit(words: str) -> Outcome:
    """Runs the command line in this process."""
    result = CliRunner().invoke(app, words.split(), prog_name="pgkit")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Outcome(result.exit_code, result.stdout, result.stderr)
