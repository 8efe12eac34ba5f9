"""``pgkit tune``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pgkit.cli.arguments import ConfigName, Overrides
from pgkit.cli.errors import one_line_errors
from pgkit.cli.tables import print_lines, print_table

if TYPE_CHECKING:
    from pgkit.tune.report import TuneResult


def tune(
    config: ConfigName,
    overrides: Overrides = None,
    space: Annotated[
        list[str] | None,
        typer.Option(help="What varies: KEY=low:high[:log][:int], KEY=a,b,c or a TOML file; several are possible."),
    ] = None,
    n_trials: Annotated[int, typer.Option(min=1, help="Trials, those of earlier calls included.")] = 200,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; default: one per core.")] = None,
    population: Annotated[int, typer.Option(min=1, help="Trials that train together in a process.")] = 8,
    stretches: Annotated[
        int, typer.Option(min=1, help="Parts of training, between which bad trials end; 1: none does.")
    ] = 4,
    tuning_seeds: Annotated[int, typer.Option(min=1, help="Seeds that each trial trains on.")] = 3,
    report_seeds: Annotated[int, typer.Option(min=1, help="Fresh seeds of the result table.")] = 20,
    sampler_seed: Annotated[int, typer.Option(min=0, help="Seed of Optuna's sampler.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Directory of the search; default: tuning/<name>.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print no progress.")] = False,
) -> None:
    """Search for hyperparameters with Optuna; the same command continues a stopped search.

    For example: pgkit tune cartpole-actor-critic --space optimizer.lr=1e-4:1e-1:log --space optimizer.name=adam,rmsprop
    """
    with one_line_errors():
        from pgkit.tune.study import check_installed

        check_installed()
        from pgkit.system.cpu import available_cpus
        from pgkit.tune import api

        result = api.search(
            config,
            space or (),
            n_trials,
            overrides or (),
            out,
            workers or available_cpus(),
            population,
            stretches,
            tuning_seeds,
            report_seeds,
            sampler_seed,
            progress=not quiet,
        )
        directory = out or api.TUNING / result.config.name.removesuffix("-tuned")
        _print_result(result, tuning_seeds, report_seeds, directory)


def _print_result(result: "TuneResult", tuning_seeds: int, report_seeds: int, directory: Path) -> None:
    """Print what was found, on which seeds, and where it is."""
    from pgkit.tune.plan import REPORT_SEEDS_FROM

    fresh = f"{REPORT_SEEDS_FROM} to {REPORT_SEEDS_FROM + report_seeds - 1}"
    print_lines(
        {
            "trials": ", ".join(f"{count} {state}" for state, count in result.counts.items() if count),
            "tuning seeds": f"0 to {tuning_seeds - 1}: they chose the best trial, so its score there is too high",
            "fresh seeds": f"{fresh}: nothing was chosen by them",
            **{f"best {key}": f"{value}" for key, value in result.params.items()},
        }
    )
    print_table(result.table, "Mean return over all evaluations while training (score), and at the end")
    typer.echo(result.verdict)
    typer.echo(f"pgkit train {directory / 'best.toml'} trains the best trial; study: {directory / 'study.db'}")
