"""What a picture is asked for, and for which policies."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np

from pgkit.diagnose.landscape.targets import (
    CHECKPOINTS,
    check_fits,
    choose_member,
    other_end,
    parse_target,
    points_of,
    share_at,
)
from pgkit.diagnose.points import Point, open_run
from pgkit.errors import PgkitError
from pgkit.runs import checkpoint
from pgkit.runs.directory import find_run, is_finished
from pgkit.runs.reader import find_member

PlaneName = Literal["trajectory", "curvature", "random", "none"]

MIN_EPISODES = 4


@dataclass(frozen=True)
class Request:
    """What is asked for; see :func:`pgkit.diagnose.landscape.run.landscape`.

    Attributes:
        member: label or seed; None for the member in the middle.
        at: percentage of training, or ``best``.
        plane: which plane; None: along the trajectory, unless a path is asked for.
        to: the other end of a path, ``RUN[:MEMBER][@SHARE]``.
        seeds: two members, the ends of a path.
        lines: whether lines are played; None: unless a path is asked for.
        grid: policies along each side of a plane.
        episodes: E of each of them.
        span: how far planes reach from the policy, in lengths of an update; None: see the README.
        seed: of all random numbers.
    """

    member: str | int | None = None
    at: str | float = "100"
    plane: str | None = None
    to: str | None = None
    seeds: Sequence[str | int] | None = None
    lines: bool | None = None
    grid: int = 21
    episodes: int = 20
    span: float | None = None
    seed: int = 0

    @property
    def wants_path(self) -> bool:
        """Whether there is a path."""
        return self.to is not None or self.seeds is not None

    @property
    def wants_lines(self) -> bool:
        """Whether there are lines."""
        return not self.wants_path if self.lines is None else self.lines

    @property
    def plane_name(self) -> str:
        """Which plane there is; ``none`` without one."""
        if self.plane is None:
            return "none" if self.wants_path else "trajectory"
        return self.plane

    def check(self) -> None:
        """Check all that can be checked without the run.

        Raises:
            PgkitError: something cannot be.
        """
        if self.plane_name not in get_args(PlaneName):
            raise PgkitError(f"--plane must be one of {', '.join(get_args(PlaneName))}, got {self.plane!r}")
        if self.grid < 3 or self.grid % 2 == 0:
            raise PgkitError(f"--grid must be odd and at least 3, so that its middle is a policy, got {self.grid}")
        if self.episodes < MIN_EPISODES:
            raise PgkitError(f"--episodes must be at least {MIN_EPISODES}, got {self.episodes}")
        if self.span is not None and not 0 < self.span < float("inf"):
            raise PgkitError(f"--span must be auto or above 0, in lengths of an update, got {self.span:g}")
        if self.seeds is not None and len(set(map(str, self.seeds))) != 2:
            raise PgkitError("--seeds takes two different members, such as 0,1")
        if self.seeds is not None and (self.to is not None or self.member is not None):
            raise PgkitError("--seeds names both ends of a path: --to and --member do not go with it")
        if not (self.wants_path or self.wants_lines or self.plane_name != "none"):
            raise PgkitError("--no-lines and --plane none leave nothing to draw")


@dataclass(frozen=True)
class Subject:
    """The policies that a picture is about.

    Attributes:
        point: the policy in the middle, or at the start of a path.
        way: its checkpoints from the first to ``point``, if the plane shows them.
        end: the other end of a path.
        chosen_of: among how many members it was chosen as the middle one; 0 if it was named or is the only one.
        not_done: what is missing, and why.
    """

    point: Point
    way: Sequence[Point] = ()
    end: Point | None = None
    chosen_of: int = 0
    not_done: Sequence[tuple[str, str]] = field(default=())


def parse_span(text: str) -> float | None:
    """Read ``auto``, which is None, or a number.

    Raises:
        PgkitError: it is something else.
    """
    if text == "auto":
        return None
    try:
        return float(text)
    except ValueError:
        raise PgkitError(f"--span must be auto or a number of lengths of an update, got {text!r}") from None


class Located(NamedTuple):
    """Where the policies are.

    Attributes:
        positions: of one member, or of the two ends of a path.
        share: of the budget at which they are.
        shares: at which checkpoints are wanted, the last is ``share``.
    """

    positions: list[int]
    share: float
    shares: list[float]


def locate(place: Path, request: Request) -> Located:
    """Find members and points of a run without loading any of them.

    Raises:
        PgkitError: there is no such run, member or point.
    """
    if is_finished(place) and not checkpoint.checkpoints_in(place / "checkpoints"):
        raise PgkitError(f"{place} has no checkpoints, so that its policies are gone: train it again")
    with open_run(place, ()) as run:
        if request.seeds is None:
            positions = [choose_member(place, run.labels, run.configs, request.member)]
        else:
            seeds = [config.seed for config in run.configs]
            positions = [find_member(place, run.labels, seeds, each) for each in request.seeds]
        share = share_at(place, request.at, positions[0], run.configs[positions[0]].steps)
    if request.to is not None:
        find_run(parse_target(request.to).run)
    with_way = request.plane_name == "trajectory"
    return Located(positions, share, np.linspace(0, share, CHECKPOINTS).tolist() if with_way else [share])


def find_subject(place: Path, request: Request) -> Subject:
    """Load the policies.

    Args:
        place: of the run.
        request: what is asked for.

    Raises:
        PgkitError: there is no such run, member or point, or the ends of a path do not fit.
    """
    positions, share, shares = locate(place, request)
    with open_run(place, shares) as run:
        way = points_of(run, positions[0], shares)
        ends = [points_of(run, position, (share,))[0] for position in positions[1:]]
        not_done = [("checkpoints between those on disk", run.missing)] if run.missing else []
        named = request.member is not None or request.seeds is not None or len(run.labels) == 1
        chosen_of = 0 if named else len(run.labels)
    point = way[-1]
    if request.plane_name == "trajectory" and len(way) < 3:
        raise PgkitError(
            f"{place} has {len(way)} checkpoints up to there, a plane through its training needs 3: use --plane random"
        )
    if request.to is not None:
        ends = [other_end(parse_target(request.to), point, place)]
    for end in ends:
        check_fits(point, end, request.to or end.label)
    shown = way if request.plane_name == "trajectory" else ()
    return Subject(point, shown, ends[0] if ends else None, chosen_of, not_done)
