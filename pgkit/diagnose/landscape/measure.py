"""Measure lines, a path and a plane around a policy."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from pgkit.diagnose.evidence import mean_quantity
from pgkit.diagnose.landscape.cuts import Cut, Played, play_cuts
from pgkit.diagnose.landscape.directions import (
    COPIES,
    RANDOM_DIRECTIONS,
    UpdateDirections,
    curvature_directions,
    random_directions,
    stack,
    update_directions,
)
from pgkit.diagnose.landscape.lines import (
    ALPHAS,
    EPISODES,
    Cliff,
    falls_at,
    find_cliff,
    line_coordinates,
    split_lines,
)
from pgkit.diagnose.landscape.paths import Barrier, barrier, path_coordinates
from pgkit.diagnose.landscape.planes import (
    Plane,
    Projection,
    centered_grid,
    grid_coordinates,
    plane_of,
    project,
    span_of_falls,
    trajectory_grid,
    trajectory_plane,
)
from pgkit.diagnose.landscape.request import Request, Subject
from pgkit.diagnose.play import without_skill
from pgkit.diagnose.points import Point
from pgkit.diagnose.results import Quantity
from pgkit.diagnose.vectors import actor_names, flatten_params
from pgkit.errors import PgkitError
from pgkit.stats.samples import FloatArray

Play = Callable[[Sequence[Cut]], Played]


@dataclass
class Lines:
    """Lines through a policy.

    Attributes:
        returns: ``(K, E)`` by direction, at :data:`pgkit.diagnose.landscape.lines.ALPHAS`.
        cliff: what they show.
    """

    returns: dict[str, FloatArray]
    cliff: Cliff

    @property
    def fallen(self) -> Quantity | None:
        """The return at the cliff."""
        if self.cliff.direction is None:
            return None
        return mean_quantity(self.returns[self.cliff.direction][self.cliff.alpha == ALPHAS][0])


@dataclass
class PlayedPlane:
    """A plane, and the returns on it.

    Attributes:
        plane: its directions.
        x: ``(X,)``, in units.
        y: ``(Y,)``.
        returns: ``(Y * X, E)``, row by row.
        unit: the length of 1 in parameters.
        way: where checkpoints are, in units, if it shows them.
        way_returns: ``(C, E)``, of the checkpoints.
        shadow_returns: ``(C, E)``, of their shadows on the plane.
    """

    plane: Plane
    x: FloatArray
    y: FloatArray
    returns: FloatArray
    unit: float
    way: Projection | None = None
    way_returns: FloatArray = field(default_factory=lambda: np.empty((0, 0)))
    shadow_returns: FloatArray = field(default_factory=lambda: np.empty((0, 0)))


@dataclass
class Measurements:
    """All that was measured.

    Attributes:
        center: ``(E,)``, returns of the policy.
        random: ``(E,)``, returns of random actions.
        updates: what the run would do next; None where nothing needed it.
        lines: if asked for.
        path: returns ``(K, E)``, and the barrier.
        plane: if asked for.
        not_done: what could not be measured, and why.
        env_steps: environment steps that all took.
    """

    center: FloatArray
    random: FloatArray
    updates: UpdateDirections | None = None
    lines: Lines | None = None
    path: tuple[FloatArray, Barrier] | None = None
    plane: PlayedPlane | None = None
    not_done: list[tuple[str, str]] = field(default_factory=list)
    env_steps: float = 0.0


def measure(subject: Subject, request: Request, workers: int = 1, progress: bool = False) -> Measurements:
    """Measure all that is asked for."""

    def play(cuts: Sequence[Cut]) -> Played:
        played = play_cuts(cuts, request.seed, workers, progress)
        measured.env_steps += played.env_steps
        return played

    point = subject.point
    measured = Measurements(np.empty(0), np.empty(0))
    directions = _directions(point, request, measured)
    cuts = {"center": Cut.at(point, EPISODES), "random": Cut.at(point, EPISODES, without_skill(point.params))}
    unit = measured.updates.unit if measured.updates is not None else 0.0
    if directions:
        axes = stack(directions) * unit
        cuts["lines"] = Cut.around(point, axes, line_coordinates(len(directions)), EPISODES)
    if subject.end is not None:
        cuts["path"] = Cut.through([point, subject.end], path_coordinates(), EPISODES)
    played = play(list(cuts.values()))
    returns = dict(zip(cuts, played.returns, strict=True))
    measured.center, measured.random = returns["center"][0], returns["random"][0]
    if "path" in returns:
        measured.path = returns["path"], barrier(returns["path"])
    lines = split_lines(returns["lines"], list(directions)) if directions else {}
    if request.wants_lines and lines:
        cliff = find_cliff(lines, ALPHAS, measured.center, float(measured.random.mean()))
        measured.lines = Lines(lines, cliff)
    if request.plane_name != "none":
        _measure_plane(subject, request, directions, lines, measured, play)
    return measured


def _directions(point: Point, request: Request, measured: Measurements) -> dict[str, Tensor]:
    """The directions of lines; empty where no line is played, or has no unit."""
    plane = request.plane_name
    if not request.wants_lines and plane == "none":
        return {}
    measured.updates = updates = update_directions(point, request.seed, COPIES)
    measured.env_steps += updates.env_steps
    if not updates.unit > 0:
        measured.not_done.append(("lines", "updates leave the policy as it is, so they have no length to measure in"))
        return {}
    directions: dict[str, Tensor] = {}
    if request.wants_lines:
        directions |= updates.vectors
    if request.wants_lines or plane == "random":
        directions |= random_directions(point.params, RANDOM_DIRECTIONS, request.seed)
    if plane == "curvature":
        curved, env_steps = curvature_directions(point, request.seed)
        directions |= curved
        measured.env_steps += env_steps
    return directions


def _measure_plane(
    subject: Subject,
    request: Request,
    directions: Mapping[str, Tensor],
    lines: Mapping[str, FloatArray],
    measured: Measurements,
    play: Play,
) -> None:
    unit = measured.updates.unit if measured.updates is not None else 0.0
    if request.plane_name == "trajectory":
        measured.plane = _trajectory(subject, request, unit, play)
        return
    names = {"curvature": ("top", "bottom"), "random": ("random-1", "random-2")}[request.plane_name]
    if not directions:
        measured.not_done.append(("plane", "updates leave the policy as it is, so they have no length to measure in"))
        return
    plane = plane_of(*(directions[name] for name in names))
    falls = falls_at({name: lines[name] for name in names}, ALPHAS, measured.center, float(measured.random.mean()))
    x, y = centered_grid(request.span or span_of_falls(falls), request.grid)
    cut = Cut.around(subject.point, plane.axes * unit, grid_coordinates(x, y), request.episodes)
    measured.plane = PlayedPlane(plane, x, y, play([cut]).returns[0], unit)


def _trajectory(subject: Subject, request: Request, unit: float, play: Play) -> PlayedPlane:
    """The plane of the checkpoints, with them and their shadows."""
    names = actor_names(subject.point.params)
    checkpoints = torch.cat([flatten_params(point.params, names) for point in subject.way])
    try:
        plane = trajectory_plane(checkpoints)
    except ValueError:
        raise PgkitError(
            f"the checkpoints of {subject.point.label} lie on one line, which spans no plane: use --plane random"
        ) from None
    scale = unit if unit > 0 else 1.0
    way = project(plane, checkpoints[-1], checkpoints)
    way = Projection(way.coordinates / scale, way.distances / scale)
    if request.span is None:
        x, y = trajectory_grid(way.coordinates, request.grid)
    else:
        x, y = centered_grid(request.span, request.grid)
    axes = plane.axes * scale
    cuts = [
        Cut.around(subject.point, axes, grid_coordinates(x, y), request.episodes),
        Cut.around(subject.point, axes, way.coordinates, EPISODES),
        *(Cut.at(point, EPISODES) for point in subject.way),
    ]
    surface, shadows, *checkpoint_returns = play(cuts).returns
    return PlayedPlane(plane, x, y, surface, scale, way, np.concatenate(checkpoint_returns), shadows)


def quantities_of(measured: Measurements) -> dict[str, Quantity]:
    """The numbers with names, as far as they were measured."""
    quantities = {"return/mean": mean_quantity(measured.center), "return/random": mean_quantity(measured.random)}
    if measured.updates is not None:
        quantities["update/length"] = Quantity(measured.updates.unit)
    if measured.lines is not None:
        cliff = measured.lines.cliff
        quantities |= {"cliff/alpha": Quantity(cliff.alpha), "cliff/random_share": cliff.random}
    if measured.path is not None:
        quantities["path/barrier"] = measured.path[1].depth
    return quantities
