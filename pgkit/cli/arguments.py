"""Arguments that several commands have."""

from typing import Annotated

import typer

from pgkit.cli.completion import config_keys, config_names, run_names

ConfigName = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="Name of a shipped configuration, or path of a TOML file.",
        autocompletion=config_names,
    ),
]

Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE",
        help="Overrides, such as optimizer.lr=3e-3 seeds=20.",
        autocompletion=config_keys,
    ),
]

Run = Annotated[
    str, typer.Argument(metavar="RUN", help="Run directory, or its name below runs/.", autocompletion=run_names)
]
