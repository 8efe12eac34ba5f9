"""The command line: parse arguments, call the library, print tables.

``training``, ``evaluation``, ``comparison``, ``reproduction``, ``tuning``, ``sharing``, ``diagnosis``, ``plotting``,
``catalogue`` and ``doctor`` hold the commands; ``errors`` and ``group`` make one line and an exit code of an error;
``completion`` is for the tab key; ``tables`` prints. Heavy modules are imported inside the commands, so that
``pgkit --help`` is immediate.
"""

import os
import sys
from contextlib import suppress
from typing import Annotated

import typer

from pgkit.cli import (
    catalogue,
    comparison,
    diagnosis,
    doctor,
    evaluation,
    plotting,
    reproduction,
    sharing,
    training,
    tuning,
)
from pgkit.cli.group import Commands

app = typer.Typer(
    help="Policy gradients with pluggable optimizers: train populations of agents, see what the optimizer changes.",
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    cls=Commands,
    pretty_exceptions_enable=False,
)

TAKES_OVERRIDES = {"ignore_unknown_options": True}
"""Settings of commands with overrides: ``--seed 3`` is one, too."""

app.command(context_settings=TAKES_OVERRIDES)(training.train)
app.command(context_settings=TAKES_OVERRIDES)(training.resume)
app.command()(evaluation.evaluate)
app.command()(evaluation.play)
app.command()(sharing.export)
app.command(context_settings=TAKES_OVERRIDES)(comparison.compare)
app.command()(comparison.report)
app.command(context_settings=TAKES_OVERRIDES)(reproduction.reproduce)
app.command(context_settings=TAKES_OVERRIDES)(tuning.tune)
app.command()(plotting.plot)
app.command()(diagnosis.diagnose)
app.command()(diagnosis.landscape)
app.command(name="list")(catalogue.list_)
app.command(context_settings=TAKES_OVERRIDES)(catalogue.config)
app.command()(doctor.doctor)


def _print_version(requested: bool) -> None:
    if requested:
        from importlib.metadata import version

        typer.echo(f"pgkit {version('pgkit-rl')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Options of ``pgkit`` itself."""


def main() -> None:
    """Entry point of ``pgkit`` and ``python -m pgkit``."""
    from pgkit.system.garbage import collect_rarely
    from pgkit.system.output import tolerant_output

    collect_rarely()
    with suppress(OSError):  # modules of a user lie in the working directory; installed packages come first
        sys.path.append(os.getcwd())
    with tolerant_output():
        app(prog_name="pgkit")
