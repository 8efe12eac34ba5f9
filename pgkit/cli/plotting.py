"""``pgkit plot``."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from pgkit.cli.completion import run_names
from pgkit.cli.errors import one_line_errors


def plot(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN...", help="Run directories, or names below runs/.", autocompletion=run_names),
    ],
    out: Annotated[Path, typer.Option(help="File to write, .svg, .pdf or .png.")] = Path("learning-curves.png"),
    style: Annotated[
        Literal["default", "two-column"], typer.Option(help="two-column is as wide as a column of a paper.")
    ] = "default",
    metric: Annotated[
        str, typer.Option(help="return, or any metric that the runs have logged, such as policy/entropy.")
    ] = "return",
    labels: Annotated[
        str | None, typer.Option(help="Labels of the runs, such as 'Adam,SGD'; default: in what they differ.")
    ] = None,
) -> None:
    """Draw learning curves of runs: the median over seeds with its band, and each seed as a thin line.

    For example: pgkit plot runs/adam runs/sgd --out curves.pdf --style two-column
    """
    with one_line_errors():
        from pgkit.plots.learning import CAPTION, figure_of_runs
        from pgkit.plots.style import check_figure_file, save
        from pgkit.system.files import absolute

        check_figure_file(out)
        names = None if labels is None else [label.strip() for label in labels.split(",")]
        save(figure_of_runs(runs, metric, names, style), absolute(out))
        typer.echo(f"written to {out}: {CAPTION}")
