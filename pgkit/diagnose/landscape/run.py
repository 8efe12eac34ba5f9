"""Picture the return around the policies of a run: what ``pgkit landscape RUN`` does."""

import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from pgkit.diagnose.landscape.directions import COPIES
from pgkit.diagnose.landscape.lines import EPISODES
from pgkit.diagnose.landscape.measure import Measurements, measure, quantities_of
from pgkit.diagnose.landscape.present import figures_of, tables_of, words_of, write_landscape
from pgkit.diagnose.landscape.request import Request, Subject, find_subject
from pgkit.diagnose.landscape.results import Landscape
from pgkit.runs import provenance
from pgkit.runs.directory import as_directory


def landscape(
    directory: str | Path,
    member: str | int | None = None,
    *,
    at: str | float = "100",
    plane: str | None = None,
    to: str | None = None,
    seeds: Sequence[str | int] | None = None,
    lines: bool | None = None,
    grid: int = 21,
    episodes: int = 20,
    span: float | None = None,
    seed: int = 0,
    workers: int = 1,
    out: str | Path | None = None,
    progress: bool = False,
) -> Landscape:
    """Picture the return around a policy of a finished run: lines, a plane, or the path to another policy.

    >>> import pgkit.diagnose.landscape.run as pictures
    >>> around = pictures.landscape("runs/cartpole-actor-critic", member=3)  # doctest: +SKIP
    >>> print(around.words["lines"])  # doctest: +SKIP

    Args:
        directory: of the run; nothing in it changes but ``landscape/``.
        member: which member, by its label or seed; None for the one in the middle by its final evaluation.
        at: where in its training, in percent, or ``"best"``: where its evaluation was best.
        plane: ``"trajectory"`` (of its checkpoints), ``"curvature"`` (in which the return curves most), ``"random"`` or
            ``"none"``; by default the trajectory's, unless a path is asked for.
        to: the other end of a path, ``RUN[:MEMBER][@PERCENT]``.
        seeds: two members of the run, the ends of a path.
        lines: whether to follow lines and look for cliffs; by default unless a path is asked for.
        grid: policies along each side of the plane, odd.
        episodes: of each policy on the plane.
        span: how far the plane reaches from the policy, in lengths of an update; by default around the trajectory, or
            as far as the return has fallen by half, at most 64.
        seed: of all random numbers.
        workers: how many processes play.
        out: where the report goes; by default ``landscape/`` in the run.
        progress: whether to show a progress bar.

    Raises:
        PgkitError: there is no such run, member or point, it is not finished, it cannot be read, or the ends of a path
            do not fit; nothing is written.
    """
    started = time.perf_counter()
    request = Request(member, at, plane, to, seeds, lines, grid, episodes, span, seed)
    request.check()
    run_place = as_directory(directory)
    target = run_place / "landscape" if out is None else as_directory(out)
    subject = find_subject(run_place, request)
    measured = measure(subject, request, workers, progress)
    result = _present(subject, measured, request, run_place)
    result = replace(result, cost={"env_steps": measured.env_steps, "seconds": time.perf_counter() - started})
    write_landscape(result, target)
    return result


def _present(subject: Subject, measured: Measurements, request: Request, run_place: Path) -> Landscape:
    """What was measured as tables, sentences and figures."""
    words = words_of(subject, measured, request)
    return Landscape(
        run=str(run_place),
        member=subject.point.label,
        env_steps=subject.point.env_steps,
        share=subject.point.share,
        settings={**asdict(request), "line_episodes": EPISODES, "copies": COPIES},
        words=words,
        quantities=quantities_of(measured),
        tables=tables_of(subject, measured, request.plane_name),
        figures=figures_of(subject, measured, request, words),
        not_done=[*subject.not_done, *measured.not_done],
        versions={name: str(value) for name, value in provenance.collect([])["versions"].items()},
    )
