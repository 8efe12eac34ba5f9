"""``pgkit doctor``."""

import json
from typing import Annotated

import typer

from pgkit.cli.errors import one_line_errors
from pgkit.cli.tables import print_table


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs and bug reports.")] = False,
) -> None:
    """Say what is installed, how pgkit computes on this machine, and how to install what is missing."""
    with one_line_errors(only_prints=True):
        from pgkit.cli.installation import examine

        findings = examine()
        if as_json:
            typer.echo(json.dumps({each.what: each._asdict() for each in findings}, indent=2))
            return
        rows = [{"what": each.what, "found": each.text, "to get it": each.remedy} for each in findings]
        print_table(rows, "Nothing here is an error: what is missing is optional")
