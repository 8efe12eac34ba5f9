"""Errors as one line, and exit codes."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from pgkit.cli.tables import print_result


@contextmanager
def one_line_errors(only_prints: bool = False) -> Iterator[None]:
    """Turn errors into one line: exit code 2 for a mistake of the user, 1 for a failed run, 130 Ctrl-C, 143 SIGTERM.

    Args:
        only_prints: whether a command leaves nothing but what it prints, so that it fails if that cannot be printed.
    """
    try:
        yield
        _check_printed(only_prints)
    except KeyboardInterrupt as interrupt:
        typer.echo(str(interrupt) or "interrupted", err=True)
        raise typer.Exit(getattr(interrupt, "exit_code", 130)) from None
    except (MemoryError, RuntimeError) as error:
        if not (isinstance(error, MemoryError) or "allocate memory" in str(error) or "out of memory" in str(error)):
            raise
        typer.echo("error: out of memory: use fewer seeds, environments or steps, or smaller layers", err=True)
        raise typer.Exit(1) from None
    except ValueError as error:
        from pgkit.errors import PgkitError, format_error

        if not isinstance(error, PgkitError):
            raise
        if (
            result := getattr(error, "result", None)
        ) is not None:  # training finished, but its result could not be written
            print_result(result.table, result.summary, "Final evaluation")
        typer.echo(f"error: {format_error(error)}", err=True)
        raise typer.Exit(error.exit_code) from None


def _check_printed(only_prints: bool) -> None:
    """Say that standard output did not take everything."""
    from pgkit.errors import PgkitError
    from pgkit.system.output import printing_problem

    if (problem := printing_problem()) is None:
        return
    if only_prints:
        raise PgkitError(problem)
    typer.echo(f"note: {problem}", err=True)
