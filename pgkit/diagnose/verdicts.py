"""Verdicts about a member: every rule in its order, what nobody measured, and the first paragraph of the report.

>>> quantities = {
...     "return/mean": Quantity(494.0, 488.0, 500.0, 100),
...     "return/random": Quantity(22.0, 20.0, 24.0, 100),
...     "post_update/K/mean": Quantity(83.0, 60.0, 110.0, 64),
...     "post_update/K/half_share": Quantity(0.8, 0.69, 0.88, 64),
...     "post_update/updates": Quantity(39.0),
... }
>>> points = [PointResult("seed-3", 5_000.0, 0.01, False, quantities)]
>>> spoken = verdicts(points, reference=475.0)
>>> spoken[0].rule, spoken[0].env_steps
('fragile', [5000.0])
>>> spoken[0].words[:78]
'The next 39 updates of this optimizer would have cut the return from 494 [488,'
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pgkit.diagnose.history import (
    AFTER,
    BIAS,
    CERTAIN,
    CLIFF,
    EVEN,
    EXPLAINED,
    GAP,
    GRADIENT,
    HALF,
    ODD,
    RANDOM,
    RANDOM_FALLS,
    RETURN,
    TARGETS,
    TOTAL,
    History,
    exists,
    get,
)
from pgkit.diagnose.results import PointResult, Quantity, Verdict
from pgkit.diagnose.rules import (
    biased_critic,
    cliff,
    constant_critic,
    fewest_falls,
    fragile,
    one_update,
    saturated,
)
from pgkit.diagnose.stalls import stalled
from pgkit.diagnose.thresholds import Thresholds
from pgkit.diagnose.words import at_point, first_sentence, joined, number, with_interval

HEALTHY, NOT_MEASURED, NOTHING = "healthy", "not measured", "nothing resolved"


@dataclass(frozen=True)
class Rule:
    """One rule of the verdicts.

    Attributes:
        name: what it looks for; its verdicts have this name, or it and a cause, or another that says more.
        apply: takes the history of a member and says what it sees.
        needs: quantities without which it cannot speak of a point; ``{estimator}`` stands for that of the run.
        for_health: whether a member may be called healthy only if this could speak.
    """

    name: str
    apply: Callable[[History], list[Verdict]]
    needs: tuple[str, ...]
    for_health: bool = False


RULES = (
    Rule("saturated", saturated, (f"{AFTER}/change", CERTAIN, GRADIENT, RETURN, RANDOM), for_health=True),
    Rule("fragile", fragile, (f"{AFTER}/mean", HALF), for_health=True),
    Rule("one update", one_update, (f"{AFTER}/mean", ODD, EVEN, GAP), for_health=True),
    Rule("constant critic", constant_critic, (f"{AFTER}/mean", TARGETS, EXPLAINED)),
    Rule("biased critic", biased_critic, (f"{AFTER}/mean", BIAS)),
    Rule("cliff", cliff, (f"{AFTER}/mean", CLIFF, RANDOM_FALLS)),
    Rule("stalled", stalled, (f"{AFTER}/mean", RETURN, RANDOM)),
)
"""In the order of the report."""

HEADLINES = ("fragile", "saturated", "stalled", "critic", "downhill", "overshoots", "noise eats", "cliff")
"""Beginnings of the rules' names in the order in which the first paragraph mentions them: what experiments on the run
show comes first, and a policy that cannot move after what brought it there."""


def verdicts(
    points: Sequence[PointResult],
    reference: float | None = None,
    estimator: str | None = None,
    thresholds: Thresholds | None = None,
) -> list[Verdict]:
    """Say what the measurements of one member show.

    The rules speak in their order. *Healthy* is said where none of them speaks, the next updates were played at every
    point but the last, the first three rules could speak, and the return rises or is at the reference; it names the
    smallest effect that would have been seen. What could be measured nowhere is listed in a last verdict, "not
    measured", which is about no point. Nothing is concluded from a quantity that is missing.

    An example is in the module's notes.

    Args:
        points: of one member.
        reference: R_ref, the return at which the task counts as solved; None if nobody says. Then nothing is called
            stalled or solved, and a return far from the best of this member counts as low.
        estimator: the advantages that the run learns from, by their name in ``estimators/<name>``.
        thresholds: what counts as much; by default those of the class.

    Raises:
        ValueError: there is no point, or they are of several members.
    """
    if len({point.member for point in points}) != 1:
        raise ValueError(f"expected points of one member, got {sorted({point.member for point in points})}")
    ordered = sorted(points, key=lambda point: point.env_steps)
    history = History(ordered, reference, estimator, thresholds or Thresholds())
    spoken = [verdict for rule in RULES for verdict in rule.apply(history)]
    missing = [rule for rule in RULES if _reason(history, rule) is not None]
    if not spoken:
        spoken = [_verdict_of_silence(history, missing)]
    return spoken + ([_not_measured(history, missing)] if missing else [])


def summary(spoken: Sequence[Verdict], points: Sequence[PointResult]) -> str:
    """Say in two to four plain sentences how the return of a member went, and what the verdicts are.

    >>> points = [PointResult("seed-3", 0.0, 0.0, False, {"return/mean": Quantity(22.0, 20.0, 24.0, 100)})]
    >>> summary(verdicts(points), points).split(". ")[0]
    'The return of seed-3 was 22 [20, 24] at 0 steps (0 % of training)'

    Args:
        spoken: the member's, as :func:`verdicts` returns them.
        points: of the same member.
    """
    return " ".join([_course(points), *(first_sentence(verdict.words) for verdict in headlines(spoken))])


def headlines(spoken: Sequence[Verdict]) -> list[Verdict]:
    """Return the verdicts of a member that matter most, three at most, the first of them first."""
    # Causes follow their symptom, as in `spoken`.
    ranked = [verdict for headline in HEADLINES for verdict in spoken if verdict.rule.startswith(headline)]
    silence = [verdict for verdict in spoken if verdict.rule in (HEALTHY, NOTHING)]
    missing = [verdict for verdict in spoken if verdict.rule == NOT_MEASURED]
    return [*(ranked[:3] or silence), *missing][:3]


def _course(points: Sequence[PointResult]) -> str:
    """Say how the return went: first, best and last."""
    played = sorted((point for point in points if exists(point, RETURN)), key=lambda point: point.env_steps)
    if not played:
        return "The return was not measured."
    first, last = played[0], played[-1]
    best = max(reversed(played), key=lambda point: get(point, RETURN).value)  # the last of equal ones
    start = f"The return of {first.member} was {with_interval(get(first, RETURN))} {at_point(first)}"
    stages = [f"{with_interval(get(point, RETURN))} {at_point(point)}" for point in (best, last) if point is not first]
    if best is last or best is first:
        stages = stages[-1:]
    return joined([start, *stages]) + "."


def _verdict_of_silence(history: History, missing: Sequence[Rule]) -> Verdict:
    """Say that the member is healthy, or why that cannot be said although no rule has spoken."""
    unplayed = [point for point in history.points[:-1] if point not in history.played]
    unknown = [rule.name for rule in missing if rule.for_health]
    course = _rises_or_solved(history)
    if course is not None and history.played and not unplayed and not unknown:
        words = f"Healthy: {course}, and no rule found anything wrong. {smallest_effect(history)}"
        refuted_by = "any of the rules on more copies, more episodes or points between these"
        return history.speak(HEALTHY, history.played, words, [RETURN, HALF, ODD, EVEN, GAP], refuted_by)
    reasons = [f"{joined(unknown)} could not be judged"] if unknown else []
    if unplayed:
        reasons.append(f"the next updates were not played at {len(unplayed)} of {len(history.points)} points")
    if course is None:
        reasons.append("the return neither rises to its best nor is it known to be at the reference")
    words = f"No rule found anything, but that is not health: {joined(reasons)}. {smallest_effect(history)}"
    return history.speak(NOTHING, history.played, words, [RETURN], "more copies, more episodes, or more points")


def _rises_or_solved(history: History) -> str | None:
    """Say that the return is at the reference, or rises to the end; None if neither is so."""
    points = [point for point in history.points if exists(point, RETURN)]
    if not points:
        return None
    last = get(points[-1], RETURN)
    if history.is_solved(points[-1]):
        return f"the return ends at {with_interval(last)}, where the reference is {number(history.best)}"
    rise = _difference(last, get(points[0], RETURN))
    top = max((get(point, RETURN) for point in points), key=lambda quantity: quantity.value)
    drop = 0.0 if top is last else _difference(top, last).low
    if rise.low > 0 and drop <= history.rope:
        return f"the return rises by {with_interval(rise)} to {with_interval(last)}"
    return None


def _difference(one: Quantity, other: Quantity) -> Quantity:
    """Return the difference of two independent means; half widths add as ``sqrt(w_1^2 + w_2^2)``."""
    value = one.value - other.value
    low = value - math.hypot(one.value - one.low, other.high - other.value)
    high = value + math.hypot(one.high - one.value, other.value - other.low)
    return Quantity(value, low, high, min(one.n, other.n))


def smallest_effect(history: History) -> str:
    """Say which effects the copies and episodes could have shown, as a sentence."""
    shares = [get(point, HALF) for point in history.played if exists(point, HALF)]
    widths = sorted(
        (get(point, TOTAL).high - get(point, TOTAL).low) / 2 for point in history.played if exists(point, TOTAL)
    )
    seen = []
    if shares:
        fewest = min(share.n for share in shares)
        falls = fewest_falls(fewest, history.thresholds.fragile)
        seen.append(f"{falls} of {fewest} copies that lose half of the return")
    if widths:
        seen.append(f"a change of the return by {number(widths[len(widths) // 2])} in one update")
    if not seen:
        return "Nothing was measured that would have shown an effect."
    return f"The smallest effects that would have shown at a typical point: {joined(seen)}."


def _not_measured(history: History, missing: Sequence[Rule]) -> Verdict:
    """List the rules that could speak of no point, and why."""
    texts = [f"{rule.name} ({_reason(history, rule)})" for rule in missing]
    words = f"Not measured, so nothing is said about it: {joined(texts)}."
    return history.speak(NOT_MEASURED, [], words, [], "measuring it")


def _reason(history: History, rule: Rule) -> str | None:
    """Say why a rule could speak of no point; None if it could.

    The reason is that of the first quantity that is missing at the point where most are there.
    """
    if rule.apply is stalled and history.reference is None:
        return "there is no reference return"
    if rule.apply is biased_critic and history.estimator is None:
        return "the estimator that the run learns from is not known"
    needs = [name.format(estimator=history.estimator) for name in rule.needs]
    closest = max(history.points, key=lambda point: sum(exists(point, name) for name in needs))
    absent = [name for name in needs if not exists(closest, name)]
    return f"{absent[0]}: {get(closest, absent[0]).reason or 'no value'}" if absent else None
