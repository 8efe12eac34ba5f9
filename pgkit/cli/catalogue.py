"""``pgkit list`` and ``pgkit config``."""

from typing import Annotated

import typer

from pgkit.cli.arguments import ConfigName, Overrides
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


def config(config: ConfigName, overrides: Overrides = None) -> None:
    """Print a configuration as pgkit train would take it, with all keys and what each means.

    For example: pgkit config cartpole-ppo seeds=20 > mine.toml, then pgkit train mine.toml
    """
    with one_line_errors(only_prints=True):
        from pgkit.config.commented import to_commented_toml
        from pgkit.config.load import read_config, read_table
        from pgkit.config.names import is_comparison
        from pgkit.errors import PgkitError

        if is_comparison(read_table(config)):
            raise PgkitError(f"{config} is a comparison: pgkit compare {config} --dry-run prints its plan")
        settings, notes = read_config(config, overrides or ())
        for note in notes:
            typer.echo(f"warning: {note}", err=True)
        typer.echo(to_commented_toml(settings), nl=False)
