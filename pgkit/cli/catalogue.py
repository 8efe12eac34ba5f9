"""``pgkit list``."""

from typing import Annotated

import typer

from pgkit.cli.completion import topics
from pgkit.cli.errors import one_line_errors
from pgkit.cli.tables import print_table


def list_(
    topic: Annotated[
        str,
        typer.Argument(metavar="TOPIC", help="agents, optimizers, configs, envs or pretrained.", autocompletion=topics),
    ],
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Describe only this one, in full.")] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Measure the speed of all environments, not only of pgkit's own.")
    ] = False,
) -> None:
    """List agents, optimizers, configurations, environments or shipped policies, or describe one of them."""
    with one_line_errors(only_prints=True):
        from pgkit.config import listing

        if name is None:
            print_table(listing.overview(topic, measure), topic)
        else:
            typer.echo(listing.describe(topic, name))
