"""Where the return of a member stood still, and what kept it there."""

from collections.abc import Sequence

from pgkit.diagnose.history import (
    ALONG_GRADIENT,
    BOTTOM,
    NSR,
    ODD,
    P_FLIP,
    RANDOM_UP,
    RETURN,
    TOP,
    History,
    exists,
    get,
    within,
)
from pgkit.diagnose.results import PointResult, Verdict
from pgkit.diagnose.words import at_point, change, number, with_interval


def stalled(history: History) -> list[Verdict]:
    """The return stays within the ROPE for a fifth of the budget, below R_ref; then, what limits it."""
    window = longest_stall(history)
    played = [point for point in window if point in history.played]
    if not played:
        return []
    first, last = window[0], window[-1]
    rule, reason, evidence = _limit(history, played)
    words = (
        f"The return stalled at {with_interval(get(last, RETURN))} from {first.env_steps:,.0f} to "
        f"{last.env_steps:,.0f} steps ({100 * (last.share - first.share):.0f} % of training), below the reference, "
        f"{number(history.best)}: {reason}."
    )
    refuted_by = f"returns of more episodes that differ by more than {number(history.rope)} in this time"
    return [history.speak(f"stalled/{rule}", played, words, [RETURN, *evidence], refuted_by)]


def longest_stall(history: History) -> list[PointResult]:
    """Return the longest stretch of points with one return below R_ref, the last one of those; empty without one."""
    points = [point for point in history.points if exists(point, RETURN)]
    if history.reference is None:
        return []
    best: list[PointResult] = []
    for start, first in enumerate(points):
        window = [first]
        for point in points[start + 1 :]:
            if abs(get(point, RETURN).value - get(first, RETURN).value) > history.rope:
                break
            window.append(point)
        while len(window) > 1 and not get(window[-1], RETURN).high < history.reference:
            window.pop()
        length = window[-1].share - first.share
        if length >= history.thresholds.stall and (not best or length >= best[-1].share - best[0].share):
            best = window
    return best


def _limit(history: History, points: Sequence[PointResult]) -> tuple[str, str, list[str]]:
    """Return what limits a stall: a cause, words for it, and the quantities that it rests on."""
    limits = history.thresholds
    for point in reversed(points):
        nsr = get(point, NSR)
        if exists(point, NSR) and nsr.low > limits.one_batch and nsr.high < limits.many_batches:
            reason = (
                f"noise limits it, because {at_point(point)} a batch's gradient has {with_interval(nsr)} times as much "
                f"noise as signal, so {number(limits.many_batches)} batches would show the direction and one does not"
            )
            return "noise-limited", reason, [NSR]
    for point in reversed(points):
        flat = get(point, P_FLIP).value > limits.significance
        odd = get(point, ODD)
        if flat and _curves(point, TOP, 1) and _curves(point, BOTTOM, -1) and within(odd, history.rope):
            reason = (
                f"{at_point(point)} it is at a saddle, where the return curves up in one direction "
                f"({with_interval(get(point, TOP))}) and down in another ({with_interval(get(point, BOTTOM))}), no "
                f"gradient is resolved, and an update gains {change(odd)}"
            )
            return "saddle", reason, [TOP, BOTTOM, P_FLIP, ODD]
        if flat and _curves_down_only(point) and exists(point, ODD) and not odd.excludes(0.0):
            reason = (
                f"{at_point(point)} it looks like a local optimum, where no direction that was tried is resolved to "
                f"lead up, and the most upward curvature is {with_interval(get(point, TOP))}"
            )
            return "like a local optimum", reason, [TOP, BOTTOM, ALONG_GRADIENT, RANDOM_UP, P_FLIP, ODD]
    looked = any(exists(point, TOP, BOTTOM) for point in points)
    return "cause not found", f"a plateau, cause not found{'' if looked else ' (curvature was not measured)'}", []


def _curves_down_only(point: PointResult) -> bool:
    """Whether the most negative direction curves down, and neither the gradient nor any other is resolved to go up."""
    tried = exists(point, TOP, ALONG_GRADIENT, RANDOM_UP)
    rises = _curves(point, TOP, 1) or get(point, ALONG_GRADIENT).low > 0 or get(point, RANDOM_UP).value > 0
    return tried and _curves(point, BOTTOM, -1) and not rises


def _curves(point: PointResult, name: str, sign: int) -> bool:
    """Whether a curvature is resolved to have a sign: by products and, if these were measured, by differences too."""
    measured = [name, *(other for other in [f"{name}_differences"] if exists(point, other))]
    return all(get(point, each).low > 0 if sign > 0 else get(point, each).high < 0 for each in measured)
