"""The command line: parse arguments, call the library, print tables.

Heavy modules are imported inside the commands, so that ``pgkit --help`` is immediate.
"""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from pgkit.compare.execution.forecast import Forecast
    from pgkit.compare.plan.plan import Plan
    from pgkit.config.schema import TrainConfig
    from pgkit.training.result import TrainResult

FIGURES = "Draw the figures of the report, which takes seconds."

app = typer.Typer(
    help="Policy gradients with pluggable optimizers: train populations of agents, see what the optimizer changes.",
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


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


@app.command(context_settings={"ignore_unknown_options": True})  # --seed 3 is an override
def train(
    config: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of a shipped configuration, or path of a TOML file.")
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Overrides, such as optimizer.lr=3e-3 seeds=20.")
    ] = None,
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
    with _one_line_errors():
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
        from pgkit.training.train import default_workers
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


@app.command()
def resume(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Run directory, or its name below runs/.")],
    steps: Annotated[str | None, typer.Option(help="Train on to this many steps per seed, such as 1e6.")] = None,
    member: Annotated[
        str | None, typer.Option(help="Continue only this member, such as seed-3, as a run in --out.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Directory of the run of --member.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Continue even if not exactly as before.")] = False,
    anyway: Annotated[bool, typer.Option("--anyway", hidden=True)] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print neither header nor progress bar.")] = False,
) -> None:
    """Continue a stopped run exactly where its last checkpoint left it, or train a run on (--steps 1e6)."""
    with _one_line_errors():
        from pgkit.errors import PgkitError
        from pgkit.runs.directory import find_run

        if anyway:
            raise PgkitError("--anyway is now called --force")
        directory = find_run(run)
        from pgkit.config.overrides import parse_overrides
        from pgkit.training import resume

        wanted = None if steps is None else parse_overrides([f"steps={steps}"])[0][1]  # 1e6 and 1_000_000, as in train
        result = resume.resume(directory, steps=wanted, member=member, out=out, force=force, progress=not quiet)
        if result is None:
            typer.echo(f"{directory} is finished, there is nothing to resume (--steps N trains it on)")
        else:
            _print_trained(result, out or directory)


@app.command()
def evaluate(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Run directory, or its name below runs/.")],
    episodes: Annotated[int, typer.Option(min=1, help="Episodes per seed.")] = 100,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="Take the most likely actions instead of sampled ones.")
    ] = False,
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of the episodes; 0 repeats the final evaluation of the run.")
    ] = 0,
    best: Annotated[
        bool, typer.Option("--best", help="Evaluate each seed at its best evaluation while training.")
    ] = False,
    backend: Annotated[str | None, typer.Option(help="As env.backend, such as gymnasium; default: the run's.")] = None,
) -> None:
    """Evaluate the trained agents of a run directory."""
    with _one_line_errors(only_prints=True):
        from pgkit.runs.directory import find_run

        directory = find_run(run)
        from pgkit.training.evaluate_run import evaluate_run

        result = evaluate_run(directory, episodes, deterministic, seed, best=best, backend=backend)
        if result.note is not None:
            typer.echo(f"note: {result.note}", err=True)
        actions = "most likely" if deterministic else "sampled"
        _print_result(result.table, result.summary, f"{directory}: {episodes} episodes per seed, {actions} actions")


@app.command(context_settings={"ignore_unknown_options": True})  # --seed 3 is an override
def compare(
    comparison: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of a shipped comparison, or path of a TOML file.")
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

    with _one_line_errors(only_prints=dry_run), warnings_as_lines(PgkitWarning):
        from pgkit.compare import api
        from pgkit.system.cpu import available_cpus
        from pgkit.system.files import absolute

        if ray_address and executor != "ray":
            raise PgkitError("--ray-address is for --executor ray")
        cores = workers or available_cpus()
        if dry_run:
            plan, forecast = api.dry_run(comparison, overrides or (), cores)
            _print_plan(plan, forecast)
            return
        start = absolute(Path())
        analysis = api.compare(
            comparison, overrides or (), out, cores, executor, ray_address, progress=not quiet, figures=figures
        )
        directory = out or api.COMPARISONS / analysis.plan["name"]
        typer.echo((start / directory / "summary.md").read_text(encoding="utf-8"))
        typer.echo(f"written to {directory} (open {directory / 'report.html'})")


@app.command()
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
    with _one_line_errors():
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


@app.command(name="list")
def list_(
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="agents, optimizers, configs or envs.")],
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Describe only this one, in full.")] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Measure the speed of all environments, not only of pgkit's own.")
    ] = False,
) -> None:
    """List agents, optimizers, configurations or environments, or describe one of them."""
    with _one_line_errors(only_prints=True):
        from pgkit.config import listing

        if name is None:
            _print_table(listing.overview(topic, measure), topic)
        else:
            typer.echo(listing.describe(topic, name))


