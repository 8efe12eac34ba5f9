"""Which policies a picture is about: a member at a point of its training, and the other end of a path."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pgkit.config.schema import TrainConfig
from pgkit.diagnose.points import Point, RunPoints, open_run
from pgkit.errors import PgkitError
from pgkit.logging import read_metrics
from pgkit.runs.directory import find_run
from pgkit.runs.reader import find_member

CHECKPOINTS = 51
"""How many checkpoints of its way a plane shows, at most."""


class Target(NamedTuple):
    """The other end of a path: ``RUN[:MEMBER][@SHARE]`` in words.

    >>> parse_target("runs/x:seed-3@50")
    Target(run='runs/x', member='seed-3', at='50')
    >>> parse_target("runs/x")
    Target(run='runs/x', member=None, at='100')

    Attributes:
        run: its directory or name.
        member: its label or seed; None for the only one, or the one of the same name.
        at: where in its training, as :func:`share_at` takes it.
    """

    run: str
    member: str | None
    at: str


def parse_target(text: str) -> Target:
    """Read ``RUN[:MEMBER][@SHARE]``."""
    rest, _, at = text.partition("@")
    run, _, member = rest.rpartition(":") if ":" in rest else (rest, "", "")
    return Target(run, member or None, at or "100")


def choose_member(place: Path, labels: Sequence[str], configs: Sequence[TrainConfig], member: str | int | None) -> int:
    """The position of a member: the one that is named, or that in the middle by its final evaluation.

    Raises:
        PgkitError: there is no such member.
    """
    if member is not None or len(labels) == 1:
        return find_member(place, labels, [config.seed for config in configs], member)
    try:
        rows = json.loads((place / "result.json").read_text(encoding="utf-8"))["members"]
        final = [float(row["return_mean"]) for row in rows]
    except (OSError, ValueError, KeyError, TypeError):
        raise PgkitError(f"{place / 'result.json'} cannot be read: --member names the member to look at") from None
    order = np.argsort(np.nan_to_num(final, nan=-np.inf), kind="stable")
    return int(order[(len(order) - 1) // 2])


def share_at(place: Path, at: str | float, position: int, steps: int) -> float:
    """The share of the budget that ``100``, ``best`` or another percentage names.

    Args:
        place: of the run.
        at: percentage, or ``best``: where the member's evaluation while training was best.
        position: of the member.
        steps: its budget.

    Raises:
        PgkitError: it is something else, or the member was not evaluated.
    """
    if at == "best":
        rows = read_metrics(place / "metrics.parquet")
        of_member = rows[(rows["member"] == position) & (rows["tag"] == "eval/return_mean")]
        if of_member.empty:
            raise PgkitError(f"{place} was not evaluated while it trained, so --at best names no point of it")
        return min(1.0, float(of_member.loc[of_member["value"].idxmax(), "step"]) / steps)
    try:
        share = float(at) / 100
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise PgkitError(f"--at takes a percentage between 0 and 100, or best, got {at!r}")
    return share


def points_of(run: RunPoints, position: int, shares: Sequence[float]) -> list[Point]:
    """One member at the checkpoints nearest to some shares of its budget, in order and each once."""
    points: dict[float, Point] = {}
    for share in shares:
        point = run.at((share,))[0][position]
        points[point.env_steps] = point
    return [points[env_steps] for env_steps in sorted(points)]


def other_end(target: Target, start: Point, place: Path) -> Point:
    """The policy at the other end of a path.

    Args:
        target: where it is.
        start: the end that is there already, whose environment both are played in.
        place: of its run.

    Raises:
        PgkitError: there is no such policy, or its networks do not fit.
    """
    other = find_run(target.run)
    member: str | None = target.member
    with open_run(other, ()) as run:
        if member is None and len(run.labels) > 1:
            member = start.label if start.label in run.labels else None
        position = find_member(other, run.labels, [config.seed for config in run.configs], member)
        share = share_at(other, target.at, position, run.configs[position].steps)
    with open_run(other, (share,)) as run:
        (end,) = points_of(run, position, (share,))
    if other.resolve() == place.resolve() and (end.label, end.env_steps) == (start.label, start.env_steps):
        raise PgkitError(f"both ends of the path are {end.label} at {end.env_steps:,.0f} steps: choose another --at")
    return end


def check_fits(start: Point, end: Point, name: str) -> None:
    """Check that parameters of one policy mean the same in the other, so that those between mean something.

    Raises:
        PgkitError: environments, layers or activations differ.
    """
    environments = [point.config.env.id for point in (start, end)]
    if environments[0] != environments[1]:
        raise PgkitError(f"{name} was trained in {environments[1]}, this run in {environments[0]}: no path joins them")
    shapes = [
        {key: tuple(leaf.shape[1:]) for key, leaf in point.params.items() if not key.startswith("critic.")}
        for point in (start, end)
    ]
    differing = [
        f"{key} is {shapes[1].get(key, 'missing')} there and {shapes[0].get(key, 'missing')} in this run"
        for key in {**shapes[0], **shapes[1]}
        if shapes[0].get(key) != shapes[1].get(key)
    ]
    for key in ("network", "activation", "layer_norm", "squash_output"):
        values = [getattr(point.config.policy, key) for point in (start, end)]
        if values[0] != values[1]:
            differing.append(f"policy.{key} is {values[1]} there and {values[0]} in this run")
    if differing:
        raise PgkitError(f"the networks of {name} do not fit: {'; '.join(differing)}")
