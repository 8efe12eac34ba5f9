"""``pgkit compare`` and ``pgkit report``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pgkit.cli.completion import comparison_names
from pgkit.cli.errors import one_line_errors
from pgkit.cli.tables import console, print_table

if TYPE_CHECKING:
    from pgkit.compare.execution.forecast import Forecast
    from pgkit.compare.plan.plan import Plan

FIGURES = "Draw the figures of the report, which takes seconds."


def compare(
    comparison: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="Name of a shipped comparison, or path of a TOML file.",
            autocompletion=comparison_names,
        ),
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Overrides, such as tier=standard steps=100_000.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; default: one per core.")] = None,
    executor: Annotated[Literal["local", "ray"], typer.Option(help="Train on local processes or on Ray.")] = "local",
    ray_address: Annotated[
        str | None, typer.Option(help="Address of a Ray cluster; default: start one on this machine.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Directory of the comparison; default: comparisons/<name>.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and its cost, write nothing.")] = False,
    figures: Annotated[bool, typer.Option("--figures/--no-figures", help=FIGURES)] = True,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print no progress.")] = False,
) -> None:
    """Compare optimizers over learning rates and seeds; the same command continues a stopped comparison.

    For example: pgkit compare compare-cartpole tier=standard 'optimizers=["sgd","adam"]'
    """
    from pgkit.errors import PgkitError, PgkitWarning
    from pgkit.system.output import warnings_as_lines

    with one_line_errors(only_prints=dry_run), warnings_as_lines(PgkitWarning):
        from pgkit.compare import api
        from pgkit.system.cpu import available_cpus
        from pgkit.system.files import absolute

        if ray_address and executor != "ray":
            raise PgkitError("--ray-address is for --executor ray")
        cores = workers or available_cpus()
        if dry_run:
            plan, forecast = api.dry_run(comparison, overrides or (), cores)
            print_plan(plan, forecast)
            return
        start = absolute(Path())
        analysis = api.compare(
            comparison, overrides or (), out, cores, executor, ray_address, progress=not quiet, figures=figures
        )
        directory = out or api.COMPARISONS / analysis.plan["name"]
        typer.echo((start / directory / "summary.md").read_text(encoding="utf-8"))
        typer.echo(f"written to {directory} (open {directory / 'report.html'})")


def report(
    comparisons: Annotated[list[Path], typer.Argument(metavar="DIRECTORY", help="Directories of comparisons.")],
    out: Annotated[
        Path | None, typer.Option(help="Write one report of all of them, pooled, to this directory.")
    ] = None,
    figures: Annotated[bool, typer.Option("--figures/--no-figures", help=FIGURES)] = True,
) -> None:
    """Rebuild the reports of stored comparisons, finished or not; with --out, pool several into one report.

    Pooled comparisons may differ either in their environments and agents, or in their optimizers.
    """
    with one_line_errors():
        from pgkit.compare import api
        from pgkit.system.files import absolute

        if out is not None:
            api.build_pooled_report(comparisons, out, figures)
            typer.echo(f"written to {out} (open {out / 'report.html'})")
            return
        start = absolute(Path())
        for directory in comparisons:
            api.build_report(start / directory, figures)
            typer.echo(f"written to {directory} (open {directory / 'report.html'})")


def print_plan(plan: "Plan", forecast: "Forecast") -> None:
    """Print what a comparison would run, and about how long that takes."""
    arms, rates = ", ".join(plan.arms), ", ".join(f"{rate:g}" for rate in plan.rates)
    where = f"{len(next(iter(plan.settings.values())))} settings each" if plan.all_tuned else f"learning rates {rates}"
    console().print(f"{plan.config.name}, {plan.config.tier} tier, {plan.config.track}: {arms} at {where}")
    for arm, space in plan.spaces.items():
        ranges = "; ".join(f"{name} {each}" for name, each in space.items())
        console().print(f"  {arm}: {ranges}")
    console().print(f"tuning seeds {len(plan.tuning_seeds)}, evaluation seeds {len(plan.evaluation_seeds)}")
    print_table(forecast.rows, "Runs and steps, at most, and about how many minutes")
    console().print(forecast.sentence)
