"""``pgkit train`` and ``pgkit resume``."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pgkit.cli.arguments import ConfigName, Overrides, Run
from pgkit.cli.errors import one_line_errors
from pgkit.cli.tables import print_lines, print_result

if TYPE_CHECKING:
    from pgkit.config.schema import TrainConfig
    from pgkit.training.result import TrainResult


def train(
    config: ConfigName,
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="Directory of the run; default: runs/<name>.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing run.")] = False,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Processes that share the seeds; default: one per core, with at least 8 seeds each."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print neither header nor progress bar.")] = False,
    debug_numerics: Annotated[
        bool,
        typer.Option("--debug-numerics", help="Stop at the first NaN or infinity and name it (about twice as slow)."),
    ] = False,
) -> None:
    """Train one agent, or a population of them (seeds=20), and write a run directory.

    For example: pgkit train cartpole-actor-critic optimizer.name=sgd optimizer.lr=0.05 seed=3
    """
    with one_line_errors():
        from pgkit.config.load import read_config
        from pgkit.config.members import expand_seeds
        from pgkit.runs.directory import RUNS, as_directory, check_run_directory
        from pgkit.training.available import check_available

        start = as_directory("")
        settings, notes = read_config(config, overrides or ())
        shown = out or RUNS / settings.name
        directory = start / shown
        check_run_directory(directory, overwrite)
        backend, rescaling = check_available(settings)
        for note in notes:
            typer.echo(f"warning: {note}", err=True)
        if not quiet:
            _print_header(settings, shown, backend, rescaling)
        from pgkit.training.arguments import default_workers
        from pgkit.training.train import train as run

        result = run(
            expand_seeds(settings),
            directory,
            progress=not quiet,
            overwrite=overwrite,
            debug_numerics=debug_numerics,
            workers=workers or default_workers(settings),
        )
        _print_trained(result, shown)


def resume(
    run: Run,
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="steps=STEPS", help="As --steps; nothing else can be changed.")
    ] = None,
    steps: Annotated[str | None, typer.Option(help="Train on to this many steps per seed, such as 1e6.")] = None,
    member: Annotated[
        str | None, typer.Option(help="Continue only this member, such as seed-3, as a run in --out.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Directory of the run of --member.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Continue even if not exactly as before.")] = False,
    anyway: Annotated[bool, typer.Option("--anyway", hidden=True)] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print neither header nor progress bar.")] = False,
) -> None:
    """Continue a stopped run exactly where its last checkpoint left it, or train a run on (steps=1e6)."""
    with one_line_errors():
        from pgkit.errors import PgkitError
        from pgkit.runs.directory import find_run

        if anyway:
            raise PgkitError("--anyway is now called --force")
        directory = find_run(run)
        wanted = _wanted_steps(run, overrides or [], steps)
        from pgkit.training import resume

        if wanted is not None and not quiet:
            from pgkit.training.train_on import describe_more_steps

            print_lines(describe_more_steps(directory, wanted))
        result = resume.resume(directory, steps=wanted, member=member, out=out, force=force, progress=not quiet)
        if result is None:
            typer.echo(f"{directory} is finished, there is nothing to resume (--steps N trains it on)")
        else:
            _print_trained(result, out or directory)


def _print_header(config: "TrainConfig", directory: Path, backend: str, rescaling: Sequence[str]) -> None:
    """Print what will run."""
    from pgkit import optim

    seeds = config.seed_list
    lines = {
        "run": f"{config.name} -> {directory}",
        "environment": f"{config.env.id} ({backend}) x {config.envs_per_member}, {config.steps:,} steps per seed",
        **dict(zip(["actions"], rescaling, strict=False)),
        "agent": _settings_line(config.agent),
        "seeds": ", ".join(map(str, seeds)) if len(seeds) <= 20 else f"{len(seeds)}: {seeds[0]} ... {seeds[-1]}",
    }
    for group, settings in optim.describe(config.optimizer).items():
        lines[f"optimizer {group}".strip()] = _settings_line(settings)
    if config.init is not None:
        options = config.init.model_dump(exclude={"run"}, exclude_defaults=True)
        lines["init"] = _settings_line({"name": config.init.run, **options})
    print_lines(lines)


def _wanted_steps(run: str, overrides: Sequence[str], option: str | None) -> Any:
    """The steps that ``steps=1e6`` or ``--steps 1e6`` ask for; None without either."""
    from pgkit.config.overrides import parse_overrides
    from pgkit.errors import PgkitError

    parsed = parse_overrides([*overrides, *([] if option is None else [f"steps={option}"])])
    for path, _ in parsed:
        if path != ("steps",):
            raise PgkitError(
                f"{'.'.join(path)} stays as it is in a run that is resumed, only steps can grow: "
                f"pgkit train NAME init={run} {'.'.join(path)}=... begins a new run with its parameters"
            )
    if len(parsed) > 1:
        raise PgkitError("steps is stated more than once")
    return parsed[0][1] if parsed else None


def _settings_line(settings: Mapping[str, Any]) -> str:
    rest = [f"{key}={value}" for key, value in settings.items() if key != "name" and value is not None]
    return f"{settings['name']} ({', '.join(rest)})" if rest else str(settings["name"])


def _print_trained(result: "TrainResult", directory: Path) -> None:
    """Print the result of a run; exit with 1 if every member failed."""
    title = f"Final evaluation, {result.final.returns.shape[1]} episodes per seed"
    print_result(result.table, result.summary, title)
    remedy = f"; stopped by a callback: pgkit resume {directory} trains it on" if result.stopped else ""
    typer.echo(f"written to {directory}{remedy}")
    _exit_if_all_failed(result.table, directory)


def _exit_if_all_failed(rows: Sequence[Mapping[str, Any]], directory: Path) -> None:
    if all(row["failed"] for row in rows):
        what = "the run" if len(rows) == 1 else "every run"
        typer.echo(
            f"{what} failed: its numbers are not finite; the last good checkpoint is in {directory / 'checkpoints'}",
            err=True,
        )
        raise typer.Exit(1)