def main() -> None:
    """Entry point of ``pgkit`` and ``python -m pgkit``."""
    from pgkit.system.garbage import collect_rarely
    from pgkit.system.output import tolerant_output

    collect_rarely()
    with suppress(OSError):  # modules of a user lie in the working directory; installed packages come first
        sys.path.append(os.getcwd())
    with tolerant_output():
        app(prog_name="pgkit")


@contextmanager
def _one_line_errors(only_prints: bool = False) -> Iterator[None]:
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
            _print_result(result.table, result.summary, "Final evaluation")
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


def _print_plan(plan: "Plan", forecast: "Forecast") -> None:
    """Print what a comparison would run, and about how long that takes."""
    arms, rates = ", ".join(plan.arms), ", ".join(f"{rate:g}" for rate in plan.rates)
    where = f"{len(next(iter(plan.settings.values())))} settings each" if plan.all_tuned else f"learning rates {rates}"
    _console().print(f"{plan.config.name}, {plan.config.tier} tier, {plan.config.track}: {arms} at {where}")
    for arm, space in plan.spaces.items():
        ranges = "; ".join(f"{name} {each}" for name, each in space.items())
        _console().print(f"  {arm}: {ranges}")
    _console().print(f"tuning seeds {len(plan.tuning_seeds)}, evaluation seeds {len(plan.evaluation_seeds)}")
    _print_table(forecast.rows, "Runs and steps, at most, and about how many minutes")
    _console().print(forecast.sentence)


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
    for key, text in lines.items():
        _console().print(f"{key:<{max(map(len, lines))}}  {text}")


def _settings_line(settings: Mapping[str, Any]) -> str:
    rest = [f"{key}={value}" for key, value in settings.items() if key != "name" and value is not None]
    return f"{settings['name']} ({', '.join(rest)})" if rest else str(settings["name"])


def _print_trained(result: "TrainResult", directory: Path) -> None:
    """Print the result of a run; exit with 1 if every member failed."""
    title = f"Final evaluation, {result.final.returns.shape[1]} episodes per seed"
    _print_result(result.table, result.summary, title)
    typer.echo(f"written to {directory}")
    _exit_if_all_failed(result.table, directory)


def _print_result(table: Sequence[Mapping[str, Any]], summary: Mapping[str, float], title: str) -> None:
    """Print one row per seed and, if there are several, their spread."""
    _print_table(table, title)
    if len(table) > 1:
        failed = {"failed": sum(row["failed"] for row in table)} if "failed" in table[0] else {}
        _print_table([{**summary, **failed}], "Mean returns over seeds")


def _print_table(rows: Sequence[Mapping[str, Any]], title: str) -> None:
    """Print rows with the same keys as a table, numbers flush right."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    for index, key in enumerate(rows[0] if rows else ()):
        numeric = all(type(row[key]) in (int, float) for row in rows)
        justify: Literal["left", "right"] = "right" if numeric else "left"
        table.add_column(key.replace("_", " "), justify=justify, no_wrap=index == 0, overflow="fold")
    for row in rows:
        table.add_row(*(_cell(key, value) for key, value in row.items()))
    _console().print(table)


def _console() -> "Console":
    """Return standard output, wide if it is not a terminal, so that each row stays on one line."""
    from rich.console import Console

    return Console(highlight=False, markup=False, soft_wrap=True, width=None if sys.stdout.isatty() else 160)


def _cell(key: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) and key != "seed" else str(value)


def _exit_if_all_failed(rows: Sequence[Mapping[str, Any]], directory: Path) -> None:
    if all(row["failed"] for row in rows):
        what = "the run" if len(rows) == 1 else "every run"
        typer.echo(
            f"{what} failed: its numbers are not finite; the last good checkpoint is in {directory / 'checkpoints'}",
            err=True,
        )
        raise typer.Exit(1)
