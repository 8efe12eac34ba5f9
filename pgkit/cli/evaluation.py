"""``pgkit evaluate`` and ``pgkit play``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pgkit.cli.arguments import Run
from pgkit.cli.completion import policy_names
from pgkit.cli.errors import one_line_errors
from pgkit.cli.tables import print_result, print_table

if TYPE_CHECKING:
    from pgkit.deploy.policy import TrainedPolicy

Deterministic = Annotated[
    bool, typer.Option("--deterministic", help="Take the most likely actions instead of sampled ones.")
]


def evaluate(
    run: Run,
    episodes: Annotated[
        int | None, typer.Option(min=1, help="Episodes per seed; default: 100, or 1 that is shown.")
    ] = None,
    deterministic: Deterministic = False,
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of the episodes; 0 repeats the final evaluation of the run.")
    ] = 0,
    best: Annotated[
        bool, typer.Option("--best", help="Evaluate each seed at its best evaluation while training.")
    ] = False,
    backend: Annotated[str | None, typer.Option(help="As env.backend, such as gymnasium; default: the run's.")] = None,
    member: Annotated[str | None, typer.Option(help="Evaluate only this member, such as 3 or seed-3.")] = None,
    video: Annotated[
        Path | None, typer.Option(help="Record episodes of one member to this .mp4 instead; several are numbered.")
    ] = None,
    render: Annotated[bool, typer.Option("--render", help="Show episodes of one member in a window instead.")] = False,
) -> None:
    """Evaluate the trained agents of a run directory, or show one of them.

    For example: pgkit evaluate runs/cartpole-ppo --video cartpole.mp4 --episodes 3
    """
    with one_line_errors(only_prints=video is None):
        from pgkit.errors import PgkitError
        from pgkit.runs.directory import find_run

        directory = find_run(run)
        if render or video is not None:
            if backend not in (None, "gymnasium"):
                raise PgkitError(f"--backend {backend} has no effect: what is shown is Gymnasium's environment")
            from pgkit.deploy.load import load

            _check_shown(video, render)
            _show(load(directory, member, best), video, episodes or 1, deterministic, seed)
            return
        from pgkit.training.evaluate_run import evaluate_run

        count = episodes or 100
        result = evaluate_run(directory, count, deterministic, seed, best=best, backend=backend, member=member)
        if result.note is not None:
            typer.echo(f"note: {result.note}", err=True)
        actions = "most likely" if deterministic else "sampled"
        print_result(result.table, result.summary, f"{directory}: {count} episodes per seed, {actions} actions")


def play(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="A shipped policy; without it, list them.", autocompletion=policy_names),
    ] = None,
    episodes: Annotated[int, typer.Option(min=1, help="How many episodes.")] = 1,
    deterministic: Deterministic = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the episodes.")] = 0,
    video: Annotated[Path | None, typer.Option(help="Record to this .mp4 instead of opening a window.")] = None,
) -> None:
    """Show a trained policy that pgkit ships, in a window or in a video.

    For example: pgkit play lunarlander-ppo --video landing.mp4
    """
    with one_line_errors(only_prints=video is None):
        if name is None:
            from pgkit.config import listing

            print_table(listing.overview("pretrained"), "pretrained")
            typer.echo("pgkit play NAME shows one in a window, --video FILE.mp4 records it, pgkit list pretrained NAME")
            typer.echo("says where it is from")
            return
        from pgkit import pretrained

        path = pretrained.path(name)
        from pgkit.deploy.load import load

        _check_shown(video, video is None)
        _show(load(path), video, episodes, deterministic, seed)


def _check_shown(video: Path | None, window: bool) -> None:
    """Refuse what cannot be shown before anything is loaded."""
    from pgkit.deploy.show import check_video
    from pgkit.errors import PgkitError

    if video is not None:
        if window:
            raise PgkitError("--video and --render exclude each other: frames of a window cannot be recorded")
        check_video(video)


def _show(policy: "TrainedPolicy", video: Path | None, episodes: int, deterministic: bool, seed: int) -> None:
    """Show episodes, and print a row for each."""
    from pgkit.deploy.show import record_video, show_in_window

    if video is None:
        shown = show_in_window(policy, episodes, deterministic, seed)
    else:
        shown = record_video(policy, video, episodes, deterministic, seed)
    rows = [{"episode": k + 1, "return": one.total, "steps": one.length} for k, one in enumerate(shown)]
    actions = "most likely" if deterministic else "sampled"
    print_table(rows, f"{policy.source}: {policy.config.env.id}, {actions} actions")
    for one in shown:
        if one.video is not None:
            typer.echo(f"written to {one.video}")
