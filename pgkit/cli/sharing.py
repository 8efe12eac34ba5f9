"""``pgkit export``."""

from pathlib import Path
from typing import Annotated

import typer

from pgkit.cli.arguments import Run
from pgkit.cli.errors import one_line_errors


def export(
    run: Run,
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The folder that others can load.")],
    member: Annotated[str | None, typer.Option(help="Which of several, such as 3 or seed-3.")] = None,
    best: Annotated[bool, typer.Option("--best", help="As it was at its best evaluation while training.")] = False,
    video: Annotated[bool, typer.Option("--video", help="Record an episode, too (replay.mp4).")] = False,
    push: Annotated[
        str | None, typer.Option(metavar="ORG/NAME", help="Upload the folder to the Hugging Face Hub.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an older export.")] = False,
) -> None:
    """Write one trained policy to a folder that pgkit.load reads, with a model card, or share it on the Hub.

    For example: pgkit export cartpole-ppo shared/cartpole --member 3 --best
    """
    with one_line_errors():
        from pgkit.deploy import hub

        if push is not None:
            hub.check_push(push)
        from pgkit.deploy.export import export as write

        folder = write(run, directory, member, best, video, overwrite)
        typer.echo(f"written to {directory}: {', '.join(sorted(path.name for path in folder.iterdir()))}")
        if push is not None:
            typer.echo(f"uploaded to {hub.push(folder, push)}")
