"""Sentences about lines, paths and planes, with what a picture cannot show."""

from collections.abc import Sequence

from pgkit.diagnose.landscape.lines import Cliff
from pgkit.diagnose.landscape.paths import Barrier
from pgkit.diagnose.points import Point
from pgkit.diagnose.results import Quantity
from pgkit.diagnose.thresholds import Thresholds
from pgkit.diagnose.words import number, percent, with_interval

ALONG = {"mean_update": "the mean update", "gradient": "the gradient"}

RANDOM_WALK = (0.608, 0.152)
"""Shares of the variance that two components of a random walk hold in high dimension, 6/(pi^2 k^2)."""


def place(point: Point) -> str:
    """Name a point of training."""
    return f"{point.label} at {point.env_steps:,.0f} steps ({100 * point.share:.0f} % of training)"


def policy_sentence(point: Point, chosen_of: int) -> str:
    """Say which policy this is about, and if it was not named, why this one."""
    said = f"The policy is {place(point)}"
    return f"{said}, the middle one of {chosen_of} by final evaluation." if chosen_of else f"{said}."


def unit_sentence(unit: float, without_schedule: bool) -> str:
    """Say what 1 is on lines and planes.

    >>> unit_sentence(0.0123, False)
    'A length of 1 is the median length of the next update: 0.0123 in parameters.'
    """
    which = "the next update"
    if without_schedule:
        which = "an update at the rate before its schedule, which has ended at 0"
    return f"A length of 1 is the median length of {which}: {number(unit)} in parameters."


def cliff_sentence(cliff: Cliff, center: Quantity, fallen: Quantity | None, random: float, farthest: float) -> str:
    """Say whether there is a cliff.

    >>> there = Quantity(83.0, 61.0, 105.0, 50)
    >>> cliff = Cliff("near", 2.0, "mean_update", Quantity(0.0, 0.0, 0.278, 10))
    >>> cliff_sentence(cliff, Quantity(494.0, 488.0, 500.0, 50), there, 22.0, 64.0)
    'A cliff is near: 2 lengths of an update along the mean update, the return has fallen from 494 [488, 500] to 83 \
[61, 105], so that more than half of its lead over random actions (22) is lost, and in none of 10 random directions of \
that length.'

    Args:
        cliff: what was seen.
        center: J_0.
        fallen: J at the cliff.
        random: R_random.
        farthest: how far the lines go, in lengths of an update.
    """
    if cliff.word == "no return to lose":
        return f"The return, {with_interval(center)}, is no better than that of random actions: nothing can be lost."
    if cliff.direction is None or fallen is None:
        return (
            f"There is no cliff: along the mean update and the gradient, the return of {with_interval(center)} is not "
            f"resolved to lose half of its lead over random actions ({number(random)}) within {number(farthest)} "
            "lengths of an update."
        )
    lengths = "1 length" if cliff.alpha == 1 else f"{number(cliff.alpha)} lengths"
    what = (
        f"{lengths} of an update along {ALONG[cliff.direction]}, the return has fallen from {with_interval(center)} to "
        f"{with_interval(fallen)}, so that more than half of its lead over random actions ({number(random)}) is lost"
    )
    if cliff.word == "none":
        return (
            f"There is no cliff within {number(Thresholds().near_cliff)} lengths of an update, only far away: {what}."
        )
    if cliff.word == "steep all round":
        return f"It is steep all round: {what}, and so it has in {percent(cliff.random)} of random directions."
    begin = "There is a cliff" if cliff.word == "cliff" else "A cliff is near"
    none = f", and in none of {cliff.random.n} random directions of that length" if cliff.random.n else ""
    return f"{begin}: {what}{none}."


def barrier_sentence(dip: Barrier, ends: Sequence[Quantity], names: Sequence[str], two_seeds: bool) -> str:
    """Say whether there is a barrier on the straight way between two policies.

    Args:
        dip: the deepest point below the chord.
        ends: J at both ends.
        names: of both ends.
        two_seeds: whether they were trained from different initial parameters.
    """
    between = f"between {names[0]} (return {with_interval(ends[0])}) and {names[1]} (return {with_interval(ends[1])})"
    depth = f"{with_interval(dip.depth)} at {100 * dip.at:.0f} % of the way"
    if dip.depth.low > 0:
        said = f"There is a barrier {between}: the return is lower than on the chord by {depth}."
    else:
        said = f"No barrier is resolved {between}: the return is lower than on the chord by at most {depth}."
    if two_seeds:
        said += (
            " Units of two seeds' networks are in different orders, so that a barrier between seeds is the rule and "
            "says nothing against either."
        )
    return f"{said} A barrier on the straight way is none on every way."


def plane_sentence(
    name: str, size: int, episodes: int, error: float, unit: str, way: "WayWords | None", has_unit: bool
) -> str:
    """The caption of a plane: what it shows, and what it does not.

    Args:
        name: of the plane.
        size: policies along each side.
        episodes: that each has played.
        error: median standard error of a policy's return.
        unit: see :func:`unit_sentence`.
        way: the checkpoints on it, if there are any.
        has_unit: whether axes are in lengths of an update.
    """
    planes = {
        "trajectory": "the first two principal components of the checkpoints",
        "curvature": "the directions in which the return was found to curve up and down most",
        "random": "two random directions, filter-normalised",
    }
    texts = [
        f"The return on the plane of {planes[name]}: {size} x {size} policies, {episodes} episodes each, all on the "
        f"same random numbers (median standard error {number(error)}). The star is the policy itself."
    ]
    if way is not None:
        texts.append(way.text(name == "trajectory"))
    scale = f"The only scale of such a picture is the length of an update. {unit}" if has_unit else unit
    texts.append(
        f"{scale} Kinks as small as a cell may be noise. Hills, valleys and saddles are those of this plane: the full "
        "space may have none there."
    )
    return " ".join(texts)


class WayWords:
    """How well a plane shows checkpoints.

    Args:
        count: how many checkpoints.
        shares: share of their variance in each component; empty for other planes.
        off_plane: their largest distance from the plane, in the plane's units.
        extent: the length of the way's shadow from end to end, in the same units.
        shadow: the largest difference between a checkpoint's return and that of its shadow.
    """

    def __init__(self, count: int, shares: Sequence[float], off_plane: float, extent: float, shadow: float) -> None:
        self._count = count
        self._shares = shares
        self._off_plane = off_plane
        self._extent = extent
        self._shadow = shadow

    @property
    def note(self) -> str:
        """In one short line."""
        held = " + ".join(f"{100 * share:.0f} %" for share in self._shares)
        return f"{held} of the variance of the way, which is up to {number(self._off_plane)} off the plane"

    def text(self, along_components: bool) -> str:
        """In sentences."""
        said = (
            f"The white line leads through {self._count} checkpoints, each in the colour of its own return, to the "
            "star."
        )
        if along_components and self._shares:
            held, walk = (" and ".join(f"{100 * s:.0f} %" for s in x) for x in (self._shares, RANDOM_WALK))
            said += (
                f" The plane holds {held} of their variance; a random walk has {walk}, so that large shares say "
                "nothing."
            )
        return (
            f"{said} Checkpoints lie up to {number(self._off_plane)} off the plane (the way is {number(self._extent)} "
            "long from end to end), and their returns differ from those of their shadows on it by up to "
            f"{number(self._shadow)}: the surface is not where the run was."
        )
