"""``pgkit reproduce``."""

from pathlib import Path
from typing import Annotated

import typer

from pgkit.cli.comparison import FIGURES, print_plan
from pgkit.cli.errors import one_line_errors


def reproduce(
    study: Annotated[str, typer.Argument(metavar="STUDY", help="Name of a published study: henderson2018.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings of both plans, such as steps=100_000.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; default: one per core.")] = None,
    environments: Annotated[
        str | None, typer.Option(help="Environments of the study in place of those that are quick: mujoco.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Directory of the study; default: comparisons/<study>.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plans and their cost, write nothing.")] = False,
    report: Annotated[
        bool, typer.Option("--report", help="Write the page of what is stored, finished or not, and run nothing.")
    ] = False,
    figures: Annotated[bool, typer.Option("--figures/--no-figures", help=FIGURES)] = True,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print no progress.")] = False,
) -> None:
    """Run a published study again beside the same question asked our way, and judge its claims.

    The same command continues a study that was stopped. For example: pgkit reproduce henderson2018 --dry-run
    """
    from pgkit.errors import PgkitError, PgkitWarning
    from pgkit.system.output import warnings_as_lines

    with one_line_errors(only_prints=dry_run), warnings_as_lines(PgkitWarning):
        from pgkit.compare.api import COMPARISONS
        from pgkit.compare.reproduction import api
        from pgkit.compare.reproduction.catalogue import find_study
        from pgkit.system.cpu import available_cpus

        cores = workers or available_cpus()
        if report and (dry_run or overrides or environments):
            raise PgkitError("--report shows what is stored, so it goes with --out and --no-figures only")
        if dry_run:
            for plan, forecast in api.dry_run(study, overrides or (), cores, environments):
                print_plan(plan, forecast)
            return
        directory = api.study_directory(find_study(study), out)
        if report:
            api.report_study(study, directory, figures)
        else:
            api.reproduce(study, overrides or (), directory, cores, environments, progress=not quiet, figures=figures)
        typer.echo((directory / "summary.md").read_text(encoding="utf-8"))
        shown = out or COMPARISONS / study
        typer.echo(f"written to {shown} (open {shown / 'report.html'})")
