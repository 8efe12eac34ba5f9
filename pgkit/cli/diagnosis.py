"""``pgkit diagnose`` and ``pgkit landscape``."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pgkit.cli.arguments import Run
from pgkit.cli.completion import run_names
from pgkit.cli.errors import one_line_errors
from pgkit.cli.tables import print_lines, print_table
from pgkit.system.processes import start_fork_server

if TYPE_CHECKING:
    from pgkit.diagnose.results import Diagnosis
    from pgkit.diagnose.settings import Settings


Subject = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help="Directory of a finished run or comparison, or a name below runs/.",
        autocompletion=run_names,
    ),
]
At = Annotated[str | None, typer.Option(metavar="SHARES", help="Where to look, in % of training, such as 0,5,50,100.")]
Critical = Annotated[
    int | None, typer.Option(min=0, help="How many points of a member are looked at closely; default: 3, or 2.")
]
Copies = Annotated[
    int | None,
    typer.Option(min=8, help="Copies of each point that train on; default: 64, or 32 where steps are not cheap."),
]


def diagnose(
    run: Subject,
    member: Annotated[str | None, typer.Option(help="Only this member, such as 3 or seed-3.")] = None,
    at: At = None,
    critical: Critical = None,
    copies: Copies = None,
    updates: Annotated[float, typer.Option(min=0, help="How far they train on, in % of training.")] = 2.0,
    episodes: Annotated[int, typer.Option(min=4, help="Episodes of each comparison of returns.")] = 20,
    curvature: Annotated[bool, typer.Option("--curvature/--no-curvature", help="Measure curvature.")] = True,
    interventions: Annotated[
        bool, typer.Option("--interventions/--no-interventions", help="Try what cures a fragile policy.")
    ] = True,
    from_saved: Annotated[
        bool,
        typer.Option(
            "--from-saved", help="Let copies begin in the checkpoints' environments, for the actual next update."
        ),
    ] = False,
    budget: Annotated[float | None, typer.Option(min=1, help="About how many seconds it may take.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of all measurements.")] = 0,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; default: one per core.")] = None,
    out: Annotated[Path | None, typer.Option(help="Directory of the report; default: diagnosis/ in the run.")] = None,
    again: Annotated[bool, typer.Option("--again", help="Measure anew what is already there.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be measured, and how long it takes.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress bar.")] = False,
) -> None:
    """Say why a run learnt, stalled or collapsed: what its next updates would do, and what would change that.

    For example: pgkit diagnose runs/cartpole-actor-critic --member 3
    """
    with one_line_errors(only_prints=dry_run):
        start_fork_server("pgkit.diagnose.tasks")
        from pgkit.diagnose import api
        from pgkit.runs.directory import as_directory, find_run
        from pgkit.system.cpu import available_cpus

        is_comparison = (as_directory(run) / "plan.json").is_file()
        directory = as_directory(run) if is_comparison else find_run(run)
        sizes = {"critical": critical, "copies": copies, "budget_share": updates / 100, "episodes": episodes}
        sizes |= {"seed": seed, "from_saved": from_saved}
        parts = {"curvature": curvature, "interventions": interventions, "directions": interventions}
        settings = _settings(None if is_comparison else directory, at, {**sizes, **parts})
        processes = workers or available_cpus()
        if is_comparison:
            _check_comparison({"--member": member, "--budget": budget, "--dry-run": dry_run or None})
            _diagnose_comparison(directory, settings, processes, out, again, quiet)
            return
        if dry_run:
            typer.echo(api.forecast_run(directory, settings, member, processes).in_words())
            return
        options: dict[str, Any] = {"again": again, "workers": processes, "budget": budget, "progress": not quiet}
        _print_diagnosis(
            api.diagnose(directory, settings, member=member, out=out, **options), out or directory / "diagnosis"
        )


def _settings(run: Path | None, at: str | None, sizes: Mapping[str, Any]) -> "Settings":
    """The usual sizes of a run, or of a comparison, and those that are stated."""
    from pgkit.diagnose.api import usual_settings_of
    from pgkit.diagnose.settings import Settings, parse_shares

    usual = Settings(critical=1) if run is None else usual_settings_of(run)
    shares = usual.shares if at is None else parse_shares(at)
    return replace(usual, shares=shares, **{name: value for name, value in sizes.items() if value is not None})


def _check_comparison(options: dict[str, Any]) -> None:
    """Refuse options that a comparison does not have."""
    from pgkit.errors import PgkitError

    for name, value in options.items():
        if value is not None:
            raise PgkitError(f"{name} has no effect on a comparison: it is for runs")


def _diagnose_comparison(
    directory: Path, settings: "Settings", workers: int, out: Path | None, again: bool, quiet: bool
) -> None:
    """Diagnose the arms of a comparison, and print what is said of each."""
    from pgkit.compare.diagnosis import diagnose_comparison

    diagnoses = diagnose_comparison(directory, settings, out=out, again=again, workers=workers, progress=not quiet)
    for name, diagnosis in diagnoses.items():
        _print_diagnosis(diagnosis, (out or directory / "diagnosis") / name / "diagnosis")
    if out is None:
        typer.echo(f'a line for each arm is in the section "why" of {directory / "report.html"}')


def _print_diagnosis(diagnosis: "Diagnosis", place: Path) -> None:
    """A row for each point, then what is said of each member."""
    rows = [
        {
            "member": point.member,
            "%": round(100 * point.share),
            **{
                title: point.quantities[name].value if name in point.quantities else None
                for title, name in (
                    ("return", "return/mean"),
                    ("after 1 update", "post_update/1/mean"),
                    ("after K", "post_update/K/mean"),
                    ("below half after K", "post_update/K/half_share"),
                    ("NSR", "noise/actor/nsr"),
                )
            },
        }
        for point in diagnosis.points
    ]
    print_table(rows, diagnosis.run)
    print_lines(diagnosis.summary)
    typer.echo(f"written to {place / 'report.html'}")


def landscape(
    run: Run,
    member: Annotated[
        str | None, typer.Option(help="Which member, such as 3 or seed-3; default: the middle one.")
    ] = None,
    at: Annotated[
        str, typer.Option(metavar="100|best|SHARE", help="Where in its training, in %, or at its best evaluation.")
    ] = "100",
    plane: Annotated[
        str | None, typer.Option(help="trajectory, curvature, random or none; default: trajectory.")
    ] = None,
    to: Annotated[
        str | None, typer.Option(metavar="RUN[:MEMBER][@SHARE]", help="Follow the path to this policy.")
    ] = None,
    seeds: Annotated[str | None, typer.Option(help="Follow the path between two members, such as 0,1.")] = None,
    lines: Annotated[bool | None, typer.Option("--lines/--no-lines", help="Follow lines, and look for cliffs.")] = None,
    grid: Annotated[int, typer.Option(help="Policies along each side of the plane, odd.")] = 21,
    episodes: Annotated[int, typer.Option(help="Episodes of each policy on the plane.")] = 20,
    span: Annotated[str, typer.Option(help="How far the plane reaches, in lengths of an update, or auto.")] = "auto",
    seed: Annotated[int, typer.Option(min=0, help="Seed of all measurements.")] = 0,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; default: one per core.")] = None,
    out: Annotated[Path | None, typer.Option(help="Directory of the report; default: landscape/ in the run.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say how much would be played, and how long it takes.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress bar.")] = False,
) -> None:
    """Picture the return around a policy: lines with cliffs, a plane with the way of training, a path to another one.

    For example: pgkit landscape runs/cartpole-actor-critic --seeds 0,1
    """
    with one_line_errors(only_prints=dry_run):
        from pgkit.diagnose.landscape.estimate import estimate
        from pgkit.diagnose.landscape.request import Request, parse_span
        from pgkit.diagnose.landscape.run import landscape as picture
        from pgkit.runs.directory import find_run
        from pgkit.system.cpu import available_cpus

        ends = None if seeds is None else [part.strip() for part in seeds.split(",")]
        asked: dict[str, Any] = {
            "member": member,
            "at": at,
            "plane": plane,
            "to": to,
            "seeds": ends,
            "lines": lines,
            "grid": grid,
        }
        asked |= {"episodes": episodes, "span": parse_span(span), "seed": seed}
        directory = find_run(run)
        processes = workers or available_cpus()
        if dry_run:
            print_lines(estimate(directory, Request(**asked), processes).in_words())
            return
        result = picture(directory, **asked, workers=processes, out=out, progress=not quiet)
        print_lines(result.words)
        for what, why in result.not_done:
            typer.echo(f"note: {what}: {why}", err=True)
        typer.echo(f"written to {(out or directory / 'landscape') / 'report.html'}")
